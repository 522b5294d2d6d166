package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"slices"

	"cis490/internal/pki"
)

// Ranges of all addresses of a family, for name constraints.
var (
	allIPv4 = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	allIPv6 = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
)

// anyName as a constraint is all names of a kind.
const anyName = ""

// hostsIssuingTemplate returns the CA that signs the certificates of hosts that join: only URIs in
// the trust domain are permitted.
func hostsIssuingTemplate(domain, label string) *x509.Certificate {
	return &x509.Certificate{
		Subject:                     pkix.Name{CommonName: domain + " hosts issuing CA" + label},
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		PermittedDNSDomainsCritical: true,
		PermittedURIDomains:         []string{domain},
		ExcludedDNSDomains:          []string{anyName},
		ExcludedEmailAddresses:      []string{anyName},
		ExcludedIPRanges:            []*net.IPNet{allIPv4, allIPv6},
	}
}

// serverIssuingTemplate returns the CA that signs the receiver's certificate: only the names and
// addresses of the receiver are permitted.
func serverIssuingTemplate(domain, label string, names []string) (*x509.Certificate, error) {
	leaf, err := pki.ParseNames(names)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:                     pkix.Name{CommonName: domain + " receiver issuing CA" + label},
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         leaf.DNSNames,
		ExcludedEmailAddresses:      []string{anyName},
	}
	if len(leaf.DNSNames) == 0 {
		template.ExcludedDNSDomains = []string{anyName}
	}
	for _, ip := range leaf.IPAddresses {
		template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
	}
	if len(leaf.IPAddresses) == 0 {
		template.ExcludedIPRanges = []*net.IPNet{allIPv4, allIPv6}
	}
	return template, nil
}

// serverSigner returns the CA that signs a receiver's certificate with the given names: the issuing
// CA if its key is here and it may, and otherwise the root.
func serverSigner(f *Dir, names []string) (pki.Authority, error) {
	found, err := f.Exists(serverIssuing + pki.KeySuffix)
	if err != nil {
		return pki.Authority{}, err
	}
	if !found {
		return LoadAuthority(f, ServerCA)
	}
	issuing, err := LoadAuthority(f, serverIssuing)
	if err != nil {
		return pki.Authority{}, err
	}
	refused := permitsNames(issuing.Cert, names)
	if refused == nil {
		return issuing, nil
	}
	root, err := LoadAuthority(f, ServerCA)
	if err != nil {
		return pki.Authority{}, fmt.Errorf("%w; for other names the key of the root is needed: %w", refused, err)
	}
	return root, nil
}

// permitsNames returns an error unless an issuing CA may sign a receiver's certificate with the
// given names.
func permitsNames(ca *x509.Certificate, names []string) error {
	leaf, err := pki.ParseNames(names)
	if err != nil {
		return err
	}
	for _, name := range leaf.DNSNames {
		if !slices.Contains(ca.PermittedDNSDomains, name) {
			return fmt.Errorf("the issuing CA %s does not permit the name %s", pki.QuoteText(ca.Subject.CommonName), pki.QuoteText(name))
		}
	}
	for _, ip := range leaf.IPAddresses {
		if !slices.ContainsFunc(ca.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) }) {
			return fmt.Errorf("the issuing CA %s does not permit the address %s", pki.QuoteText(ca.Subject.CommonName), ip)
		}
	}
	return nil
}
