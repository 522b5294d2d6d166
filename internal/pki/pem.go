package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"cis490/internal/durable"
)

// Suffixes of the files of a certificate and of its key.
const (
	CertSuffix = ".crt"
	KeySuffix  = ".key"
)

// maxFile bounds the size of any file read here. A CRL of 4 MiB has some hundred thousand
// certificates.
const maxFile = 4 << 20

const (
	PEMCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
	PEMCRL         = "X509 CRL"
)

// byteOrderMark begins a text file of some editors. It has no meaning in UTF-8.
var byteOrderMark = []byte("\xef\xbb\xbf")

// ReadFile reads a configured file of bounded size.
func ReadFile(path string) ([]byte, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return durable.ReadAtMost(r, path, maxFile)
}

// readPEM reads a configured file of PEM blocks. For another format, the error says which it is and
// how to convert it.
func readPEM(path string) ([]byte, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, byteOrderMark)
	if reason := pemProblem(data); reason != "" {
		return nil, fmt.Errorf("%s %s", path, reason)
	}
	return data, nil
}

// pemProblem returns why data is not usable as PEM, or "".
func pemProblem(data []byte) string {
	if len(bytes.TrimSpace(data)) == 0 {
		return "is empty"
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		block, _ := pem.Decode(data)
		if block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "") {
			return "is encrypted with a passphrase, which a service cannot enter: write it without one, with 'openssl pkey -in OLD -out NEW'"
		}
		return ""
	}
	if data[0] != 0x30 { // of an ASN.1 sequence
		return `is not PEM: it has no line that begins with "-----BEGIN"`
	}
	if _, err := x509.ParseCertificate(data); err == nil {
		return "is DER, not PEM: convert it with 'openssl x509 -inform der -in OLD -out NEW'"
	}
	if isKey(data) {
		return "is DER, not PEM: convert it with 'openssl pkey -inform der -in OLD -out NEW'"
	}
	return "is binary, not PEM: if it is PKCS#12, convert it with 'openssl pkcs12 -in OLD -nodes -out NEW'"
}

func isKey(der []byte) bool {
	_, pkcs8 := x509.ParsePKCS8PrivateKey(der)
	_, ec := x509.ParseECPrivateKey(der)
	_, rsa := x509.ParsePKCS1PrivateKey(der)
	return pkcs8 == nil || ec == nil || rsa == nil
}

// GenerateKey returns a new key for a certificate.
func GenerateKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

// EncodeKey returns a key in PEM, with headers of its block, which other programs ignore.
func EncodeKey(key crypto.PrivateKey, headers map[string]string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Headers: headers, Bytes: der}), nil
}

// EncodePEM returns a block of a kind.
func EncodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// EncodeCerts returns certificates in PEM.
func EncodeCerts(certs []*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, EncodePEM(PEMCertificate, cert.Raw)...)
	}
	return text
}

// DecodePEM returns the PEM blocks of data. There must be at least one, and all must be of the
// given kind. A malformed block is an error: the decoder would skip it, and a part of a CA bundle
// or CRL must not pass for the whole.
func DecodePEM(data []byte, path, kind string) ([][]byte, error) {
	begun := bytes.Count(data, []byte("-----BEGIN "))
	var ders [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			return nil, fmt.Errorf("%s holds a PEM block %s; only %q belongs there", path, QuoteText(block.Type), kind)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 || len(ders) != begun {
		return nil, fmt.Errorf("%s: %d of %d PEM blocks %q can be read", path, len(ders), begun, kind)
	}
	return ders, nil
}

// ParseCAs parses a bundle of CA certificates. It does not check their validity, because a
// Raspberry Pi starts without knowing the date. Each use does.
func ParseCAs(data []byte, path string) ([]*x509.Certificate, error) {
	ders, err := DecodePEM(data, path, PEMCertificate)
	if err != nil {
		return nil, err
	}
	var cas []*x509.Certificate
	for _, der := range ders {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		if !ca.BasicConstraintsValid || !ca.IsCA {
			return nil, fmt.Errorf("%s holds the certificate of %s, which is not a CA", path, QuoteText(ca.Subject.CommonName))
		}
		cas = append(cas, ca)
	}
	return cas, nil
}

// ReadPool returns the CA certificates in a file, and a pool of them.
func ReadPool(path string) ([]*x509.Certificate, *x509.CertPool, error) {
	data, err := readPEM(path)
	if err != nil {
		return nil, nil, err
	}
	cas, err := ParseCAs(data, path)
	if err != nil {
		return nil, nil, err
	}
	return cas, PoolOf(cas), nil
}

// CheckCAs returns an error with the given format unless a CA in a file signs certificates for a
// use.
func CheckCAs(path string, use x509.ExtKeyUsage, format string) error {
	cas, _, err := ReadPool(path)
	if err != nil {
		return err
	}
	for _, ca := range cas {
		if AllowsUse(ca, use) {
			return nil
		}
	}
	return fmt.Errorf(format, path)
}

// ReadLeaf returns the first certificate of a file that has only certificates.
func ReadLeaf(path string) (*x509.Certificate, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	ders, err := DecodePEM(data, path, PEMCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return cert, nil
}

// ParseCRLs parses one or more lists. It refuses a list with a critical extension, which says that
// the list is incomplete.
func ParseCRLs(data []byte, path string) ([]*x509.RevocationList, error) {
	ders, err := DecodePEM(data, path, PEMCRL)
	if err != nil {
		return nil, err
	}
	var lists []*x509.RevocationList
	for _, der := range ders {
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		for _, extension := range crl.Extensions {
			if extension.Critical {
				return nil, fmt.Errorf("%s has the critical extension %s, which is not supported; use a full CRL", path, extension.Id)
			}
		}
		lists = append(lists, crl)
	}
	return lists, nil
}

// LoadPair loads a certificate and its key.
func LoadPair(certFile, keyFile string) (tls.Certificate, error) {
	certPEM, err := readPEM(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readPEM(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load %s with key %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}
