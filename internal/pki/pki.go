// Package pki has what both ends and the operator's commands share: the identity of a host, keys,
// certificates, lists of revoked ones, and the files and directories that hold them.
//
// The identity of a host is the one URI in its certificate, in the format of [ID]. Certificates of
// other tools work as well if they have that URI. An [Authority] is a CA with its key, and signs. A
// [Dir] is a directory of PEM files. What setup and joining wrote is in an identity directory, on
// the receiver and on each host ([IdentityDir], [IdentityLayout]).
//
// What is done with them is in other packages. An operator uses ca, revocation and rotation on a
// directory of CAs. Package gate is the receiver's end, with its records in hostrecord, and
// credentials is the host's.
//
// Invariant: what is read counts as a whole, or not at all. A block that cannot be parsed and a
// list that says that it is incomplete are errors, because a part of a bundle or list must not pass
// for the whole. An identity is read byte for byte, so that no two spellings name one host.
package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"

	"cis490/internal/episode"
	"cis490/internal/printable"
)

// DefaultTrustDomain is the trust domain if none is configured.
const DefaultTrustDomain = "cis490.lab"

const (
	idScheme = "spiffe://"
	idHost   = "/host/"
)

// ID is the identity of a host: its name within a trust domain.
type ID struct {
	TrustDomain string
	Host        episode.Name
}

// String returns the ID as in a certificate: spiffe://<trust domain>/host/<host_id>.
func (id ID) String() string { return idScheme + id.TrustDomain + idHost + string(id.Host) }

// ParseID parses exactly what [ID.String] returns. It refuses other spellings of the scheme,
// escapes, ports, queries and fragments.
func ParseID(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, idScheme)
	domain, host, cut := strings.Cut(rest, idHost)
	if !ok || !cut {
		return ID{}, fmt.Errorf("%s is not a valid host identity: it looks like %s", QuoteText(uri),
			ID{DefaultTrustDomain, "lab-01"})
	}
	if err := CheckTrustDomain(domain); err != nil {
		return ID{}, err
	}
	name, err := episode.ParseName(host)
	if err != nil {
		return ID{}, fmt.Errorf("host in %s: %w", QuoteText(uri), err)
	}
	return ID{TrustDomain: domain, Host: name}, nil
}

var domainGrammar = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
})

// CheckTrustDomain returns an error unless domain is a lower-case DNS name. It becomes a name
// constraint, which neither folds case nor matches addresses.
func CheckTrustDomain(domain string) error {
	_, notAddress := netip.ParseAddr(domain)
	if len(domain) <= 253 && domainGrammar().MatchString(domain) && notAddress != nil {
		return nil
	}
	return fmt.Errorf("%s is not a valid trust domain: it needs a lower-case name like %s", QuoteText(domain), DefaultTrustDomain)
}

// IDOf returns the identity in a certificate, which must have exactly one URI.
func IDOf(cert *x509.Certificate) (ID, error) {
	uris, err := uriNames(cert)
	if err != nil {
		return ID{}, err
	}
	if len(uris) != 1 {
		return ID{}, fmt.Errorf("it names %d URIs, not one", len(uris))
	}
	return ParseID(uris[0])
}

const (
	subjectAltName = "2.5.29.17"
	uriTag         = 6 // uniformResourceIdentifier in a GeneralName
)

// uriNames returns the URIs of a certificate byte for byte. cert.URIs would not do: formatting a
// parsed URL loses an upper-case scheme and an empty fragment, so that two certificates could name
// one host.
func uriNames(cert *x509.Certificate) ([]string, error) {
	var uris []string
	for _, extension := range cert.Extensions {
		if extension.Id.String() != subjectAltName {
			continue
		}
		var names []asn1.RawValue
		rest, err := asn1.Unmarshal(extension.Value, &names)
		if err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("its alternative names cannot be read")
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == uriTag {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris, nil
}

// QuoteText returns untrusted text for a terminal or a log.
func QuoteText(s string) string { return printable.Quote(s, 200) }
