// Package pki makes the lab's certificates and says who is at the other end of
// a connection.
//
// There are two certificate authorities, so that neither side can stand in for
// the other: the hosts trust ca.crt, which signs the receiver's certificate;
// the receiver trusts hosts-ca.crt, which signs the hosts' and is constrained
// to one trust domain. [InitCA], [Issue], [Renew], [Revoke] and [List] work on
// a directory that holds both. A host's identity is the one URI in its
// certificate, spelled as [ID] says. A [Gate] is the receiver's end, a [Client]
// is the host's; both take new files without a restart and keep the last good
// state if those are bad. Certificates made by other tools work alike if they
// hold the same URI.
//
// The law: no host can write as another. Who a host is comes from its
// certificate alone, and is decided anew for each request, because a
// connection that is kept open outlives certificates, revocations and CAs.
package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"cis490/internal/episode"
	"cis490/internal/printable"
)

// DefaultTrustDomain is the trust domain of a lab that has chosen none.
const DefaultTrustDomain = "cis490.lab"

const (
	idScheme = "spiffe://"
	idHost   = "/host/"
)

// An ID is who a host is: its name within a trust domain.
type ID struct {
	TrustDomain string
	Host        episode.Name
}

// String returns the ID as it stands in a certificate:
// spiffe://<trust domain>/host/<host_id>.
func (id ID) String() string { return idScheme + id.TrustDomain + idHost + string(id.Host) }

// ParseID reads what [ID.String] writes and nothing else: neither another
// spelling of the scheme nor an escape, a port, a query or a fragment.
func ParseID(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, idScheme)
	domain, host, cut := strings.Cut(rest, idHost)
	if !ok || !cut {
		return ID{}, fmt.Errorf("%s is no host's identity: that looks like %s", quote(uri),
			ID{DefaultTrustDomain, "lab-01"})
	}
	if err := checkTrustDomain(domain); err != nil {
		return ID{}, err
	}
	name, err := episode.ParseName(host)
	if err != nil {
		return ID{}, fmt.Errorf("host in %s: %w", quote(uri), err)
	}
	return ID{TrustDomain: domain, Host: name}, nil
}

var domainGrammar = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// checkTrustDomain wants a lower-case DNS name: it becomes a name constraint,
// and those neither fold case nor match addresses.
func checkTrustDomain(domain string) error {
	_, notAddress := netip.ParseAddr(domain)
	if len(domain) <= 253 && domainGrammar.MatchString(domain) && notAddress != nil {
		return nil
	}
	return fmt.Errorf("%s is no trust domain: it needs a lower-case name like %s", quote(domain), DefaultTrustDomain)
}

// idOf returns the identity in a certificate, which must hold exactly one URI.
func idOf(cert *x509.Certificate) (ID, error) {
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

// uriNames returns the URIs of a certificate byte for byte. cert.URIs would not
// do: a parsed URL written out again has lost an upper-case scheme and an empty
// fragment, so that two certificates could spell one host.
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

// quote makes untrusted text fit for a terminal or a log.
func quote(s string) string { return printable.Quote(s, 200) }
