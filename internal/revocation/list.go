package revocation

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cis490/internal/ca"
	"cis490/internal/pki"
)

// ListIssued returns the certificates issued from dir, sorted by host. Records are further
// directories with records of issued certificates. If a record cannot be read, it returns an error
// with the rest of the list.
func ListIssued(dir string, now time.Time, records ...string) ([]pki.Issued, error) {
	return uncached.ListIssued(dir, now, records...)
}

// ListIssued is [ListIssued] for a caller that lists them again and again.
func (c *RecordCache) ListIssued(dir string, now time.Time, records ...string) ([]pki.Issued, error) {
	f, err := ca.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	revoked, err := readRevocations(f)
	if err != nil {
		return nil, err
	}
	certs, broken := c.readAllRecords(f, records)
	list := make([]pki.Issued, 0, len(certs))
	for _, cert := range certs {
		list = append(list, revoked.describe(cert, now))
	}
	slices.SortFunc(list, func(a, b pki.Issued) int {
		if c := strings.Compare(string(a.Host), string(b.Host)); c != 0 {
			return c
		}
		if c := a.NotBefore.Compare(b.NotBefore); c != 0 {
			return c
		}
		return strings.Compare(a.Serial, b.Serial)
	})
	return list, broken
}

// readAllRecords returns the certificates on record in a CA directory and in further directories,
// each of which may be missing, and an error for those that cannot be read.
func (c *RecordCache) readAllRecords(f *ca.Dir, more []string) ([]*x509.Certificate, error) {
	certs, broken := c.readRecords(f.Path(pki.IssuedDir))
	next, err := ca.OpenNext(f)
	if err != nil {
		return certs, errors.Join(broken, err)
	}
	if next != nil {
		more = append(slices.Clone(more), next.Path(pki.IssuedDir))
		defer next.Close()
	}
	for _, path := range more {
		if path == "" {
			continue
		}
		found, err := c.readRecords(path)
		certs, broken = append(certs, found...), errors.Join(broken, err)
	}
	return certs, broken
}

// readRecords returns the certificates in a directory that can be read, and an error for the others.
func (c *RecordCache) readRecords(path string) ([]*x509.Certificate, error) {
	record, err := pki.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer record.Close()
	return c.read(path, record, func() ([]*x509.Certificate, error) { return parseRecords(record) })
}

func parseRecords(record *pki.Dir) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	var broken []error
	for entry, err := range record.Names() {
		if err != nil {
			return certs, errors.Join(append(broken, err)...)
		}
		if filepath.Ext(entry.Name()) != pki.CertSuffix { // a temporary file that power loss left
			continue
		}
		cert, err := pki.ReadRecord(record, entry.Name())
		if err != nil {
			broken = append(broken, err)
			continue
		}
		certs = append(certs, cert)
	}
	return certs, errors.Join(broken...)
}
