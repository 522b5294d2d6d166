package receiver

import (
	"context"
	"slices"
	"time"

	"cis490/internal/access"
	"cis490/internal/episode"
	"cis490/internal/gate"
	"cis490/internal/pki"
	"cis490/internal/wire"
)

// minRenewalInterval is the minimum time between two certificates of a host for different keys. It
// bounds the records that a host can cause to about a hundred that are valid. A host asks after half
// the life of a certificate, so it can wait.
const minRenewalInterval = pki.DefaultLeafValid / 100

// certificateAuthority returns the handler of requests for certificates, or nil without an identity
// directory.
func (r *Receiver) certificateAuthority() wire.Authority {
	if r.join == nil {
		return nil
	}
	return r.join
}

// Renew returns the next certificate chain of a host. Of the request only the key counts: the name
// is that of the certificate that the host presents. That one must have come by joining or renewal: who
// issued one by hand also decided how long the host has access.
func (d *joinDoor) Renew(ctx context.Context, host episode.Name, csr []byte) ([]byte, error) {
	issuer := d.currentIssuer()
	if issuer == nil {
		return nil, wire.ErrNoAuthority
	}
	request, err := gate.ParseRequest(csr)
	if err != nil {
		return nil, wire.Refuse(wire.BadRequest, "%v", err)
	}
	if caller, ok := access.CallerOf(ctx); !ok || !issuer.HasSigned(caller) {
		return nil, wire.Refuse(wire.Forbidden, "only a certificate that came by joining is renewed")
	}
	d.renewing.Lock() // so that two requests of a host do not both find that it is time
	defer d.renewing.Unlock()
	if ctx.Err() != nil { // the host has not waited for a slow disk
		return nil, ctx.Err()
	}
	now := d.receiver.gate.Now()
	if chain := d.repeatAnswer(issuer, host, request, now); chain != nil {
		return chain, nil
	}
	if last := d.records.LastRenewed(host); last != nil && !issuer.WillEndSerial(last.Serial) {
		if wait := minRenewalInterval - now.Sub(last.NotBefore).Abs(); wait > 0 {
			return nil, &wire.Problem{Code: wire.Busy, Detail: "this host got a new certificate for another key a short time ago", RetryAfter: wait}
		}
	}
	if d.wouldBeEnded(host, now) {
		return nil, &wire.Problem{Code: wire.Busy, Detail: "a certificate that is signed now would be refused, because this host joined again while a clock was ahead", RetryAfter: time.Hour}
	}
	issued, err := issuer.SignHost(request, host, now)
	if err == nil {
		err = d.records.SetRenewed(issued, request.KeySHA256)
	}
	if err != nil {
		return nil, d.receiver.backend.HandleFault(err)
	}
	chain, err := issuer.Chain(issued.Serial)
	if err != nil {
		return nil, err
	}
	if err := d.checkSigned(chain); err != nil {
		return nil, err
	}
	if err := access.Recheck(ctx); err != nil {
		return nil, err // the host lost access meanwhile
	}
	d.receiver.log.Info("host certificate renewed", "host", host, "serial", issued.Serial, "not_after", issued.NotAfter.Format(time.RFC3339))
	return chain, nil
}

// wouldBeEnded reports whether the list of all receivers ends a certificate that is signed now. It does so
// until the time of an end that has come from a clock that was ahead. That time is not clipped to the
// present: it may be that of a certificate which a stolen machine has, and which becomes valid only then. So
// a host rather keeps the certificate that it has, which the list excepts, and asks again.
func (d *joinDoor) wouldBeEnded(host episode.Name, now time.Time) bool {
	notBefore := now.Add(-pki.Backdate).Truncate(time.Second)
	return d.receiver.access.Disabled().HasReplaced(host, "", notBefore)
}

// repeatAnswer returns the certificate that a host got a short time ago for the key of a request, and
// whose answer was lost. It returns nil if there is none that gives access.
func (d *joinDoor) repeatAnswer(issuer *gate.Issuer, host episode.Name, request gate.Request, now time.Time) []byte {
	last := d.records.LastRenewed(host)
	if last == nil || last.KeySHA256 != request.KeySHA256 || now.Sub(last.NotBefore).Abs() >= minRenewalInterval {
		return nil
	}
	if issuer.WillEndSerial(last.Serial) {
		return nil
	}
	chain, err := issuer.Chain(last.Serial)
	if err != nil || d.receiver.gate.CheckIssued(chain) != nil {
		return nil
	}
	return chain
}

// DescribeCAs returns the roots that a host should trust, and whether it should renew its certificate
// now. It records which of them the host trusts.
func (d *joinDoor) DescribeCAs(ctx context.Context, host episode.Name, trusted []string) *wire.CAs {
	issuer := d.currentIssuer()
	caller, ok := access.CallerOf(ctx)
	if issuer == nil || !ok {
		return nil
	}
	cas := &wire.CAs{Server: issuer.ServerCAHashes(), Renew: issuer.WillEnd(caller) && issuer.HasSigned(caller)}
	if trusted == nil {
		return cas
	}
	known := slices.DeleteFunc(slices.Clone(cas.Server), func(hash string) bool { return !slices.Contains(trusted, hash) })
	d.receiver.logRecordError(host, d.records.NoteTrustedCAs(host, caller.Certificate(), known, d.receiver.gate.Now()))
	return cas
}

// ServerCAs returns the roots that hosts should trust.
func (d *joinDoor) ServerCAs() []byte {
	issuer := d.currentIssuer()
	if issuer == nil {
		return nil
	}
	return issuer.ServerCAs()
}

// checkSigned returns an error if the receiver would refuse a certificate that it has just signed.
func (d *joinDoor) checkSigned(chain []byte) error {
	if err := d.receiver.gate.CheckIssued(chain); err != nil {
		return wire.Refuse(wire.Internal, "the receiver would refuse the certificate that it signs; its CAs and lists do not fit its issuing CA: %v", err)
	}
	return nil
}

// How often the receiver looks whether its own certificate must be renewed, and whether it is valid.
const (
	renewalInterval  = time.Hour
	validityInterval = time.Minute // after a clock was corrected, all hosts wait for it
)

// renewOwn renews the receiver's own certificate when it is time, until ctx ends.
func (r *Receiver) renewOwn(ctx context.Context) error {
	tick := time.NewTicker(validityInterval)
	defer tick.Stop()
	var last time.Time
	failed := ""
	for {
		if now := time.Now(); now.Sub(last) >= renewalInterval || !r.hasValidCertificate() {
			last = now
			failed = r.logRenewal(failed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Receiver) hasValidCertificate() bool {
	now, trust := r.gate.Now(), r.gate.Trust()
	return !now.Before(trust.NotBefore()) && !now.After(trust.NotAfter())
}

// logRenewal renews the certificate if it is time. It returns why that failed, which is logged unless
// it failed for the same reason before.
func (r *Receiver) logRenewal(before string) (failed string) {
	renewed, err := r.renewOwnOnce()
	if renewed {
		r.log.Info("certificate renewed", "not_after", r.CertNotAfter().UTC().Format(time.RFC3339))
	}
	if err == nil {
		return ""
	}
	if err.Error() != before {
		r.log.Warn("certificate not renewed", "err", err, "hint", "renew it with 'receiver pki renew', then reload")
	}
	return err.Error()
}

// renewOwnOnce renews the receiver's certificate if it is time, and uses the new one. It reports whether
// another certificate is in use than before.
func (r *Receiver) renewOwnOnce() (bool, error) {
	if _, err := r.cfg.TrustConfig().RenewOwn(r.gate.Now()); err != nil {
		return false, err // also a fault of the storage: no archive depends on this file
	}
	return r.gate.UseRenewed()
}
