package pki

import (
	"crypto/x509"
	"fmt"
	"slices"
)

// CheckRoles returns an error if files of a receiver load but are made for another role, so that
// every host would be refused or refuse the receiver. It is for a check. A start accepts such
// files, as it always has.
func (c Config) CheckRoles() error {
	pair, err := loadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return err
	}
	if !allowsUse(pair.Leaf, x509.ExtKeyUsageServerAuth) {
		return fmt.Errorf("tls.cert_file %s is a host's certificate, and no receiver's: name server.crt, and its key", c.CertFile)
	}
	return checkCAs(c.ClientCAFile, x509.ExtKeyUsageClientAuth,
		"tls.client_ca_file %s holds a CA of receivers, and none of hosts: name hosts-ca.crt")
}

// CheckRoles is [Config.CheckRoles] for a host.
func (c ClientConfig) CheckRoles() error {
	set, err := c.chooseCredentials()
	if err != nil {
		return err
	}
	return checkCAs(set.caFile, x509.ExtKeyUsageServerAuth,
		"receiver.ca_file %s holds a CA of hosts, and none of receivers: name the ca.crt that receiver pki issue wrote")
}

// checkCAs returns an error with the given format unless a CA in a file signs certificates for a
// use.
func checkCAs(path string, use x509.ExtKeyUsage, format string) error {
	cas, _, err := readPool(path)
	if err != nil {
		return err
	}
	for _, ca := range cas {
		if allowsUse(ca, use) {
			return nil
		}
	}
	return fmt.Errorf(format, path)
}

// allowsUse reports whether a certificate is valid for a use. One that names no use is valid for
// all.
func allowsUse(cert *x509.Certificate, use x509.ExtKeyUsage) bool {
	return len(cert.ExtKeyUsage) == 0 || slices.Contains(cert.ExtKeyUsage, use) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}
