package main

import (
	"context"
	"log/slog"
	"time"

	"cis490/internal/hint"
)

// learnCAs makes the host trust the roots that the receiver announced, if its own say that these follow
// them. Failing costs nothing but a line in the log: the host continues with those that it has.
func (r *certificateRenewer) learnCAs(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, renewalTimeout)
	defer cancel()
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
	case ctx.Err() == nil && failureKind(err) != r.loggedCAs:
		r.loggedCAs = failureKind(err)
		r.log.LogAttrs(ctx, slog.LevelWarn, "CAs of the receiver not replaced", slog.Any("err", err), slog.String("hint", caAdvice(err)))
	}
}

// askForCAs pings the receiver for what it announces, about hourly: a single pass need not ping.
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
