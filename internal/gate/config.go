package gate

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"cis490/internal/pki"
)

// Config names the files of a receiver.
type Config struct {
	CertFile     string // the receiver's certificate
	KeyFile      string
	ClientCAFile string // CAs of the hosts
	CRLFile      string // empty means that nothing is revoked
	TrustDomain  string
	TokensFile   string // empty means that no token is required
	// IdentityDir may hold the issuing CA of the hosts, and a renewed certificate of the receiver. It
	// may be missing, or empty.
	IdentityDir string
	Now         func() time.Time // nil means [time.Now]
}

// Files returns the configured files that [LoadTrust] reads.
func (c Config) Files() []string {
	files := []string{c.CertFile, c.KeyFile, c.ClientCAFile, c.CRLFile, c.TokensFile}
	return slices.DeleteFunc(files, func(path string) bool { return path == "" })
}

func (c Config) currentTime() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// CheckRoles returns an error if files of a receiver load but are made for another role, so that
// every host would be refused or refuse the receiver. It is for a check. A start accepts such
// files, as it always has.
func (c Config) CheckRoles() error {
	pair, err := pki.LoadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return err
	}
	if !pki.AllowsUse(pair.Leaf, x509.ExtKeyUsageServerAuth) {
		return fmt.Errorf("tls.cert_file %s is a host's certificate, and no receiver's: name server.crt, and its key", c.CertFile)
	}
	return pki.CheckCAs(c.ClientCAFile, x509.ExtKeyUsageClientAuth,
		"tls.client_ca_file %s holds a CA of receivers, and none of hosts: name hosts-ca.crt")
}
