package pki

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"time"

	"cis490/internal/episode"
)

// IssueOptions are options of [IssueHost].
type IssueOptions struct {
	Valid time.Duration // zero means [DefaultLeafValid]
	Force bool          // replace an existing key and certificate
	Now   time.Time     // zero means now
}

// IssueHost creates a key and a certificate for host, and writes out/ca.crt, out/HOST.crt and
// out/HOST.key. A host may have several valid certificates, so that the next one is in place before
// the old one expires.
//
// It first writes the copy in issued/, so that [RevokeHost] knows every certificate in use, then
// the key, then the certificate. Each file is written as a whole. If only the key was written,
// issue again with Force.
func IssueHost(dir string, host episode.Name, out string, o IssueOptions) (Issued, error) {
	if err := CheckHost(host); err != nil {
		return Issued{}, err
	}
	f, err := openCA(dir)
	if err != nil {
		return Issued{}, err
	}
	defer f.Close()
	if err := f.lock(); err != nil {
		return Issued{}, err
	}
	signer := f
	next, err := openNext(f)
	if err != nil {
		return Issued{}, err
	}
	if next != nil { // a certificate of the former CA would end with the rotation
		defer next.Close()
		signer = next
	}
	ca, err := loadAuthority(signer, hostsCA)
	if err != nil {
		return Issued{}, err
	}
	target, err := CreateDir(out)
	if err != nil {
		return Issued{}, err
	}
	defer target.Close()
	root, err := f.Read(serverCA + CertSuffix)
	if err != nil {
		return Issued{}, err
	}
	if err := checkTarget(target, host, root, o.Force); err != nil {
		return Issued{}, err
	}
	cert, err := issueCertificate(signer, ca, host, target, o)
	if err != nil {
		return Issued{}, err
	}
	return Describe(cert, cmp.Or(o.Now, time.Now())), target.WriteCert(serverCA+CertSuffix, root)
}

// CheckHost returns an error if files of host would have the names of CA files.
func CheckHost(host episode.Name) error {
	switch host {
	case serverCA, hostsCA, serverIssuing, hostsIssuing, server:
		return fmt.Errorf("the host name %s is taken by files of the CA; choose another host_id", host)
	}
	return nil
}

// checkTarget returns an error if Issue would overwrite files of another CA, or an existing
// certificate without force.
func checkTarget(target *Dir, host episode.Name, root []byte, force bool) error {
	if force {
		return nil
	}
	for _, name := range []string{string(host) + KeySuffix, string(host) + CertSuffix} {
		found, err := target.Exists(name)
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%s exists and is left as it is; use another --out directory, or --force to replace it",
				target.Path(name))
		}
	}
	found, err := target.Exists(serverCA + CertSuffix)
	if err != nil || !found {
		return err
	}
	old, err := target.Read(serverCA + CertSuffix)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, root) {
		return fmt.Errorf("%s is of another CA and is left as it is; use another --out directory, or --force to replace it",
			target.Path(serverCA+CertSuffix))
	}
	return nil
}

func issueCertificate(f *caDir, ca Authority, host episode.Name, target *Dir, o IssueOptions) (*x509.Certificate, error) {
	domain, err := TrustDomainOf(ca.Cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(hostsCA+CertSuffix), err)
	}
	key, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.SignHost(host, domain, key.Public(), cmp.Or(o.Now, time.Now()), o.Valid)
	if err != nil {
		return nil, err
	}
	if err := RecordCertificate(f.Path(IssuedDir), cert); err != nil {
		return nil, err
	}
	if err := target.WriteKey(string(host)+KeySuffix, key); err != nil {
		return nil, err
	}
	return cert, target.WriteCert(string(host)+CertSuffix, ca.ChainOf(cert))
}
