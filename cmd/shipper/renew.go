package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"cis490/internal/cli"
	"cis490/internal/credentials"
	"cis490/internal/hint"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

const (
	renewalInterval = time.Hour       // between two attempts, on average
	renewalTimeout  = 2 * time.Minute // of one
)

// certificateRenewer renews the certificate of a host that has joined. One that was installed by hand
// is not renewed.
type certificateRenewer struct {
	log    *slog.Logger
	cfg    shipper.Config
	creds  *credentials.Client
	client *wire.Client
	once   bool // for a single pass, which does not know what others logged

	logged    map[string]bool        // the kinds of failures that the log has
	loggedCAs string                 // likewise, of the last failure to replace the CAs
	failure   atomic.Pointer[string] // of the last attempt; nil if it did not fail
}

// renewUntilDone renews the certificate when it is time, and follows the receiver's CAs, until ctx ends.
// What fails is repeated about hourly, even if each ping announces it again.
func (r *certificateRenewer) renewUntilDone(ctx context.Context) error {
	for {
		r.learnCAs(ctx)
		r.renewIfDue(ctx)
		news := r.creds.News()
		if r.creds.MustLearnCAs() || r.isDue() {
			news = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-time.After(renewalInterval/2 + rand.N(renewalInterval)):
		}
	}
}

// renewIfDue renews the certificate if it is time. Failing costs nothing but a line in the log: the
// present certificate is used as before, and the next attempt is an hour away. A fault of the storage
// ends nothing here: no episode depends on these files, and each attempt writes them again.
func (r *certificateRenewer) renewIfDue(ctx context.Context) {
	if !r.isDue() {
		return
	}
	tried := r.creds.RenewalTriedAt()
	if r.once && time.Since(tried).Abs() < renewalInterval {
		return
	}
	limited, cancel := context.WithTimeout(ctx, renewalTimeout)
	defer cancel()
	cert, err := r.replaceCertificate(limited)
	switch {
	case err == nil && cert != nil:
		r.log.Info("certificate renewed", "file", r.creds.CertFile(), "not_after", cert.NotAfter.UTC().Format(time.RFC3339))
		fallthrough
	case err == nil:
		r.logged = nil
		r.failure.Store(nil)
	case ctx.Err() == nil: // the program does not stop just now
		r.logFailure(ctx, err, tried)
	}
}

func (r *certificateRenewer) isDue() bool {
	at, renews := r.creds.RenewAt()
	return renews && (!time.Now().Before(at) || r.creds.MustRenew())
}

// replaceCertificate replaces the certificate by one that the receiver has accepted. If it is interrupted,
// the next call asks with the same key, and gets the same certificate. It returns nil if a newer
// certificate was on the disk, which is used instead.
func (r *certificateRenewer) replaceCertificate(ctx context.Context) (*x509.Certificate, error) {
	changed, err := r.creds.ReloadIfChanged()
	if err != nil {
		return nil, err
	}
	if changed {
		r.client.CloseIdle()
	}
	if changed && r.creds.MustRenew() { // the receiver asked for that with the certificate before
		if _, err := r.client.Ping(ctx); err != nil {
			return nil, err
		}
	}
	if !r.isDue() {
		return nil, nil
	}
	renewal, err := r.creds.OpenRenewal(ctx)
	if err != nil {
		return nil, err
	}
	defer renewal.Close()
	chain, err := r.client.Renew(ctx, renewal.Request)
	if err != nil {
		return nil, err
	}
	candidate, err := renewal.Candidate(chain, time.Now())
	if err != nil {
		return nil, err
	}
	if err := r.testCandidate(ctx, candidate); err != nil {
		return nil, err
	}
	cert, err := renewal.Install(chain)
	if err != nil {
		return nil, err
	}
	if err := r.creds.Reload(); err != nil {
		return nil, err
	}
	r.creds.NoteAnnouncement(candidate.Announced())
	r.client.CloseIdle() // uploads in flight keep their connections
	if _, err := r.client.Ping(ctx); err != nil {
		r.log.Debug("new certificate not reported", "err", err) // the next ping does
	}
	return cert, nil
}

// testCandidate has the receiver accept a certificate before the former one is given up.
func (r *certificateRenewer) testCandidate(ctx context.Context, candidate *credentials.Client) error {
	client, err := newClientOf(r.cfg, candidate)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	_, err = client.Ping(ctx)
	return err
}

// logFailure logs why the certificate was not renewed, once for each kind of reason. Single passes log
// it once a day, and only if the certificate expires soon.
func (r *certificateRenewer) logFailure(ctx context.Context, err error, tried time.Time) {
	text, kind := err.Error(), failureKind(err)
	r.failure.Store(&text)
	level := slog.LevelWarn
	soon := time.Until(r.creds.NotAfter()) < cli.FirstExpiryWarning
	if r.logged[kind] || r.once && (!soon || isToday(tried)) {
		level = slog.LevelDebug
	}
	if r.logged == nil {
		r.logged = make(map[string]bool)
	}
	r.logged[kind] = true
	r.log.Log(ctx, level, "certificate not renewed",
		hint.Attrs(renewalAdvice(err), "err", err, "not_after", r.creds.NotAfter().UTC().Format(time.RFC3339))...)
}

// isToday reports whether a time is of the present day, in UTC.
func isToday(t time.Time) bool {
	return time.Now().UTC().Format(time.DateOnly) == t.UTC().Format(time.DateOnly)
}

// failureKind returns what failures of one kind have in common: the code of a refusal, the network, or
// the error of a call for a file.
func failureKind(err error) string {
	if code, ok := errors.AsType[wire.Code](err); ok {
		return string(code)
	}
	var op *net.OpError
	var dns *net.DNSError
	var handshake *credentials.HandshakeError
	if errors.As(err, &op) || errors.As(err, &dns) || errors.As(err, &handshake) || errors.Is(err, context.DeadlineExceeded) {
		return "network"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return "other"
}

// renewalAdvice returns what to do about a failure, or "".
func renewalAdvice(err error) string {
	switch {
	case errors.Is(err, wire.NotFound):
		return "upgrade the receiver, or run 'receiver setup' there so that it can sign; until then, join again before the certificate expires"
	case errors.Is(err, wire.Busy):
		return "" // it says for how long
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return "the shipper's user must be able to write identity_dir, and its unit must list it in ReadWritePaths="
	}
	return hint.For(err)
}
