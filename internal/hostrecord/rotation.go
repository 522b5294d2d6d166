package hostrecord

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"cis490/internal/pki"
)

// RotationStatus is how far a rotation is, for a receiver's records of its hosts.
type RotationStatus struct {
	root string   // [pki.HashKey] of the new root of the server, in hex
	next []string // key ids of the new CAs of the hosts, in hex
}

// ReadRotation returns the rotation in progress, as an identity directory has it. It returns nil if
// there is none.
func ReadRotation(identity string) (*RotationStatus, error) {
	if identity == "" {
		return nil, nil
	}
	f, err := pki.OpenDir(identity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	next, err := f.ReadCAs(pki.NextCAsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	server, err := f.ReadCAs(pki.ServerCAFile)
	if err != nil {
		return nil, err
	}
	roots := pki.RootsOf(server)
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s has no root", f.Path(pki.ServerCAFile))
	}
	s := &RotationStatus{root: pki.HashKeys(roots[len(roots)-1:])[0]}
	for _, ca := range next {
		s.next = append(s.next, hex.EncodeToString(ca.SubjectKeyId))
	}
	return s, nil
}

// TrustsNewCA reports whether a host said that it recognizes the receiver by the new root.
func (s *RotationStatus) TrustsNewCA(r Record) bool { return slices.Contains(r.TrustedCAs, s.root) }

// HasNewCertificate reports whether a host said so with a certificate of the new CAs.
func (s *RotationStatus) HasNewCertificate(r Record) bool {
	return slices.Contains(s.next, r.IssuerKeyID)
}
