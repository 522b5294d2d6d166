package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// byteOrderMark begins a text file of some editors. It has no meaning in UTF-8.
var byteOrderMark = []byte("\xef\xbb\xbf")

// readPEM reads a configured file of PEM blocks. For another format, the error says which it is and
// how to convert it.
func readPEM(path string) ([]byte, error) {
	data, err := readFile(path)
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
