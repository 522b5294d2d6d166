package credentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"cis490/internal/episode"
	"cis490/internal/pki"
)

// RenewAt returns when the host should ask for its next certificate. It reports false if the
// certificate in use was not issued by joining: one that was installed by hand is not replaced.
func (c *Client) RenewAt() (at time.Time, ok bool) {
	current := c.current.Load()
	return pki.RenewalTime(current.certificate.Leaf), current.joined
}

// MustRenew reports whether the receiver announced that the host should renew its certificate now: a
// rotation will retire its CA.
func (c *Client) MustRenew() bool {
	current, a := c.current.Load(), c.announced.Load()
	return current.joined && a != nil && a.Renew
}

// RenewalTriedAt returns when the host last asked for the next certificate without getting it, or zero.
func (c *Client) RenewalTriedAt() time.Time {
	info, err := os.Stat(filepath.Join(c.config.IdentityDir, pki.HostRenewalFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Renewal is a host's request for the certificate after the one that it uses. It holds the lock of
// the identity directory until it is closed.
type Renewal struct {
	*Pending
	client   *Client
	lock     io.Closer
	replaces *x509.Certificate
}

// OpenRenewal returns the request for the next certificate. Its key is durable before it returns, and
// the same in each call until the certificate is installed: an answer that was lost is given again.
func (c *Client) OpenRenewal(ctx context.Context) (*Renewal, error) {
	lock, err := LockIdentity(ctx, c.config.IdentityDir)
	if err != nil {
		return nil, err
	}
	r := &Renewal{client: c, lock: lock}
	set, err := c.config.loadJoined() // the file may be newer than what is in use
	if err == nil {
		r.replaces = set.certificate.Leaf
		r.Pending, err = openPending(c.config.IdentityDir, pki.HostRenewalFile, pki.ReplacesHeader, pki.FormatSerial(r.replaces.SerialNumber))
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(r.dir, pki.HostRenewalFile), now, now) // for RenewalTriedAt, which is a hint
	return r, nil
}

// Close releases the lock.
func (r *Renewal) Close() error { return r.lock.Close() }

// Candidate returns a client that presents the certificate of a response, to test it. It returns an
// error unless the certificate is for the key of r and the host's name, valid now and for longer than
// the one that it replaces.
func (r *Renewal) Candidate(chain []byte, now time.Time) (*Client, error) {
	leaf, pair, err := r.makePair(r.hostName(), chain)
	if err != nil {
		return nil, err
	}
	if err := pki.CheckTime(leaf, now); err != nil {
		return nil, fmt.Errorf("the receiver's answer is not usable: %w; are the clocks of both machines right?", err)
	}
	if !leaf.NotAfter.After(r.replaces.NotAfter) && !r.client.MustRenew() {
		return nil, fmt.Errorf("the new certificate would expire on %s, not later than the present one: the receiver's CA expires then, or its clock is behind", pki.FormatDay(leaf.NotAfter))
	}
	certificate, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		return nil, fmt.Errorf("the receiver's answer is not usable: %w", err)
	}
	candidate := *r.client.current.Load()
	candidate.certificate, candidate.candidate = certificate, true
	c := &Client{config: r.client.config}
	c.current.Store(&candidate)
	return c, nil
}

func (r *Renewal) hostName() episode.Name {
	id, _ := pki.IDOf(r.replaces) // loadJoined has checked it
	return id.Host
}

// Install makes the certificate of a response the host's own, and returns it. The receiver must have
// accepted it: the former key is gone then.
func (r *Renewal) Install(chain []byte) (*x509.Certificate, error) {
	leaf, pair, err := r.makePair(r.hostName(), chain)
	if err != nil {
		return nil, err
	}
	f, err := pki.OpenDir(r.dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.WriteFile(pki.HostFile, pair, 0o600); err != nil {
		return nil, err
	}
	_ = f.Remove(pki.HostRenewalFile) // the next request replaces it
	return leaf, nil
}
