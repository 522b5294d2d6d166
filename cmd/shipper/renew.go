package main

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"cis490/internal/cli"
	"cis490/internal/hint"
	"cis490/internal/pki"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// credentialRenewal loads credentials that were renewed on disk and not reloaded.
type credentialRenewal struct {
	log     *slog.Logger
	cfg     shipper.Config
	creds   *pki.Client
	client  *wire.Client
	reloads *cli.Reloader
}

// renewAfterRefusal is [shipper.Shipper.Renew].
func (r *credentialRenewal) renewAfterRefusal(refusal error) (renewed bool, advice string) {
	own := r.creds.CheckValidity(r.cfg.HostID, time.Now())
	if own == nil && !hint.BlamesCredentials(refusal) {
		return false, ""
	}
	r.client.CloseIdle() // these connections use the old credentials
	changed, err := r.reloadCredentials()
	switch {
	case err != nil:
		return false, fmt.Sprintf("fix this, then 'systemctl reload cis490-shipper': the credentials on this host's disk, perhaps newer, cannot be loaded: %v", err)
	case changed:
		return true, ""
	case own != nil:
		return false, "this host's disk has no other certificate: " + own.Error()
	}
	return false, hint.For(refusal) + "; this host's disk has no other certificate, CA or token"
}

// reloadCredentials loads the credentials on disk, and reports whether they changed.
func (r *credentialRenewal) reloadCredentials() (changed bool, err error) {
	changed, err = r.creds.ReloadIfChanged()
	if err != nil {
		return false, serviceuser.Explain(err, r.reloads.Check)
	}
	if changed {
		r.client.CloseIdle()
		r.reloads.ClearFailure()
		r.log.Info("loaded renewed certificates", "files", strings.Join(r.reloads.Files, " "), "not_after", r.creds.NotAfter().UTC().Format(time.RFC3339))
	}
	return changed, nil
}

// warnExpiry logs that the certificate expires or is refused, unless a newer one is on disk.
func (r *credentialRenewal) warnExpiry() {
	if r.expiresSoon() {
		// A reload and the receiver's refusal report what cannot be loaded.
		_, _ = r.reloadCredentials()
	}
	if err := r.creds.CheckValidity(r.cfg.HostID, time.Now()); err != nil {
		r.log.Error("the receiver will refuse this host", "err", err)
		return
	}
	if r.expiresSoon() {
		left := time.Until(r.creds.NotAfter())
		r.log.Warn("certificate expires soon", "file", string(r.cfg.Receiver.CertFile), "days", int(left.Hours()/24),
			"hint", "issue a new one with 'receiver pki issue'")
	}
}

// expiresSoon reports whether the certificate expires soon or is not valid now.
func (r *credentialRenewal) expiresSoon() bool {
	return time.Until(r.creds.NotAfter()) < expiresSoon || r.creds.CheckValidity(r.cfg.HostID, time.Now()) != nil
}
