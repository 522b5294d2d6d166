package gate

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"cis490/internal/pki"
)

// serverPair is a receiver's certificate with its key.
type serverPair struct {
	tls.Certificate
	file       string            // where the certificate is from
	configured *x509.Certificate // the one in [Config.CertFile]
}

// isRenewed reports whether renewal wrote the certificate.
func (p serverPair) isRenewed() bool { return p.Leaf != p.configured }

// chooseServer returns the receiver's certificate. The configured one is used unless it is the one that
// was renewed: what the operator installs wins, whatever the clocks said. It is also used if it alone
// is valid now.
func (c Config) chooseServer(now time.Time) (serverPair, error) {
	pair, err := pki.LoadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return serverPair{}, err
	}
	configured := serverPair{pair, c.CertFile, pair.Leaf}
	if c.IdentityDir == "" {
		return configured, nil
	}
	path := filepath.Join(c.IdentityDir, pki.ServerFile)
	pair, err = c.loadRenewed(path, configured.Leaf)
	if errors.Is(err, fs.ErrNotExist) {
		return configured, nil
	}
	if err != nil {
		return serverPair{}, err
	}
	if pki.CheckTime(pair.Leaf, now) != nil && pki.CheckTime(configured.Leaf, now) == nil {
		return configured, nil
	}
	return serverPair{pair, path, configured.Leaf}, nil
}

// loadRenewed loads the certificate that renewal wrote. The error is an [fs.ErrNotExist] if there is
// none in place of the configured one.
func (c Config) loadRenewed(path string, configured *x509.Certificate) (tls.Certificate, error) {
	data, err := pki.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	block, _ := pem.Decode(data)
	if block != nil && block.Headers[pki.ReplacesHeader] != pki.Fingerprint(configured) {
		return tls.Certificate{}, fs.ErrNotExist
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return pair, fmt.Errorf("load %s: %w; remove the file to use %s", path, err, c.CertFile)
	}
	return pair, nil
}

// RenewOwn replaces the receiver's certificate if half of its life is over or it is not valid now, and
// reports whether it did. [LoadTrust] uses the new one from then on. There is nothing to do if the
// issuing CA in the identity directory did not sign the certificate in use, which is someone else's to
// renew.
func (c Config) RenewOwn(now time.Time) (bool, error) {
	current, ca, err := c.ownRenewable(now)
	if err != nil || current.Leaf == nil || now.Before(ca.Cert.NotBefore) { // such a clock is wrong
		return false, err
	}
	if pki.CheckTime(current.Leaf, now) == nil && now.Before(pki.RenewalTime(current.Leaf)) {
		return false, nil
	}
	key, err := pki.GenerateKey()
	if err != nil {
		return false, err
	}
	cert, err := ca.SignServer(key.Public(), pki.NamesOf(current.Leaf), now, 0)
	if err != nil {
		return false, err
	}
	text, err := pki.EncodeKey(key, map[string]string{pki.ReplacesHeader: pki.Fingerprint(current.configured)})
	if err != nil {
		return false, err
	}
	f, err := pki.OpenDir(c.IdentityDir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return true, f.WriteFile(pki.ServerFile, append(text, ca.ChainOf(cert)...), 0o600)
}

// RenewsOwnAt returns when [Config.RenewOwn] replaces the certificate in use. It reports false if it
// does not.
func (c Config) RenewsOwnAt(now time.Time) (at time.Time, ok bool) {
	current, _, err := c.ownRenewable(now)
	if err != nil || current.Leaf == nil {
		return time.Time{}, false
	}
	return pki.RenewalTime(current.Leaf), true
}

// LacksOwnIssuer reports whether the receiver could renew its certificate if its issuing CA were
// installed, as an earlier release did not do.
func (c Config) LacksOwnIssuer() bool {
	_, err := OpenIssuer(c.IdentityDir)
	_, own := loadServerIssuing(c.IdentityDir)
	return err == nil && errors.Is(own, fs.ErrNotExist)
}

// ownRenewable returns the receiver's certificate and the issuing CA that signed it. It returns no
// certificate if that CA is not here, or if a new certificate would expire no later.
func (c Config) ownRenewable(now time.Time) (serverPair, pki.Authority, error) {
	ca, err := loadServerIssuing(c.IdentityDir)
	if errors.Is(err, fs.ErrNotExist) {
		return serverPair{}, ca, nil
	}
	if err != nil {
		return serverPair{}, ca, err
	}
	current, err := c.chooseServer(now)
	if err != nil {
		return serverPair{}, ca, err
	}
	lastsAsLong := pki.CheckTime(current.Leaf, now) == nil && !current.Leaf.NotAfter.Before(ca.Cert.NotAfter)
	if current.Leaf.CheckSignatureFrom(ca.Cert) != nil || lastsAsLong {
		return serverPair{}, ca, nil
	}
	return current, ca, nil
}

// loadServerIssuing loads the receiver's issuing CA. The error is an [fs.ErrNotExist] if there is none.
func loadServerIssuing(identity string) (pki.Authority, error) {
	if identity == "" {
		return pki.Authority{}, fs.ErrNotExist
	}
	f, err := pki.OpenDir(identity)
	if err != nil {
		return pki.Authority{}, err
	}
	defer f.Close()
	return f.LoadPairFile(pki.ServerIssuingFile)
}
