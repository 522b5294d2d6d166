package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"cis490/internal/access"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/gate"
	"cis490/internal/hostrecord"
	"cis490/internal/invite"
	"cis490/internal/wire"
)

// Limits of requests to join, of all machines together. Connections of one address are limited
// like all connections without an identity: see [admission.Conns].
const (
	maxJoins         = 4  // at once
	refusalsPerHour  = 60 // that are explained and logged
	maxRefusalsBurst = 30
)

// joinDoor lets hosts join: it turns invitations into certificates. It exists while the identity
// directory does.
type joinDoor struct {
	receiver *Receiver
	book     *invite.Book
	records  *hostrecord.Records
	holder   string // describes this process to others that wait for a lock
	slots    chan struct{}
	renewing sync.Mutex // held from the decision to renew a certificate until it is recorded
	limit    *rate.Limiter
}

// openJoin opens the identity directory. Without one, no host can join, and nothing is recorded.
func (r *Receiver) openJoin(holder string) error {
	path := string(r.cfg.IdentityDir)
	if path == "" {
		return nil
	}
	records, err := hostrecord.Open(path, r.log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.gate.UseRecords(records)
	r.join = &joinDoor{
		receiver: r, records: records, holder: holder,
		slots: make(chan struct{}, maxJoins),
		limit: rate.NewLimiter(rate.Every(time.Hour/refusalsPerHour), maxRefusalsBurst),
	}
	if r.join.currentIssuer() == nil {
		return nil
	}
	if r.join.book, err = invite.OpenBook(path, holder); err != nil {
		return err
	}
	r.gate.ServeJoin(gate.JoinDoor{
		Protocol: wire.JoinProtocol,
		IsOpen:   func() bool { return r.join.book.HasOpen(r.gate.Now()) },
	})
	return nil
}

// currentIssuer returns the issuer of host certificates as of the last reload, or nil if there is no
// issuing CA.
func (d *joinDoor) currentIssuer() *gate.Issuer { return d.receiver.gate.Trust().Issuer() }

func (d *joinDoor) close() error {
	if d == nil {
		return nil
	}
	err := d.records.Close()
	if d.book != nil {
		err = errors.Join(err, d.book.Close())
	}
	return err
}

// noteContact records a request of a host. A host is served also if that cannot be written, unless
// the storage cannot be trusted any more.
func (r *Receiver) noteContact(caller gate.Caller) {
	if r.join == nil {
		return
	}
	r.logRecordError(caller.Host, r.join.records.NoteContact(caller.Host, caller.Certificate(), r.gate.Now()))
}

// logRecordError logs why the record of a host was not written, unless err is nil.
func (r *Receiver) logRecordError(host episode.Name, err error) {
	if err == nil {
		return
	}
	r.log.Warn("host record not written", "host", host, "err", err)
	if errors.Is(err, durable.ErrFault) {
		_ = r.backend.HandleFault(err) // no request fails for it
	}
}

// serveConn is for http.Server.TLSNextProto: it answers the one request of a connection.
func (d *joinDoor) serveConn(_ *http.Server, conn *tls.Conn, _ http.Handler) {
	if !d.receiver.access.BeginHandler() {
		return
	}
	defer d.receiver.access.EndHandler()
	h := wire.JoinHandler{Issue: d.issue, Log: d.receiver.log}
	h.ServeConn(d.receiver.baseCtx, conn)
}

// refuse returns p, or that too many others were refused. Any machine can cause refusals while an
// invitation is open: they must neither fill the log nor keep out a host with a valid token.
func (d *joinDoor) refuse(p *wire.Problem) error {
	if d.limit.Allow() {
		return p
	}
	return &wire.Problem{Code: wire.Busy, Detail: "too many requests to join were refused; try again in a minute", RetryAfter: time.Minute}
}

// issue returns the certificate chain for a request, or refuses it.
func (d *joinDoor) issue(ctx context.Context, j wire.JoinRequest, remote string) ([]byte, error) {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		return nil, &wire.Problem{Code: wire.Busy, Detail: "too many hosts join at once", RetryAfter: 5 * time.Second}
	}
	request, err := gate.ParseRequest(j.CSR)
	if err != nil {
		return nil, d.refuse(wire.Refuse(wire.BadRequest, "%v", err))
	}
	now := d.receiver.gate.Now()
	used, err := d.book.Redeem(ctx, j.Invitation, j.Secret, request.KeySHA256, now, func(i invite.Invitation) (string, error) {
		return d.sign(ctx, request, i, now)
	})
	if refused, ok := errors.AsType[*invite.RefusedError](err); ok {
		return nil, d.refuse(wire.Refuse(wire.TokenRefused, "%v", refused))
	}
	if err != nil {
		return nil, d.receiver.backend.HandleFault(err)
	}
	if p := access.RefuseDisabled(d.receiver.access.Disabled(), used.Host); p != nil {
		return nil, p // it asks again for a certificate that it got before
	}
	issuer := d.currentIssuer()
	if issuer == nil {
		return nil, wire.ErrNoAuthority
	}
	chain, err := issuer.Chain(used.Use.Serial)
	if err != nil {
		return nil, err
	}
	if err := d.checkSigned(chain); err != nil {
		return nil, err
	}
	d.receiver.log.Info("host joined", "host", used.Host, "remote", remote, "serial", used.Use.Serial)
	return chain, nil
}

// sign signs the certificate of an invited host, and records it. A host that was removed is served
// again, with this certificate alone.
func (d *joinDoor) sign(ctx context.Context, request gate.Request, i invite.Invitation, now time.Time) (serial string, err error) {
	disabled := d.receiver.access.Disabled()
	removed := disabled.IsRemoved(i.Host)
	if p := access.RefuseDisabled(disabled, i.Host); p != nil && !(removed && i.Again) {
		return "", p
	}
	issuer := d.currentIssuer()
	if issuer == nil {
		return "", wire.ErrNoAuthority
	}
	issued, err := issuer.SignHost(request, i.Host, now)
	if err != nil {
		return "", err
	}
	// Other receivers learn only from the list that certificates have ended, so it is not left to the
	// first use of the new one.
	endsNow := removed || i.Again && d.receiver.shared != nil
	if err := d.records.SetJoined(issued, i.Again); err != nil || !endsNow {
		return issued.Serial, err
	}
	before, err := d.records.EndOthers(i.Host)
	if err != nil {
		return "", err
	}
	err = d.receiver.hostList(d.holder).Readmit(ctx, i.Host, issued.Serial, before)
	if err == nil && removed {
		d.receiver.shared.awaitOthers(ctx)
	}
	return issued.Serial, err
}
