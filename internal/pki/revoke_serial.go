package pki

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"strings"
	"time"

	"cis490/internal/episode"
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
	if b = bytes.TrimLeft(b, "\x00"); len(b) == 0 || len(b) > maxSerial {
		return nil, fmt.Errorf("the serial %s is not between 1 and %d bytes long", quoteText(text), maxSerial)
	}
	return new(big.Int).SetBytes(b), nil
}

func serialError(text string) error {
	return fmt.Errorf("%s is not a serial number: want hex digits, as 'receiver pki list --json' or 'openssl x509 -serial' print them", quoteText(text))
}

// Revocation is the result of [RevokeSerial] or [RevokeCertificate].
type Revocation struct {
	Serial  string       // 32 hex digits
	Host    episode.Name // empty if the directory has no record of the certificate
	Already bool         // the certificate was revoked before
}

// RevokeSerial adds the certificate with a serial number to dir/hosts.crl. It needs no record of
// the certificate: a directory restored from a backup has none of later certificates.
func RevokeSerial(dir string, serial *big.Int, now time.Time) (Revocation, error) {
	f, ca, err := openToRevoke(dir)
	if err != nil {
		return Revocation{}, err
	}
	defer f.Close()
	r := Revocation{Serial: formatSerial(serial)}
	certs, _ := readRecords(f) // only for the host's name: a corrupt record must not prevent a revocation
	for _, cert := range certs {
		if id, err := idOf(cert); err == nil && cert.SerialNumber.Cmp(serial) == 0 {
			r.Host = id.Host
		}
	}
	return revokeOne(f, ca, serial, r, now)
}

// RevokeCertificate adds a PEM certificate to dir/hosts.crl if the hosts' CA of dir signed it. It
// needs no record of it. Of a chain it revokes the first, which is the host's. Path is for
// messages.
func RevokeCertificate(dir, path string, now time.Time) (Revocation, error) {
	data, err := readFile(path)
	if err != nil {
		return Revocation{}, err
	}
	cert, err := parseLeaf(data, path)
	if err != nil {
		return Revocation{}, err
	}
	f, ca, err := openToRevoke(dir)
	if err != nil {
		return Revocation{}, err
	}
	defer f.Close()
	if bytes.Equal(cert.Raw, ca.cert.Raw) {
		return Revocation{}, fmt.Errorf("%s is the certificate of the hosts' CA itself, which no list of its own can revoke", path)
	}
	if err := cert.CheckSignatureFrom(ca.cert); err != nil {
		return Revocation{}, fmt.Errorf("%s was not signed by %s, so its list cannot revoke it: %s",
			path, f.Path(hostsCA+certSuffix), printable.Text(err.Error()))
	}
	r := Revocation{Serial: formatSerial(cert.SerialNumber)}
	if id, err := idOf(cert); err == nil {
		r.Host = id.Host
	}
	return revokeOne(f, ca, cert.SerialNumber, r, now)
}

// parseLeaf returns the first certificate of a file that has only certificates.
func parseLeaf(data []byte, path string) (*x509.Certificate, error) {
	ders, err := decodeBlocks(data, path, pemCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return cert, nil
}

// openToRevoke opens and locks a CA directory, and loads the CA that signs the list.
func openToRevoke(dir string) (*pemDir, authority, error) {
	f, err := openCA(dir)
	if err != nil {
		return nil, authority{}, err
	}
	if err := f.lock(); err != nil {
		return nil, authority{}, errors.Join(err, f.Close())
	}
	ca, err := loadAuthority(f, hostsCA)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; 'receiver hosts disable', on the receiver, blocks a host at once and needs no key", err)
	}
	if err != nil {
		return nil, authority{}, errors.Join(err, f.Close())
	}
	return f, ca, nil
}

func revokeOne(f *pemDir, ca authority, serial *big.Int, r Revocation, now time.Time) (Revocation, error) {
	// An unreadable list is not replaced: that would restore the access of hosts on it.
	crl, err := readCRL(f, ca.cert)
	if err != nil {
		return Revocation{}, err
	}
	if isRevoked(crl, serial) {
		r.Already = true
		return r, nil
	}
	_, err = extendCRL(f, ca, crl, []*big.Int{serial}, cmp.Or(now, time.Now()))
	return r, err
}
