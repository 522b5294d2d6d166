package pki

import (
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
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
	pair, err := loadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return serverPair{}, err
	}
	configured := serverPair{pair, c.CertFile, pair.Leaf}
	if c.IdentityDir == "" {
		return configured, nil
	}
	path := filepath.Join(c.IdentityDir, serverFile)
	pair, err = c.loadRenewed(path, configured.Leaf)
	if errors.Is(err, fs.ErrNotExist) {
		return configured, nil
	}
	if err != nil {
		return serverPair{}, err
	}
	if checkTime(pair.Leaf, now) != nil && checkTime(configured.Leaf, now) == nil {
		return configured, nil
	}
	return serverPair{pair, path, configured.Leaf}, nil
}

// loadRenewed loads the certificate that renewal wrote. The error is an [fs.ErrNotExist] if there is
// none in place of the configured one.
func (c Config) loadRenewed(path string, configured *x509.Certificate) (tls.Certificate, error) {
	data, err := readFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	block, _ := pem.Decode(data)
	if block != nil && block.Headers[replacesHeader] != hashOf(configured) {
		return tls.Certificate{}, fs.ErrNotExist
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return pair, fmt.Errorf("load %s: %w; remove the file to use %s", path, err, c.CertFile)
	}
	return pair, nil
}

func hashOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// RenewOwn replaces the receiver's certificate if half of its life is over or it is not valid now, and
// reports whether it did. [LoadTrust] uses the new one from then on. There is nothing to do if the
// issuing CA in the identity directory did not sign the certificate in use, which is someone else's to
// renew.
func (c Config) RenewOwn(now time.Time) (bool, error) {
	current, ca, err := c.ownRenewable(now)
	if err != nil || current.Leaf == nil || now.Before(ca.cert.NotBefore) { // such a clock is wrong
		return false, err
	}
	if checkTime(current.Leaf, now) == nil && now.Before(renewalTime(current.Leaf)) {
		return false, nil
	}
	key, err := generateKey()
	if err != nil {
		return false, err
	}
	cert, err := ca.signServer(key.Public(), namesOf(current.Leaf), now, 0)
	if err != nil {
		return false, err
	}
	text, err := encodeKey(key, map[string]string{replacesHeader: hashOf(current.configured)})
	if err != nil {
		return false, err
	}
	f, err := openPEMDir(c.IdentityDir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return true, f.WriteFile(serverFile, append(text, ca.chainOf(cert)...), 0o600)
}

// RenewsOwnAt returns when [Config.RenewOwn] replaces the certificate in use. It reports false if it
// does not.
func (c Config) RenewsOwnAt(now time.Time) (at time.Time, ok bool) {
	current, _, err := c.ownRenewable(now)
	if err != nil || current.Leaf == nil {
		return time.Time{}, false
	}
	return renewalTime(current.Leaf), true
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
func (c Config) ownRenewable(now time.Time) (serverPair, authority, error) {
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
	lastsAsLong := checkTime(current.Leaf, now) == nil && !current.Leaf.NotAfter.Before(ca.cert.NotAfter)
	if current.Leaf.CheckSignatureFrom(ca.cert) != nil || lastsAsLong {
		return serverPair{}, ca, nil
	}
	return current, ca, nil
}

// loadServerIssuing loads the receiver's issuing CA. The error is an [fs.ErrNotExist] if there is none.
func loadServerIssuing(identity string) (authority, error) {
	if identity == "" {
		return authority{}, fs.ErrNotExist
	}
	f, err := openPEMDir(identity)
	if err != nil {
		return authority{}, err
	}
	defer f.Close()
	return f.loadPairFile(serverIssuingFile)
}

// RenewOptions are options of [RenewServer].
type RenewOptions struct {
	Names     []string      // empty means those of the old certificate
	LeafValid time.Duration // zero means [DefaultLeafValid]
	Now       time.Time     // zero means now
}

// RenewServer replaces the receiver's certificate and returns when the new one expires. The key
// stays, so that only one file changes and power loss cannot leave a key with another certificate.
// During a rotation it also replaces the one that will be used after it.
func RenewServer(dir string, o RenewOptions) (time.Time, error) {
	f, err := openCA(dir)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	if err := f.lock(); err != nil {
		return time.Time{}, err
	}
	next, err := openNext(f)
	if err != nil {
		return time.Time{}, err
	}
	if next != nil {
		defer next.Close()
		if _, err := renewServerIn(next, o); err != nil {
			return time.Time{}, err
		}
	}
	return renewServerIn(f, o)
}

func renewServerIn(f *caDir, o RenewOptions) (time.Time, error) {
	old, err := loadAuthority(f, server)
	if err != nil {
		return time.Time{}, err
	}
	names := o.Names
	if len(names) == 0 {
		names = namesOf(old.cert)
	}
	ca, err := serverSigner(f, names)
	if err != nil {
		return time.Time{}, err
	}
	renewed, err := writeServer(f, ca, old.key.Public(), names, cmp.Or(o.Now, time.Now()), o.LeafValid)
	if err != nil {
		return time.Time{}, err
	}
	return renewed.NotAfter, nil
}

// writeServer signs and writes the receiver's certificate.
func writeServer(f *caDir, ca authority, key crypto.PublicKey, names []string, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	cert, err := ca.signServer(key, names, now, valid)
	if err != nil {
		return nil, err
	}
	return cert, f.writeCert(server+certSuffix, ca.chainOf(cert))
}

// signServer signs the certificate of a receiver.
func (a authority) signServer(key crypto.PublicKey, names []string, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	template, err := parseNames(names)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: server}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.signCertificate(template, key, now, cmp.Or(valid, DefaultLeafValid))
}

// namesOf returns the DNS names and addresses in a certificate.
func namesOf(cert *x509.Certificate) []string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}
