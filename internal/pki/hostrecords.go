package pki

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// hostsDir has one [HostRecord] per host in a receiver's identity directory.
const hostsDir = "hosts"

const (
	maxHostRecords = 4096
	maxHostRecord  = 8 << 10
	// contactInterval is how far the last contact on record may lie behind the real one.
	contactInterval = 10 * time.Minute
)

// HostRecord is what a receiver remembers of a host.
type HostRecord struct {
	Version int          `json:"schema_version"` // 1
	Host    episode.Name `json:"host_id"`
	// LastContact is the time of a request of the host. The last one was at most contactInterval
	// later.
	LastContact *time.Time `json:"last_contact,omitempty"`
	Serial      string     `json:"serial,omitempty"` // of the certificate of that request
	NotAfter    *time.Time `json:"not_after,omitempty"`
	Joined      *Joined    `json:"joined,omitempty"`
}

// Joined is the certificate that a host got when it joined.
type Joined struct {
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	// Again says that certificates from before NotBefore give no access once this one was used.
	Again     bool       `json:"again,omitempty"`
	FirstUsed *time.Time `json:"first_used,omitempty"`
}

// HostRecords are the records of a running receiver, which alone writes them.
type HostRecords struct {
	dir *durable.Dir
	log *slog.Logger

	mu    sync.Mutex // guards hosts, and is held while a record is written
	hosts map[episode.Name]HostRecord
}

// OpenHostRecords reads the records of an identity directory, and creates their directory if it is
// missing. It leaves out and logs those that it cannot read.
func OpenHostRecords(identity string, log *slog.Logger) (*HostRecords, error) {
	parent, err := durable.Open(identity)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	dir, err := parent.MakeDirMode(hostsDir, 0o700)
	if err != nil {
		return nil, err
	}
	hosts, err := readHostRecords(dir)
	if err != nil {
		log.Warn("host record unreadable", "err", err)
	}
	return &HostRecords{dir: dir, log: log, hosts: hosts}, nil
}

// ListHostRecords returns the records of an identity directory, which may be missing.
func ListHostRecords(identity string) (map[episode.Name]HostRecord, error) {
	dir, err := durable.Open(filepath.Join(identity, hostsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readHostRecords(dir)
}

func readHostRecords(dir *durable.Dir) (map[episode.Name]HostRecord, error) {
	hosts := make(map[episode.Name]HostRecord)
	var broken []error
	for entry, err := range dir.Names() {
		if err != nil {
			return hosts, errors.Join(append(broken, err)...)
		}
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if _, err := episode.ParseName(name); !ok || err != nil {
			continue // a temporary file that power loss left
		}
		r, err := readHostRecord(dir, episode.Name(name))
		if err != nil {
			broken = append(broken, err)
			continue
		}
		hosts[r.Host] = r
	}
	return hosts, errors.Join(broken...)
}

func readHostRecord(dir *durable.Dir, host episode.Name) (HostRecord, error) {
	var r HostRecord
	name := string(host) + ".json"
	f, err := dir.Open(name)
	if err != nil {
		return r, err
	}
	defer f.Close()
	data, err := durable.ReadAtMost(f, dir.Path(name), maxHostRecord)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Version != 1 || r.Host != host {
		return r, fmt.Errorf("%s is not a record of host %s", dir.Path(name), host)
	}
	return r, nil
}

// Close closes the directory.
func (h *HostRecords) Close() error { return h.dir.Close() }

// SetJoined records the certificate of a host that joins. It must be called before the host gets
// the certificate.
func (h *HostRecords) SetJoined(i Issued, again bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, known := h.hosts[i.Host]
	if !known && len(h.hosts) >= maxHostRecords {
		return fmt.Errorf("there are records of %d hosts, the maximum; remove old files from %s", len(h.hosts), h.dir.Path(""))
	}
	r.Joined = &Joined{Serial: i.Serial, NotBefore: i.NotBefore, Again: again}
	return h.save(i.Host, r)
}

// EndOthers makes the certificate with which a host joined the only one of its certificates that
// gives access, without waiting for its first use.
func (h *HostRecords) EndOthers(host episode.Name, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.hosts[host]
	if r.Joined == nil {
		return fmt.Errorf("host %s has not joined", host)
	}
	now = now.UTC().Truncate(time.Second)
	joined := *r.Joined
	joined.Again, joined.FirstUsed, r.Joined = true, &now, &joined
	return h.save(host, r)
}

// checkReplaced returns an error if a certificate of host was replaced by a newer one.
func (h *HostRecords) checkReplaced(host episode.Name, cert *x509.Certificate) error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	j := h.hosts[host].Joined
	if j == nil || !j.Again || j.FirstUsed == nil || !cert.NotBefore.Before(j.NotBefore) {
		return nil
	}
	return fmt.Errorf("the certificate %s ended when host %s joined again and used its new one, on %s",
		formatSerial(cert.SerialNumber), host, formatTime(*j.FirstUsed))
}

// NoteContact records a request of a host that has access.
func (h *HostRecords) NoteContact(c Caller, now time.Time) {
	if h == nil || len(c.peer) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r, known := h.hosts[c.Host]
	serial := formatSerial(c.peer[0].SerialNumber)
	first := r.Joined != nil && r.Joined.FirstUsed == nil && r.Joined.Serial == serial
	recent := r.LastContact != nil && now.Sub(*r.LastContact).Abs() < contactInterval && r.Serial == serial
	if recent && !first || !known && len(h.hosts) >= maxHostRecords {
		return
	}
	now = now.UTC().Truncate(time.Second)
	ends := c.NotAfter
	r.LastContact, r.Serial, r.NotAfter = &now, serial, &ends
	if first {
		joined := *r.Joined
		joined.FirstUsed, r.Joined = &now, &joined
	}
	if err := h.save(c.Host, r); err != nil {
		h.log.Warn("host record not written", "host", c.Host, "err", err)
	}
}

// save keeps a record in memory, and writes it. The caller must hold h.mu.
func (h *HostRecords) save(host episode.Name, r HostRecord) error {
	r.Version, r.Host = 1, host
	h.hosts[host] = r
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return h.dir.WriteFile(string(host)+".json", append(data, '\n'), 0o600)
}
