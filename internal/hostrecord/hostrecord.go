// Package hostrecord is what a receiver remembers of each host: when it was here last, by which
// certificate, which roots it trusts, and which of its certificates have ended.
//
// There is one JSON file per host in the identity directory. A running receiver alone writes them
// ([Records]). Commands read them ([List]), also to see which hosts have followed a rotation
// ([ReadRotation]).
//
// Invariant: a certificate that has ended never gives access again. A host whose record cannot be
// read is refused, and the file is left as it is.
package hostrecord

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/pki"
)

const (
	maxRecords = 4096
	maxRecord  = 8 << 10
	// contactInterval is how far the last contact on record may lie behind the real one.
	contactInterval = 10 * time.Minute
)

// Record is what a receiver remembers of a host.
type Record struct {
	Version int          `json:"schema_version"` // 1
	Host    episode.Name `json:"host_id"`
	// LastContact is the time of a request of the host. The last one was at most contactInterval
	// later.
	LastContact *time.Time `json:"last_contact,omitempty"`
	Serial      string     `json:"serial,omitempty"` // of the certificate of that request
	NotAfter    *time.Time `json:"not_after,omitempty"`
	// TrustedCAs are the roots that the host last reported to trust: the [pki.HashKey] of each, in hex.
	// IssuerKeyID is the SubjectKeyIdentifier, in hex, of the CA of the certificate that it presented
	// then.
	TrustedCAs  []string `json:"trusted_cas,omitempty"`
	IssuerKeyID string   `json:"issuer_key_id,omitempty"`
	Joined      *Joined  `json:"joined,omitempty"`
	Renewed     *Renewed `json:"renewed,omitempty"`
	// ReplacedBefore ends the certificates that were valid from then on or earlier, except the one
	// with the serial number ReplacedBy, the joined one and the renewed one: the host joined again
	// then, and has used the certificate that it got.
	ReplacedBefore *time.Time `json:"replaced_before,omitempty"`
	ReplacedBy     string     `json:"replaced_by,omitempty"`
}

// Joined is the certificate that a host got when it joined.
type Joined struct {
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	// Again says that certificates from before NotBefore end when this one is first used.
	Again     bool       `json:"again,omitempty"`
	FirstUsed *time.Time `json:"first_used,omitempty"`
}

// Renewed is the certificate that a host got last by renewal.
type Renewed struct {
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	KeySHA256 string    `json:"key_sha256"` // of its SubjectPublicKeyInfo, in hex
	// Former is the serial number of the renewed certificate before it, which the host uses until it
	// has this one.
	Former string `json:"former,omitempty"`
}

// HasReplaced reports whether a certificate of the host ended when the host joined again.
func (r Record) HasReplaced(serial string, notBefore time.Time) bool {
	isKept := serial == r.ReplacedBy || // and, if the clock was set back before they were signed:
		r.Joined != nil && r.Joined.Serial == serial ||
		r.Renewed != nil && (r.Renewed.Serial == serial || r.Renewed.Former == serial)
	return r.ReplacedBefore != nil && !notBefore.After(*r.ReplacedBefore) && !isKept
}

// isFirstUse reports whether a certificate is the joined one, which was not used before.
func (r Record) isFirstUse(serial string) bool {
	return r.Joined != nil && r.Joined.FirstUsed == nil && r.Joined.Serial == serial
}

// endOthers ends the certificates of the host that are as old as the joined one, or older. So it does
// those that the former machine got by renewal after the host had joined again. What has ended stays ended,
// also if the clock was ahead then.
func (r *Record) endOthers() {
	before := r.Joined.NotBefore
	if r.Renewed != nil && r.Renewed.NotBefore.After(before) {
		before = r.Renewed.NotBefore
	}
	if r.ReplacedBefore != nil && r.ReplacedBefore.After(before) {
		before = *r.ReplacedBefore
	}
	r.ReplacedBefore, r.ReplacedBy, r.Renewed = &before, r.Joined.Serial, nil
}

// List returns the records of an identity directory, which may be missing or "". If some
// cannot be read, it returns an error with the others.
func List(identity string) (map[episode.Name]Record, error) {
	if identity == "" {
		return nil, nil
	}
	dir, err := durable.Open(filepath.Join(identity, pki.HostsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	hosts, damaged, err := readRecords(dir)
	for _, reason := range damaged {
		err = errors.Join(err, reason)
	}
	return hosts, err
}

// readRecords returns the records of a directory, and why others cannot be read.
func readRecords(dir *durable.Dir) (hosts map[episode.Name]Record, damaged map[episode.Name]error, err error) {
	hosts, damaged = make(map[episode.Name]Record), make(map[episode.Name]error)
	for entry, err := range dir.Names() {
		if err != nil {
			return hosts, damaged, err
		}
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if _, err := episode.ParseName(name); !ok || err != nil {
			continue // a temporary file that power loss left
		}
		r, err := readRecord(dir, episode.Name(name))
		if err != nil {
			damaged[episode.Name(name)] = err
			continue
		}
		hosts[r.Host] = r
	}
	return hosts, damaged, nil
}

func readRecord(dir *durable.Dir, host episode.Name) (Record, error) {
	var r Record
	name := string(host) + ".json"
	f, err := dir.Open(name)
	if err != nil {
		return r, err
	}
	defer f.Close()
	data, err := durable.ReadAtMost(f, dir.Path(name), maxRecord)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Version != 1 || r.Host != host {
		return r, fmt.Errorf("%s is not a record of host %s", dir.Path(name), host)
	}
	return r, nil
}
