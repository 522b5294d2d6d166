package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"cis490/internal/config"
	"cis490/internal/hint"
	"cis490/internal/outbox"
	"cis490/internal/retry"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Waits of the link between pings after the receiver failed.
const (
	minProbeInterval = 5 * time.Second
	maxProbeInterval = 2 * time.Minute
	// reminderInterval is how often the log repeats that the receiver is unavailable.
	reminderInterval = 6 * time.Hour
)

// onceBusyTimeout is [uplink.BusyTimeout] of a single pass, for which others wait.
const onceBusyTimeout = 15 * time.Second

// linkState says whether uploads are sent.
type linkState int

// The states.
const (
	linkUp      linkState = iota // uploads are sent
	linkSuspect                  // an upload failed, and no ping has shown why; nothing is sent
	linkDown                     // a ping failed too, or none is sent; nothing is sent
)

// receiverLink is what the shipper knows of the receiver and the path to it. While it is not up,
// only pings and reports are sent, with backoff, however many episodes wait. While it is up, pings keep
// the status current. It belongs to [dispatcher].
type receiverLink struct {
	log   *slog.Logger
	state linkState

	// Of the ping that was sent and not answered.
	pinging bool
	stale   bool // an upload has failed since it was sent
	woken   bool // it answers a [Shipper.RequestPing]

	pingNow     bool      // a ping was requested
	nextPing    time.Time // when to send the next one
	failedPings int       // in a row
	heardAt     time.Time // when the receiver last accepted something

	downSince time.Time // of a link that is not up, as are the fields below
	loggedAt  time.Time // when the log last said so
	err       error
	hint      string // what to do about err
}

// LinkStatus is what a running shipper knows about the receiver.
type LinkStatus struct {
	Up         bool      // uploads are sent
	AnsweredAt time.Time // when the receiver last accepted something; zero if it has not
	Err        error     // why it is not up
}

// LinkStatus returns what the shipper now knows about the receiver.
func (s *Shipper) LinkStatus() LinkStatus {
	if l := s.link.Load(); l != nil {
		return *l
	}
	return LinkStatus{}
}

// publishLink publishes the state of the link to other goroutines.
func (d *dispatcher) publishLink() {
	l := LinkStatus{Up: d.link.state == linkUp, AnsweredAt: d.link.heardAt, Err: d.link.err}
	if known := d.Shipper.link.Load(); known == nil || *known != l {
		d.Shipper.link.Store(&l)
	}
}

// Ready returns why no episode can be sent now, or nil.
func (s *Shipper) Ready(context.Context) error {
	switch l := s.LinkStatus(); {
	case l.Err != nil:
		return fmt.Errorf("the receiver accepts nothing: %s", outbox.PrintableCause(l.Err.Error()))
	case l.AnsweredAt.IsZero():
		return errors.New("the receiver has not answered yet")
	}
	return nil
}

// String describes the link for the service manager.
func (l receiverLink) String() string {
	switch {
	case l.state != linkUp:
		return fmt.Sprintf("receiver has not accepted uploads since %s: %s", l.downSince.Format(statusTime), outbox.PrintableCause(l.err.Error()))
	case l.heardAt.IsZero():
		return "asking the receiver"
	}
	return "receiver answers, last at " + l.heardAt.Format(statusTime)
}

// noteResponse records that the receiver accepted something. The next ping follows after [PingInterval],
// unless the link is not up or a ping was requested.
func (l *receiverLink) noteResponse(now time.Time) {
	l.heardAt = now
	if l.state == linkUp && !l.pingNow {
		l.nextPing = now.Add(PingInterval + rand.N(PingInterval/2))
	}
}

// requestPing has a ping sent at once. The ping in flight may not reflect what has changed.
func (l *receiverLink) requestPing(now time.Time) { l.pingNow, l.nextPing = true, now }

// notePing records that a ping is sent.
func (l *receiverLink) notePing() { l.pinging, l.woken, l.pingNow = true, l.woken || l.pingNow, false }

// markSuspect stops sending after an upload failed because of this host or the path. A ping
// follows at once, or when the receiver allows it. A single pass does not wait, and sends no
// ping to a receiver that was busy all the time.
func (l *receiverLink) markSuspect(err error, once bool, now time.Time) {
	if l.state != linkUp {
		return // another upload that was in flight
	}
	*l = receiverLink{
		log: l.log, state: linkSuspect, pinging: l.pinging, stale: l.pinging, pingNow: l.pingNow, woken: l.woken,
		heardAt: l.heardAt, nextPing: now, downSince: now, err: err,
	}
	// A lack of space may concern only one large archive: the ping shows.
	if !once && !errors.Is(err, wire.Full) {
		l.nextPing = now.Add(uplink.RetryAfter(err))
	}
	if once && uplink.IsBusy(err) {
		l.state = linkDown
	}
	l.log.Debug("sending paused", "err", err)
}

// handlePing handles the result of a ping. A ping that was sent before an upload failed does
// not make up for that.
func (l *receiverLink) handlePing(p pingResult, now time.Time) {
	stale := l.stale && !p.unsolicited
	if !p.unsolicited {
		l.pinging, l.stale = false, false
	}
	err := p.err
	if err == nil {
		err = p.response.Storage.Err()
	}
	if err == nil {
		if !stale {
			l.markUp(now)
		}
		return
	}
	l.markDown(err, p.hint, now)
}

func (l *receiverLink) markUp(now time.Time) {
	if l.state == linkDown {
		l.log.Info("receiver is back", "after", now.Sub(l.downSince).Round(time.Second))
	}
	*l = receiverLink{log: l.log, pingNow: l.pingNow, nextPing: l.nextPing, heardAt: now}
	l.noteResponse(now)
}

func (l *receiverLink) markDown(err error, advice string, now time.Time) {
	l.woken = false
	if l.state == linkUp {
		l.downSince = now
	}
	l.state = linkDown
	isNews := uplink.IsOtherStore(err) && !uplink.IsOtherStore(l.err)
	l.err, l.hint = err, cmp.Or(advice, hint.For(err))
	l.failedPings++
	l.nextPing = now
	if !l.pingNow {
		l.nextPing = now.Add(max(minProbeInterval, retry.Backoff(minProbeInterval, maxProbeInterval, l.failedPings), uplink.RetryAfter(err)))
	}
	switch {
	case l.failedPings == 1 || isNews:
		l.loggedAt = now
		l.log.Log(context.Background(), failureLevel(err), "receiver unavailable, sending paused",
			hint.Attrs(l.hint, "err", err)...)
	case now.Sub(l.loggedAt) >= reminderInterval:
		l.loggedAt = now
		l.log.Log(context.Background(), failureLevel(err), "receiver still unavailable",
			hint.Attrs(l.hint, "since", l.downSince.UTC().Format(time.DateTime), "attempt", l.failedPings, "err", err)...)
	}
}

// failureLevel returns Error for what an operator must fix, and Warn for what is retried.
func failureLevel(err error) slog.Level {
	for _, code := range []wire.Code{wire.TokenRefused, wire.Forbidden, wire.HostMismatch} {
		if errors.Is(err, code) {
			return slog.LevelError
		}
	}
	if _, ok := errors.AsType[*wire.UnexpectedResponseError](err); ok || uplink.IsOtherStore(err) {
		return slog.LevelError
	}
	return slog.LevelWarn
}

// PingInterval is the minimum time between the last response of the receiver and the next ping. It is not
// shorter than the default interval of reports, which put pings off.
const PingInterval = 5 * time.Minute

// fullPingInterval is the average of that time while an archive waits for space at the receiver.
const fullPingInterval = time.Minute

// addJitter returns a random duration from d/2 to 3d/2, so that hosts do not ping together.
func addJitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// pingTimeout bounds one ping.
const pingTimeout = 30 * time.Second

// pingResult is the result of a ping, of a report, or of another request that found another store.
type pingResult struct {
	response       wire.PingResponse
	err            error
	hint           string // what to do about err, if it is more specific than [wire.Hint]
	newCredentials bool   // other than those of the uploads before
	unsolicited    bool   // it is not of pingLoop
}

// RequestPing pings the receiver at once. If it answers, what failed because of the receiver or the
// path is retried at once. RequestPing may be called at any time.
func (s *Shipper) RequestPing() {
	signal(s.wakec)
}

func (d *dispatcher) pingLoop(ctx context.Context) error {
	for range d.pingc {
		if !sendOrDone(ctx, d.pingResults, d.pingAndReload(ctx)) {
			return nil
		}
	}
	return nil
}

// pingAndReload pings the receiver. If that fails and the host's credentials were renewed on
// the disk, it pings once more with those.
func (d *dispatcher) pingAndReload(ctx context.Context) pingResult {
	p := d.pingOnce(ctx)
	if p.err == nil || d.ReloadCredentials == nil || ctx.Err() != nil {
		return p
	}
	changed, advice := d.ReloadCredentials(p.err)
	if changed {
		p = d.pingOnce(ctx)
		if p.err != nil && ctx.Err() == nil {
			_, advice = d.ReloadCredentials(p.err)
		}
	}
	p.newCredentials, p.hint = changed, advice
	return p
}

func (d *dispatcher) pingOnce(ctx context.Context) pingResult {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	response, err := d.store.Ping(ctx, d.client)
	return pingResult{response: response, err: err}
}

// SendReport sends a report. A ping is put off by the response, and follows a failure at once.
func (s *Shipper) SendReport(ctx context.Context, r wire.Report) error {
	limited, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	response, err := s.store.Report(limited, s.client, r)
	if err == nil && response == nil {
		return nil // an older receiver's tells nothing
	}
	p := pingResult{err: err, unsolicited: true}
	if response != nil {
		p.response = *response
	}
	sendOrDone(ctx, s.reports, p)
	return err
}

// handleReport handles the result of a report. It ends no outage: the report may have been sent before
// the upload that failed.
func (d *dispatcher) handleReport(p pingResult, now time.Time) {
	switch {
	case d.link.state != linkUp:
	case uplink.IsOtherStore(p.err), p.err == nil && p.response.Storage.Err() != nil:
		d.handlePing(p)
	case p.err != nil: // a ping shows whether only reports fail
		if at := now.Add(uplink.RetryAfter(p.err)); at.Before(d.link.nextPing) {
			d.link.nextPing = at
		}
	default:
		d.link.noteResponse(now)
		d.reporting.changed = true
		d.noteReceiverSpace(p.response.Storage.FreeBytes, now)
		d.notifyStatus()
	}
}

// mayPing reports whether a ping may be sent. A single pass sends one, after an upload
// failed. Uploads in flight show by themselves whether the receiver answers.
func (d *dispatcher) mayPing() bool {
	switch {
	case d.link.pinging:
		return false
	case d.once:
		return d.link.state == linkSuspect
	}
	return d.link.state != linkUp || d.link.pingNow || d.activeSends == 0
}

// handlePing handles the result of a ping.
func (d *dispatcher) handlePing(p pingResult) {
	now := time.Now()
	if uplink.IsOtherStore(p.err) {
		d.link.markSuspect(p.err, d.once, now)
	}
	before := d.link
	d.link.handlePing(p, now)
	d.reporting.changed = true
	switch {
	case d.link.state != linkUp:
		d.dropQueues(&d.toSend.small, &d.toSend.large)
	case d.once:
	case before.state != linkUp: // the outbox was not scanned meanwhile
		d.restartScan()
		fallthrough
	default:
		if before.state == linkDown || before.woken || p.newCredentials {
			d.endBackoffs(now, backoff.waitsForReceiver)
		}
		d.noteReceiverSpace(p.response.Storage.FreeBytes, now)
	}
	d.notifyStatus()
}

// statusTime is the format of times for the service manager.
const statusTime = time.DateTime + " MST"

// notifyStatus sends the status to the service manager.
func (d *dispatcher) notifyStatus() {
	if d.Status == nil {
		return
	}
	t := d.Tally()
	d.Status(fmt.Sprintf("%d shipped since the start, %d held; %s wait in the outbox; %s",
		t.Shipped+t.AlreadyPresent, d.held, config.Bytes(max(0, d.out.Bytes())), d.link))
}
