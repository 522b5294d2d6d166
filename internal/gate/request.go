package gate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
)

// Request is a checked request for a certificate. Only its key counts: the name in a certificate is
// the issuer's decision.
type Request struct {
	key       crypto.PublicKey
	KeySHA256 string // of the SubjectPublicKeyInfo, in hex
}

// maxRSABits bounds the work of checking a signature.
const maxRSABits = 4096

// ParseRequest parses a PKCS#10 request in DER, and checks that its sender has the key.
func ParseRequest(der []byte) (Request, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, errors.New("the request is not a PKCS#10 request in DER")
	}
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits < 256 {
			return Request{}, fmt.Errorf("a key of %d bits is too short: use P-256", bits)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > maxRSABits {
			return Request{}, fmt.Errorf("an RSA key must have 2048 to %d bits, not %d", maxRSABits, bits)
		}
	default:
		return Request{}, errors.New("the request is for a kind of key that is not supported: use ECDSA P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, errors.New("the request is not signed by the key that it contains")
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return Request{key: csr.PublicKey, KeySHA256: hex.EncodeToString(sum[:])}, nil
}
