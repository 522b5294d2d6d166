package hostrecord

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/pki"
)

// Records are the records of a running receiver, which alone writes them.
type Records struct {
	dir *durable.Dir
	// damaged has the hosts whose record cannot be read. They get no access, and the file is not
	// replaced: it may say which of their certificates have ended.
	damaged map[episode.Name]error

	writing sync.Mutex // held from the change of a record until it is written
	// trustChanges limits the writes of [Records.NoteTrustedCAs]; guarded by writing.
	trustChanges map[episode.Name]trustChanges

	mu    sync.Mutex // guards hosts; a slow disk must not delay who only reads them
	hosts map[episode.Name]Record
}

// Open reads the records of an identity directory, and creates their directory if it is
// missing. It logs those that it cannot read: their hosts get no access.
func Open(identity string, log *slog.Logger) (*Records, error) {
	parent, err := durable.Open(identity)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	dir, err := parent.MakeDirMode(pki.HostsDir, 0o700)
	if err != nil {
		return nil, err
	}
	hosts, damaged, err := readRecords(dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	for host, err := range damaged {
		log.Error("host is refused", "host", host, "err", err,
			"hint", "restore its record, or remove it, which gives access to certificates that joining again has ended; then restart")
	}
	return &Records{dir: dir, hosts: hosts, damaged: damaged, trustChanges: make(map[episode.Name]trustChanges)}, nil
}

// Close closes the directory.
func (h *Records) Close() error { return h.dir.Close() }

// SetJoined records the certificate of a host that joins. It must be called before the host gets
// the certificate.
func (h *Records) SetJoined(i pki.Issued, again bool) error {
	return h.changeRecord(i.Host, func(r *Record) {
		r.Joined = &Joined{Serial: i.Serial, NotBefore: i.NotBefore, Again: again}
	})
}

// SetRenewed records the certificate that a host gets for a key. It must be called before the host gets
// the certificate.
func (h *Records) SetRenewed(i pki.Issued, keySHA256 string) error {
	return h.changeRecord(i.Host, func(r *Record) {
		renewed := &Renewed{Serial: i.Serial, NotBefore: i.NotBefore, KeySHA256: keySHA256}
		if r.Renewed != nil {
			renewed.Former = r.Renewed.Serial
		}
		r.Renewed = renewed
	})
}

// LastRenewed returns the certificate that a host got last by renewal, or nil.
func (h *Records) LastRenewed(host episode.Name) *Renewed {
	r, _, _ := h.get(host)
	return r.Renewed
}

// maxTrustChanges limits how often a host can have its record rewritten by what it trusts, per
// contactInterval. A rotation causes three such changes: both CAs, the new certificate, the new CA alone.
const maxTrustChanges = 8

// NoteTrustedCAs records the roots that a host reports to trust, and the CA of the certificate that it
// presented. Beyond [maxTrustChanges], a change is kept in memory until the record is written next: a
// host must not be able to cause a write with each ping.
func (h *Records) NoteTrustedCAs(host episode.Name, cert *x509.Certificate, cas []string, now time.Time) error {
	issuer := hex.EncodeToString(cert.AuthorityKeyId)
	if r, known, _ := h.get(host); !known || slices.Equal(r.TrustedCAs, cas) && r.IssuerKeyID == issuer {
		return nil
	}
	h.writing.Lock()
	defer h.writing.Unlock()
	if err := h.damaged[host]; err != nil {
		return err
	}
	r, _, _ := h.get(host)
	r.TrustedCAs, r.IssuerKeyID = cas, issuer
	h.set(r)
	changes := h.trustChanges[host]
	if now.Sub(changes.since).Abs() >= contactInterval {
		changes = trustChanges{since: now}
	}
	changes.count++
	if changes.count > maxTrustChanges {
		return nil
	}
	h.trustChanges[host] = changes
	return h.write(host, &r)
}

// trustChanges counts what a host has changed since a time.
type trustChanges struct {
	since time.Time
	count int
}

// changeRecord changes and writes the record of a host.
func (h *Records) changeRecord(host episode.Name, change func(*Record)) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	if err := h.damaged[host]; err != nil {
		return err
	}
	r, known, count := h.get(host)
	if !known && count >= maxRecords {
		return fmt.Errorf("there are records of %d hosts, the maximum; remove old files from %s", count, h.dir.Path(""))
	}
	change(&r)
	if err := h.write(host, &r); err != nil {
		return err
	}
	h.set(r)
	return nil
}

// Expiries returns when the certificate expires with which each host was here last.
func (h *Records) Expiries() map[episode.Name]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	expiries := make(map[episode.Name]time.Time)
	for host, r := range h.hosts {
		if r.NotAfter != nil {
			expiries[host] = *r.NotAfter
		}
	}
	return expiries
}

// get returns the record of a host, and how many hosts have one.
func (h *Records) get(host episode.Name) (r Record, known bool, count int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, known = h.hosts[host]
	return r, known, len(h.hosts)
}

func (h *Records) set(r Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hosts[r.Host] = r
}

// EndOthers makes the certificate with which a host joined the only one of its certificates that
// gives access, without waiting for its first use. It returns the time that [Record] has for that.
func (h *Records) EndOthers(host episode.Name) (replacedBefore time.Time, err error) {
	h.writing.Lock()
	defer h.writing.Unlock()
	r, _, _ := h.get(host)
	if r.Joined == nil {
		return time.Time{}, fmt.Errorf("host %s has not joined", host)
	}
	r.endOthers()
	h.set(r)
	return *r.ReplacedBefore, h.write(host, &r)
}

// CheckReplaced returns an error if a certificate of host was replaced by a newer one, or if that is
// not known.
func (h *Records) CheckReplaced(host episode.Name, cert *x509.Certificate) error {
	if h == nil {
		return nil
	}
	if h.damaged[host] != nil { // the reason is the operator's: it names files
		return fmt.Errorf("the receiver cannot read its record of host %s; its log says why", host)
	}
	r, _, _ := h.get(host)
	serial := pki.FormatSerial(cert.SerialNumber)
	if !r.HasReplaced(serial, cert.NotBefore) {
		return nil
	}
	return fmt.Errorf("the certificate %s ended when host %s joined again and used its new one", serial, host)
}

// NoteContact records a request of a host that has access by a certificate. An error leaves the record
// changed in memory.
func (h *Records) NoteContact(host episode.Name, cert *x509.Certificate, now time.Time) error {
	if h == nil || cert == nil || !h.isNew(host, cert, now) {
		return nil
	}
	h.writing.Lock()
	defer h.writing.Unlock()
	if !h.isNew(host, cert, now) { // another request was faster
		return nil
	}
	r, _, _ := h.get(host)
	serial := pki.FormatSerial(cert.SerialNumber)
	now = now.UTC().Truncate(time.Second)
	ends := cert.NotAfter
	r.Host, r.LastContact, r.Serial, r.NotAfter = host, &now, serial, &ends
	if r.isFirstUse(serial) {
		joined := *r.Joined
		joined.FirstUsed, r.Joined = &now, &joined
		if joined.Again {
			r.endOthers()
		}
	}
	h.set(r) // first, so that the former certificates end even if the disk is full
	return h.write(host, &r)
}

// isNew reports whether a request says more than the record of its host.
func (h *Records) isNew(host episode.Name, cert *x509.Certificate, now time.Time) bool {
	r, known, count := h.get(host)
	serial := pki.FormatSerial(cert.SerialNumber)
	recent := r.LastContact != nil && now.Sub(*r.LastContact).Abs() < contactInterval && r.Serial == serial
	return (!recent || r.isFirstUse(serial)) && (known || count < maxRecords)
}

// write writes a record. The caller must hold h.writing.
func (h *Records) write(host episode.Name, r *Record) error {
	r.Version, r.Host = 1, host
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return h.dir.WriteFile(string(host)+".json", append(data, '\n'), 0o600)
}
