package ca

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/pki"
)

// InstallIssuing copies the issuing CAs and the root that hosts trust from a directory that [Init]
// created to a receiver's identity directory. It reports whether it changed anything. It never replaces
// another issuing CA: hosts have certificates of it.
func InstallIssuing(dir, identity string) (changed bool, err error) {
	return installIssuing(dir, identity, identityFile.writeNew)
}

// ReplaceIssuing is [InstallIssuing] after a step of a rotation: it replaces the CAs. It reports whether
// it changed anything.
func ReplaceIssuing(dir, identity string) (changed bool, err error) {
	return installIssuing(dir, identity, identityFile.replace)
}

func installIssuing(dir, identity string, write func(identityFile, *pki.Dir) (bool, error)) (changed bool, err error) {
	f, err := Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	files, err := identityFiles(f)
	if err != nil {
		return false, err
	}
	to, err := pki.OpenDir(identity)
	if err != nil {
		return false, err
	}
	defer to.Close()
	for _, file := range files {
		wrote, err := write(file, to)
		if err != nil {
			return false, err
		}
		changed = changed || wrote
	}
	found, err := to.Exists(pki.HostsIssuingFile)
	if err == nil && !found {
		err = fmt.Errorf("%w in %s", pki.ErrNoIssuing, dir)
	}
	return changed, err
}

// IsInstalled reports whether an identity directory has what [ReplaceIssuing] would write there.
func IsInstalled(f *Dir, identity string) (bool, error) {
	files, err := identityFiles(f)
	if err != nil {
		return false, err
	}
	to, err := pki.OpenDir(identity)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer to.Close()
	for _, file := range files {
		if same, err := file.isIn(to); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// identityFile is a file of a receiver's identity directory.
type identityFile struct {
	name string
	data []byte // nil if there should be no such file
	perm fs.FileMode
	// cert is the certificate of an issuing CA. If its key is not at hand, a file that has both stays.
	cert *x509.Certificate
}

// Modes of files that root writes: a new one that everybody may read belongs to the owner of the
// directory at once, and a receiver that starts after an interruption can read it.
const (
	secretPerm fs.FileMode = 0o600
	publicPerm fs.FileMode = 0o644
)

// identityFiles returns what an identity directory has of the CAs in f, in the order in which it is
// written. During a rotation, new certificates of hosts are those of the new CAs, and the receiver's own
// is that of the former until the rotation is finished.
func identityFiles(f *Dir) ([]identityFile, error) {
	next, err := OpenNext(f)
	if err != nil {
		return nil, err
	}
	root, err := f.Read(ServerCA + pki.CertSuffix)
	if err != nil {
		return nil, err
	}
	own, err := issuingOf(f, serverIssuing, ServerCA, pki.ServerIssuingFile)
	if err != nil {
		return nil, err
	}
	if next == nil {
		hosts, err := issuingOf(f, HostsIssuing, HostsCA, pki.HostsIssuingFile)
		return []identityFile{{name: pki.ServerCAFile, data: root, perm: secretPerm}, own, hosts, {name: pki.RetiringCAsFile}, {name: pki.NextCAsFile}}, err
	}
	defer next.Close()
	link, err := next.Read(LinkFile)
	if err != nil {
		return nil, err
	}
	former, err := FormerCAs(f, next)
	if err != nil {
		return nil, err
	}
	cas, err := next.Read(HostsCA + pki.CertSuffix)
	if err != nil {
		return nil, err
	}
	hosts, err := issuingOf(next, HostsIssuing, HostsCA, pki.HostsIssuingFile)
	return []identityFile{
		{name: pki.ServerCAFile, data: append(root, link...), perm: secretPerm},
		{name: pki.RetiringCAsFile, data: former, perm: publicPerm},
		{name: pki.NextCAsFile, data: cas, perm: publicPerm},
		own, hosts,
	}, err
}

// issuingOf returns the file for an issuing CA of a directory. If the CA was moved offline, the file
// stays: the bundle of the directory says which one it is.
func issuingOf(f *Dir, stem, bundle, name string) (identityFile, error) {
	file := identityFile{name: name, perm: secretPerm}
	cas, err := f.ReadCAs(bundle + pki.CertSuffix)
	if err != nil {
		return file, err
	}
	for _, ca := range cas {
		if !pki.IsRoot(ca) && ca.CheckSignatureFrom(cas[0]) == nil {
			file.cert = ca
		}
	}
	file.data, err = encodeIssuing(f, stem)
	return file, err
}

// encodeIssuing returns an issuing CA in a directory, or nil if its key is not there: it is then
// elsewhere, or was never made.
func encodeIssuing(f *Dir, name string) ([]byte, error) {
	found, err := f.Exists(name + pki.KeySuffix)
	if err != nil || !found {
		return nil, err
	}
	issuing, err := LoadAuthority(f, name)
	if err != nil {
		return nil, err
	}
	return issuing.EncodePair()
}

// isIn reports whether a directory has the file as it should be.
func (file identityFile) isIn(f *pki.Dir) (bool, error) {
	old, err := f.Read(file.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return file.data == nil, nil
	case err != nil:
		return false, err
	case file.data == nil && file.cert != nil:
		pair, err := f.LoadPairFile(file.name)
		return err == nil && pair.Cert.Equal(file.cert), nil
	}
	return file.data != nil && bytes.Equal(old, file.data), nil
}

// writeNew writes the file unless there is one, which must then be the same.
func (file identityFile) writeNew(f *pki.Dir) (wrote bool, err error) {
	same, err := file.isIn(f)
	if err != nil || same || file.data == nil {
		return false, err
	}
	if found, err := f.Exists(file.name); err != nil || found {
		return false, errors.Join(err, fmt.Errorf("%s is of another CA and is left as it is", f.Path(file.name)))
	}
	return true, f.WriteFile(file.name, file.data, file.perm)
}

// replace writes the file, or removes it if there should be none.
func (file identityFile) replace(f *pki.Dir) (wrote bool, err error) {
	same, err := file.isIn(f)
	if err != nil || same {
		return false, err
	}
	if file.data == nil {
		return true, f.Remove(file.name)
	}
	return true, f.WriteFile(file.name, file.data, file.perm)
}
