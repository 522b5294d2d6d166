package pki

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// RotationStatus is how far a rotation is, for a receiver's records of its hosts.
type RotationStatus struct {
	root string   // [HashKey] of the new root of the server, in hex
	next []string // key ids of the new CAs of the hosts, in hex
}

// ReadRotation returns the rotation in progress, as an identity directory has it. It returns nil if
// there is none.
func ReadRotation(identity string) (*RotationStatus, error) {
	if identity == "" {
		return nil, nil
	}
	f, err := OpenDir(identity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	next, err := f.ReadCAs(NextCAsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	server, err := f.ReadCAs(ServerCAFile)
	if err != nil {
		return nil, err
	}
	roots := RootsOf(server)
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s has no root", f.Path(ServerCAFile))
	}
	s := &RotationStatus{root: HashKeys(roots[len(roots)-1:])[0]}
	for _, ca := range next {
		s.next = append(s.next, hex.EncodeToString(ca.SubjectKeyId))
	}
	return s, nil
}

// TrustsNewCA reports whether a host said that it recognizes the receiver by the new root.
func (s *RotationStatus) TrustsNewCA(r HostRecord) bool { return slices.Contains(r.TrustedCAs, s.root) }

// HasNewCertificate reports whether a host said so with a certificate of the new CAs.
func (s *RotationStatus) HasNewCertificate(r HostRecord) bool {
	return slices.Contains(s.next, r.IssuerKeyID)
}
