package pki

import (
	"errors"
	"io/fs"
	"path/filepath"

	"cis490/internal/durable"
)

// Names in a receiver's identity directory, beside [IssuedDir].
const (
	HostsDir          = "hosts"              // a record of each host
	HostsIssuingFile  = "hosts-issuing.pem"  // key and certificate of the hosts' issuing CA
	ServerCAFile      = "server-ca.crt"      // the root that hosts trust
	ServerIssuingFile = "server-issuing.pem" // key and certificate of the receiver's issuing CA
	ServerFile        = "server.pem"         // key and chain of the receiver, as renewal wrote them
	// While a rotation is in progress, the CAs of the hosts that it will retire, and the new ones.
	RetiringCAsFile = "retiring-hosts-ca.crt"
	NextCAsFile     = "next-hosts-ca.crt"
)

// Names in a host's identity directory.
const (
	HostFile        = "host.pem"         // key and chain in one file, so that they always fit
	HostCAFile      = "host-ca.crt"      // the CAs of the receiver
	HostRequestFile = "host-request.pem" // the key that the last request to join was for
	HostRenewalFile = "host-renewal.pem" // the key that the request in flight for the next certificate is for
)

// ReplacesHeader is the header of the PEM block of a key that names the certificate which is renewed.
const ReplacesHeader = "Replaces"

// DefaultIdentityDir is where the services keep what joining wrote: keys, certificates and
// invitations. It is not on the disk of the data, and nothing else may be able to read it.
const DefaultIdentityDir = "/var/lib/cis490-identity"

// IdentityDir returns the identity directory for a configuration file, unless it names one: files
// outside /etc/cis490 have one of their own beside them, so that tests and users without root do
// not share the service's.
func IdentityDir(configFile string) string {
	if path, err := filepath.Abs(configFile); err == nil {
		configFile = path
	}
	dir := filepath.Dir(configFile)
	if dir == "/etc/cis490" {
		return DefaultIdentityDir
	}
	return filepath.Join(dir, "identity")
}

// ErrNoIssuing says that the receiver has no issuing CA, so that hosts cannot join.
var ErrNoIssuing = errors.New("there is no issuing CA")

// ErrNoIdentityDir says that the configuration names no identity directory.
var ErrNoIdentityDir = errors.New("identity_dir is empty: name a directory in the configuration, or remove that line")

// RecordsIn returns the directory of the certificates that the receiver signed, or "" without an
// identity directory.
func RecordsIn(identity string) string {
	if identity == "" {
		return ""
	}
	return filepath.Join(identity, IssuedDir)
}

// OpenIdentityDir opens an identity directory, and creates it for its user alone if it is missing.
func OpenIdentityDir(path string) (*Dir, error) {
	if path == "" { // it would be the working directory
		return nil, ErrNoIdentityDir
	}
	f, err := OpenDir(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	parent, err := openDurable(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	made, err := parent.MakeDirMode(filepath.Base(path), 0o700)
	if err != nil {
		return nil, err
	}
	return &Dir{Dir: made, Name: path}, nil
}

// CreateIdentityDir creates an identity directory for its user alone, unless it exists.
func CreateIdentityDir(path string) error {
	f, err := OpenIdentityDir(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// IdentityLayout lists the names in an identity directory, of hosts and of receivers. What else is
// there is of another package, which adds it as more.
func IdentityLayout(more ...durable.LayoutEntry) durable.Layout {
	layout := durable.Layout{
		{Match: durable.MatchNames(IssuedDir), Perm: 0o700, Dir: true, Below: durable.Layout{{Match: hasSuffix(CertSuffix), Perm: 0o600}}},
		{Match: durable.MatchNames(HostsDir), Perm: 0o700, Dir: true, Below: durable.Layout{{Match: hasSuffix(".json"), Perm: 0o600}}},
	}
	for _, name := range []string{HostsIssuingFile, ServerCAFile, ServerFile, ServerIssuingFile, RetiringCAsFile, NextCAsFile, HostFile, HostCAFile, HostRequestFile, HostRenewalFile} {
		layout = append(layout, durable.LayoutEntry{Match: durable.MatchNames(name, durable.TempName(name)), Perm: 0o600})
	}
	return append(layout, more...)
}

func hasSuffix(suffix string) func(string) bool {
	return func(name string) bool { return filepath.Ext(name) == suffix }
}
