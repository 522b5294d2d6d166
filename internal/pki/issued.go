package pki

import (
	"crypto/x509"
	"fmt"
	"time"

	"cis490/internal/episode"
)

// IssuedDir has copies of the hosts' certificates, named by serial, in a CA directory and in an identity
// directory.
const IssuedDir = "issued"

// State says whether a certificate gives access.
type State string

// The values of a State, as List prints them.
const (
	Valid       State = "valid"
	NotYetValid State = "not yet valid"
	Expired     State = "expired"
	Revoked     State = "revoked"
	Retired     State = "retired" // a rotation has retired its CA
)

// Issued describes the certificate of a host.
type Issued struct {
	Host      episode.Name `json:"host_id"`
	Serial    string       `json:"serial"` // 32 hex digits
	NotBefore time.Time    `json:"not_before"`
	NotAfter  time.Time    `json:"not_after"`
	State     State        `json:"state"`
}

// Describe describes the certificate of a host by its own fields: whether it was revoked or retired
// is known to those who have the lists.
func Describe(cert *x509.Certificate, now time.Time) Issued {
	id, _ := IDOf(cert) // who signed or read it has checked it
	i := Issued{
		Host: id.Host, Serial: FormatSerial(cert.SerialNumber),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, State: Valid,
	}
	switch {
	case now.After(cert.NotAfter):
		i.State = Expired
	case now.Before(cert.NotBefore):
		i.State = NotYetValid
	}
	return i
}

// RecordCertificate writes a copy of a certificate, before anyone else gets it, so that a
// revocation knows every certificate in use.
func RecordCertificate(dir string, cert *x509.Certificate) error {
	record, err := CreateDir(dir)
	if err != nil {
		return err
	}
	defer record.Close()
	return record.WriteCert(FormatSerial(cert.SerialNumber)+CertSuffix, EncodePEM(PEMCertificate, cert.Raw))
}

// ReadRecord reads what [RecordCertificate] wrote.
func ReadRecord(record *Dir, name string) (*x509.Certificate, error) {
	data, err := record.Read(name)
	if err != nil {
		return nil, err
	}
	ders, err := DecodePEM(data, record.Path(name), PEMCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", record.Path(name), err)
	}
	if _, err := IDOf(cert); err != nil {
		return nil, fmt.Errorf("%s is not a host's certificate: %w", record.Path(name), err)
	}
	return cert, nil
}
