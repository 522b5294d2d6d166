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

// renewal looks for credentials that were renewed on the disk, and not reloaded.
type renewal struct {
	log     *slog.Logger
	cfg     shipper.Config
	papers  *pki.Client
	client  *wire.Client
	reloads *cli.Reloader
}

// renew is [shipper.Shipper.Renew].
func (r *renewal) renew(refusal error) (renewed bool, advice string) {
	own := r.papers.Check(r.cfg.HostID, time.Now())
	if own == nil && !hint.BlamesCredentials(refusal) {
		return false, ""
	}
	r.client.CloseIdle() // what shows the former ones
	changed, err := r.refresh()
	switch {
	case err != nil:
		return false, fmt.Sprintf("mend this, then 'systemctl reload cis490-shipper': what is on this host's disk now, perhaps a newer certificate, cannot be loaded: %v", err)
	case changed:
		return true, ""
	case own != nil:
		return false, "no other is on this host's disk: " + own.Error()
	}
	return false, hint.For(refusal) + "; no other certificate, CA or token is on this host's disk"
}

// refresh loads what is on the disk, and reports whether it is something else than before.
func (r *renewal) refresh() (changed bool, err error) {
	changed, err = r.papers.Refresh()
	if err != nil {
		return false, serviceuser.Explain(err, r.reloads.Check)
	}
	if changed {
		r.client.CloseIdle()
		r.reloads.Recovered()
		r.log.Info("loaded renewed certificates", "files", strings.Join(r.reloads.Files, " "), "not_after", r.papers.NotAfter().UTC().Format(time.RFC3339))
	}
	return changed, nil
}

// remind logs what a person must see to about our certificate, unless another one is on
// the disk.
func (r *renewal) remind() {
	if r.ends() {
		// What cannot be loaded is said by a reload, and by the receiver's refusal.
		_, _ = r.refresh()
	}
	if err := r.papers.Check(r.cfg.HostID, time.Now()); err != nil {
		r.log.Error("the receiver will refuse this host", "err", err)
		return
	}
	if r.ends() {
		left := time.Until(r.papers.NotAfter())
		r.log.Warn("the certificate ends soon: issue a new one with 'receiver pki issue'",
			"file", string(r.cfg.Receiver.CertFile), "days", int(left.Hours()/24))
	}
}

// ends reports whether the certificate is not good for long.
func (r *renewal) ends() bool {
	return time.Until(r.papers.NotAfter()) < expiresSoon || r.papers.Check(r.cfg.HostID, time.Now()) != nil
}
