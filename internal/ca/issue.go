package ca

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"time"

	"cis490/internal/episode"
	"cis490/internal/pki"
)

// IssueOptions are options of [IssueHost].
type IssueOptions struct {
	Valid time.Duration // zero means [pki.DefaultLeafValid]
	Force bool          // replace an existing key and certificate
	Now   time.Time     // zero means now
}

// IssueHost creates a key and a certificate for host, and writes out/ca.crt, out/HOST.crt and
// out/HOST.key. A host may have several valid certificates, so that the next one is in place before
// the old one expires.
//
// It first writes the copy in issued/, so that [revocation.RevokeHost] knows every certificate in use, then
// the key, then the certificate. Each file is written as a whole. If only the key was written,
// issue again with Force.
func IssueHost(dir string, host episode.Name, out string, o IssueOptions) (pki.Issued, error) {
	if err := CheckHost(host); err != nil {
		return pki.Issued{}, err
	}
	f, err := Open(dir)
	if err != nil {
		return pki.Issued{}, err
	}
	defer f.Close()
	if err := f.LockChanges(); err != nil {
		return pki.Issued{}, err
	}
	signer := f
	next, err := OpenNext(f)
	if err != nil {
		return pki.Issued{}, err
	}
	if next != nil { // a certificate of the former CA would end with the rotation
		defer next.Close()
		signer = next
	}
	ca, err := LoadAuthority(signer, HostsCA)
	if err != nil {
		return pki.Issued{}, err
	}
	target, err := pki.CreateDir(out)
	if err != nil {
		return pki.Issued{}, err
	}
	defer target.Close()
	root, err := f.Read(ServerCA + pki.CertSuffix)
	if err != nil {
		return pki.Issued{}, err
	}
	if err := checkTarget(target, host, root, o.Force); err != nil {
		return pki.Issued{}, err
	}
	cert, err := issueCertificate(signer, ca, host, target, o)
	if err != nil {
		return pki.Issued{}, err
	}
	return pki.Describe(cert, cmp.Or(o.Now, time.Now())), target.WriteCert(ServerCA+pki.CertSuffix, root)
}

// CheckHost returns an error if files of host would have the names of CA files.
func CheckHost(host episode.Name) error {
	switch host {
	case ServerCA, HostsCA, serverIssuing, HostsIssuing, Server:
		return fmt.Errorf("the host name %s is taken by files of the CA; choose another host_id", host)
	}
	return nil
}

// checkTarget returns an error if Issue would overwrite files of another CA, or an existing
// certificate without force.
func checkTarget(target *pki.Dir, host episode.Name, root []byte, force bool) error {
	if force {
		return nil
	}
	for _, name := range []string{string(host) + pki.KeySuffix, string(host) + pki.CertSuffix} {
		found, err := target.Exists(name)
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%s exists and is left as it is; use another --out directory, or --force to replace it",
				target.Path(name))
		}
	}
	found, err := target.Exists(ServerCA + pki.CertSuffix)
	if err != nil || !found {
		return err
	}
	old, err := target.Read(ServerCA + pki.CertSuffix)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, root) {
		return fmt.Errorf("%s is of another CA and is left as it is; use another --out directory, or --force to replace it",
			target.Path(ServerCA+pki.CertSuffix))
	}
	return nil
}

func issueCertificate(f *Dir, ca pki.Authority, host episode.Name, target *pki.Dir, o IssueOptions) (*x509.Certificate, error) {
	domain, err := pki.TrustDomainOf(ca.Cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(HostsCA+pki.CertSuffix), err)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.SignHost(host, domain, key.Public(), cmp.Or(o.Now, time.Now()), o.Valid)
	if err != nil {
		return nil, err
	}
	if err := pki.RecordCertificate(f.Path(pki.IssuedDir), cert); err != nil {
		return nil, err
	}
	if err := target.WriteKey(string(host)+pki.KeySuffix, key); err != nil {
		return nil, err
	}
	return cert, target.WriteCert(string(host)+pki.CertSuffix, ca.ChainOf(cert))
}
