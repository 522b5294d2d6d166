package revocation

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"cis490/internal/ca"
	"cis490/internal/episode"
	"cis490/internal/pki"
	"cis490/internal/printable"
)

// maxSerial is the maximum number of bytes of a serial number (RFC 5280, 4.1.2.2).
const maxSerial = 20

// ParseSerial parses the serial number of a certificate in hex, as this program, openssl or a
// browser prints it: upper or lower case, optionally with colons between the bytes or 0x in front.
func ParseSerial(text string) (*big.Int, error) {
	digits := strings.TrimPrefix(strings.ToLower(text), "0x")
	if strings.Contains(digits, ":") {
		for part := range strings.SplitSeq(digits, ":") {
			if len(part) != 2 {
				return nil, serialError(text)
			}
		}
		digits = strings.ReplaceAll(digits, ":", "")
	}
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 {
		return nil, serialError(text)
	}
	b = bytes.TrimLeft(b, "\x00")
	if len(b) == 0 || len(b) > maxSerial {
		return nil, fmt.Errorf("the serial %s is not between 1 and %d bytes long", pki.QuoteText(text), maxSerial)
	}
	return new(big.Int).SetBytes(b), nil
}

func serialError(text string) error {
	return fmt.Errorf("%s is not a serial number: want hex digits, as 'receiver pki list --json' or 'openssl x509 -serial' print them", pki.QuoteText(text))
}

// Result is the result of [RevokeSerial] or [RevokeCertificate].
type Result struct {
	Serial  string       // 32 hex digits
	Host    episode.Name // empty if the directory has no record of the certificate
	Already bool         // the certificate was revoked before
}

// RevokeSerial adds the certificate with a serial number to dir/hosts.crl. It needs no record of
// the certificate: a directory restored from a backup has none of later certificates.
func RevokeSerial(dir string, serial *big.Int, now time.Time, records ...string) (Result, error) {
	f, revoked, err := openToRevoke(dir)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	r := Result{Serial: pki.FormatSerial(serial)}
	signer := -1
	certs, _ := uncached.readAllRecords(f, records) // only for the host's name: a corrupt record must not prevent a revocation
	for _, cert := range certs {
		if id, err := pki.IDOf(cert); err == nil && cert.SerialNumber.Cmp(serial) == 0 {
			r.Host, signer = id.Host, revoked.signerOf(cert)
		}
	}
	return revoked.revoke(r, signer, serial, cmp.Or(now, time.Now()))
}

// RevokeCertificate adds a PEM certificate to dir/hosts.crl if the hosts' CA of dir signed it. It
// needs no record of it. Of a chain it revokes the first, which is the host's. Path is for
// messages.
func RevokeCertificate(dir, path string, now time.Time) (Result, error) {
	cert, err := pki.ReadLeaf(path)
	if err != nil {
		return Result{}, err
	}
	f, revoked, err := openToRevoke(dir)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	if bytes.Equal(cert.Raw, revoked.cas[0].cert.Raw) {
		return Result{}, fmt.Errorf("%s is the certificate of the hosts' CA itself, which no list of its own can revoke", path)
	}
	signer := revoked.signerOf(cert)
	if signer < 0 {
		err := cert.CheckSignatureFrom(revoked.cas[0].cert)
		return Result{}, fmt.Errorf("%s was not signed by %s, so its list cannot revoke it: %s",
			path, f.Path(ca.HostsCA+pki.CertSuffix), printable.Text(err.Error()))
	}
	r := Result{Serial: pki.FormatSerial(cert.SerialNumber)}
	if id, err := pki.IDOf(cert); err == nil {
		r.Host = id.Host
	}
	return revoked.revoke(r, signer, cert.SerialNumber, cmp.Or(now, time.Now()))
}

// revoke adds a certificate to the list of the CA that signed it. If that is not known (-1), it adds
// the serial number to the list of each CA whose key is in the directory, and returns an error with
// the result if there is another CA.
func (r *revocations) revoke(result Result, signer int, serial *big.Int, now time.Time) (Result, error) {
	lists := make([]int, 0, len(r.cas))
	for i := range r.cas {
		if signer < 0 || signer == i {
			lists = append(lists, i)
		}
	}
	result.Already = true
	var missing []error
	for _, i := range lists {
		result.Already = result.Already && isRevoked(r.cas[i].list, serial)
		if err := r.add(i, serial, now); err != nil {
			missing = append(missing, fmt.Errorf("if %s.crt signed the certificate, it still has access: %w", r.cas[i].name, err))
		}
	}
	switch {
	case len(missing) == len(lists):
		return Result{}, errors.Unwrap(missing[0])
	case result.Already:
		return result, nil
	}
	return result, errors.Join(append(missing, r.write())...)
}
