package pki

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"sync"
)

var dnsGrammar = sync.OnceValue(func() *regexp.Regexp { // slow to compile, and most commands do not need it
	return regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)
})

// ParseNames returns a template with the alternative names of a receiver.
func ParseNames(names []string) (*x509.Certificate, error) {
	template := &x509.Certificate{}
	for _, name := range names {
		addr, err := netip.ParseAddr(name)
		switch {
		case err == nil && addr.Zone() == "":
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.Unmap().AsSlice()))
		case err != nil && len(name) <= 253 && dnsGrammar().MatchString(name):
			template.DNSNames = append(template.DNSNames, name)
		default:
			return nil, fmt.Errorf("%s is not a valid receiver name: it needs a DNS name or an IP address, without scheme or port", QuoteText(name))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the receiver needs a name: the DNS names and IP addresses that hosts reach it by")
	}
	return template, nil
}

// NamesOf returns the DNS names and addresses in a certificate.
func NamesOf(cert *x509.Certificate) []string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// TrustDomainOf returns the trust domain that a hosts' CA is constrained to.
func TrustDomainOf(ca *x509.Certificate) (string, error) {
	if len(ca.PermittedURIDomains) != 1 {
		return "", fmt.Errorf("the CA permits %d trust domains, not one; was it made by receiver pki init?",
			len(ca.PermittedURIDomains))
	}
	return ca.PermittedURIDomains[0], nil
}
