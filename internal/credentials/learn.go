package credentials

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cis490/internal/pki"
)

// maxServerCAs bounds what a host accepts from a receiver.
const maxServerCAs = 16

// TrustedCAs returns the [pki.HashKey] of each root by which the host recognizes the receiver, in hex. A
// candidate returns none: what it trusts is not installed.
func (c *Client) TrustedCAs() []string {
	current := c.current.Load()
	if current.candidate {
		return nil
	}
	return pki.HashKeys(pki.RootsOf(current.cas))
}

// Announcement is what the response to a ping has about the CAs of the receiver.
type Announcement struct {
	ServerCAs []string // the [pki.HashKey] of each root that the host should trust, in hex
	Renew     bool     // the host should renew its certificate now
}

// NoteAnnouncement keeps the latest announcement, for [Client.Announced].
func (c *Client) NoteAnnouncement(a Announcement) {
	c.announced.Store(&a)
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// Announced returns the latest announcement.
func (c *Client) Announced() Announcement {
	if a := c.announced.Load(); a != nil {
		return *a
	}
	return Announcement{}
}

// News gets a value after an announcement, if someone receives it.
func (c *Client) News() <-chan struct{} { return c.news }

// MustLearnCAs reports whether the receiver announced other roots than the host trusts. A host whose
// files were installed by hand does not change them.
func (c *Client) MustLearnCAs() bool {
	current, a := c.current.Load(), c.announced.Load()
	if a == nil || len(a.ServerCAs) == 0 || !current.joined {
		return false
	}
	announced := slices.Sorted(slices.Values(a.ServerCAs))
	return !slices.Equal(announced, c.TrustedCAs())
}

// LearnedAt returns when the host last compared its roots with those of the receiver, or zero.
func (c *Client) LearnedAt() time.Time {
	info, err := os.Stat(filepath.Join(c.config.IdentityDir, pki.HostCAFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// NoteLearned records the time for [Client.LearnedAt], which is a hint.
func (c *Client) NoteLearned(now time.Time) {
	if c.current.Load().joined {
		_ = os.Chtimes(filepath.Join(c.config.IdentityDir, pki.HostCAFile), now, now)
	}
}

// CAUpdate replaces the roots by which a host recognizes its receiver. It holds the lock of the identity
// directory until it is closed.
type CAUpdate struct {
	client *Client
	lock   io.Closer
	roots  []*x509.Certificate
}

// OpenCAUpdate checks the roots that a receiver sent. It returns an error unless each of them is trusted
// already or linked to a trusted root by a certificate of that root: who controls a receiver, and not
// the key of its root, cannot make hosts trust another one.
func (c *Client) OpenCAUpdate(ctx context.Context, bundle []byte, now time.Time) (*CAUpdate, error) {
	lock, err := LockIdentity(ctx, c.config.IdentityDir)
	if err != nil {
		return nil, err
	}
	u := &CAUpdate{client: c, lock: lock}
	cas, _, err := pki.ReadPool(filepath.Join(c.config.IdentityDir, pki.HostCAFile)) // may be newer than what is in use
	if err == nil {
		u.roots, err = checkNewRoots(bundle, pki.RootsOf(cas), now)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return u, nil
}

// checkNewRoots returns the roots in a bundle if they follow from the trusted ones.
func checkNewRoots(bundle []byte, trusted []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	cas, err := pki.ParseCAs(bundle, "the receiver's answer")
	if err != nil {
		return nil, err
	}
	roots := pki.RootsOf(cas)
	if len(roots) == 0 || len(cas) > maxServerCAs {
		return nil, fmt.Errorf("the receiver's answer has %d roots and %d certificates, not 1 to %d", len(roots), len(cas), maxServerCAs)
	}
	links := pki.WithoutCAs(cas, roots)
	for _, root := range roots {
		if !pki.AllowsUse(root, x509.ExtKeyUsageServerAuth) {
			return nil, fmt.Errorf("the receiver's answer has the CA %s, which is not for receivers", pki.QuoteText(root.Subject.CommonName))
		}
		if slices.ContainsFunc(trusted, root.Equal) {
			continue
		}
		vouched := func(link *x509.Certificate) bool {
			return pki.IsLink(link, root, trusted) && pki.CheckTime(link, now) == nil
		}
		if !slices.ContainsFunc(links, vouched) {
			return nil, fmt.Errorf("the receiver's answer has the CA %s, for which no CA of receiver.ca_file vouches", pki.QuoteText(root.Subject.CommonName))
		}
	}
	return roots, nil
}

// Candidate returns a client that trusts the new roots alone, to test them.
func (u *CAUpdate) Candidate() *Client {
	candidate := *u.client.current.Load()
	candidate.cas, candidate.roots, candidate.candidate = u.roots, pki.PoolOf(u.roots), true
	c := &Client{config: u.client.config}
	c.current.Store(&candidate)
	return c
}

// Install makes the new roots the host's own. The receiver must have been recognized by them.
func (u *CAUpdate) Install() error {
	f, err := pki.OpenDir(u.client.config.IdentityDir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.WriteFile(pki.HostCAFile, pki.EncodeCerts(u.roots), 0o600)
}

// Close releases the lock.
func (u *CAUpdate) Close() error { return u.lock.Close() }
