package gate

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// IdentifyForwarded is [Gate.IdentifyCaller] for a request from a proxy on this machine that
// terminated TLS. The proxy put the caller's certificate into the header called name, as RFC 9440
// (Client-Cert) or as URL-escaped PEM (nginx). The gate trusts the proxy only for the caller's
// possession of the key: it verifies the certificate itself, against the same CAs and lists. The
// header must occur exactly once. Otherwise a proxy that appends its own to the caller's would let
// the caller choose.
//
// The request must come from a listener that only the proxy can reach.
func (g *Gate) IdentifyForwarded(r *http.Request, name string) (Caller, error) {
	values := r.Header.Values(name)
	if len(values) != 1 {
		return Caller{}, fmt.Errorf("%w: the proxy sent %d fields %s, not one", ErrIdentity, len(values), name)
	}
	cert, err := parseForwardedCert(values[0])
	if err != nil {
		return Caller{}, fmt.Errorf("%w: the field %s: %w", ErrIdentity, name, err)
	}
	return g.identifyPeer(r, []*x509.Certificate{cert}, "proxy")
}

func parseForwardedCert(value string) (*x509.Certificate, error) {
	if inner, ok := strings.CutPrefix(value, ":"); ok {
		encoded, ok := strings.CutSuffix(inner, ":")
		if !ok {
			return nil, errors.New("no byte sequence of RFC 9440")
		}
		der, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	text, err := url.PathUnescape(value)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("not one certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
