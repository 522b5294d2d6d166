package main

import (
	"context"
	"log/slog"
	"time"

	"cis490/internal/hint"
)

// learnCAs makes the host trust the roots that the receiver announced, if one of its own vouches for them.
// Failing costs nothing but a line in the log, for single passes once a day: the host continues with the
// roots that it has.
func (r *certificateRenewer) learnCAs(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, renewalTimeout)
	defer cancel()
	asked := r.creds.LearnedAt()
	if r.once {
		r.askForCAs(limited)
	}
	if !r.creds.MustLearnCAs() {
		return
	}
	err := r.replaceCAs(limited)
	switch {
	case err == nil:
		r.log.Info("CAs of the receiver replaced", "trusted", len(r.creds.TrustedCAs()))
		r.loggedCAs = ""
	case ctx.Err() == nil: // the program does not stop just now
		level, kind := slog.LevelWarn, failureKind(err)
		if kind == r.loggedCAs || r.once && isToday(asked) {
			level = slog.LevelDebug
		}
		r.loggedCAs = kind
		r.log.Log(ctx, level, "CAs of the receiver not replaced", hint.Attrs(caAdvice(err), "err", err)...)
	}
}

// askForCAs pings the receiver about hourly, because a single pass need not ping otherwise.
func (r *certificateRenewer) askForCAs(ctx context.Context) {
	if _, joined := r.creds.RenewAt(); !joined || time.Since(r.creds.LearnedAt()).Abs() < renewalInterval {
		return
	}
	if _, err := r.client.Ping(ctx); err == nil {
		r.creds.NoteLearned(time.Now())
	}
}

// replaceCAs gets the receiver's roots, tests that it is recognized by them, and installs them.
func (r *certificateRenewer) replaceCAs(ctx context.Context) error {
	bundle, err := r.client.ServerCAs(ctx)
	if err != nil {
		return err
	}
	update, err := r.creds.OpenCAUpdate(ctx, bundle, time.Now())
	if err != nil {
		return err
	}
	defer update.Close()
	if err := r.testCandidate(ctx, update.Candidate()); err != nil {
		return err
	}
	if err := update.Install(); err != nil {
		return err
	}
	if err := r.creds.Reload(); err != nil {
		return err
	}
	r.client.CloseIdle()
	if _, err := r.client.Ping(ctx); err != nil {
		r.log.Debug("new CAs not reported", "err", err) // the next ping does
	}
	return nil
}

func caAdvice(err error) string {
	if advice := hint.For(err); advice != "" {
		return advice
	}
	return "when the receiver finishes the rotation of its CAs, this host must join again"
}
