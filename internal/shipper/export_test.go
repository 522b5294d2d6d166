package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/backlog"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/settling"
	"cis490/internal/transfer"
	"cis490/internal/wire"
)

// Classify is classify, with words for its actions.
func Classify(err error) (string, outbox.Reason) {
	v, reason := classifyError(err)
	return [...]string{actionRetry: "retry", actionHold: "hold", actionPauseSending: "pause", actionPausePacking: "full", actionStop: "stop"}[v], reason
}

// PingTimeout is [pingTimeout].
const PingTimeout = pingTimeout

// SetMinUnchanged sets how long no file must have changed before the daemon deletes an episode.
func (s *Shipper) SetMinUnchanged(d time.Duration) { s.minUnchanged = d }

// ScanOnly disables inotify. A read of it would keep virtual time from passing.
func (s *Shipper) ScanOnly() { s.inotify = func(int) (int, error) { return -1, unix.EMFILE } }

// PackOnly packs an episode and stops, like a crash.
func (s *Shipper) PackOnly(name episode.Name) error { return s.PackWhile(name, func() {}) }

// PackWhile packs an episode, and calls do meanwhile.
func (s *Shipper) PackWhile(name episode.Name, do func()) error {
	c := s.transfers.Config
	c.LinkUp = func() bool { do(); return false } // is asked between the survey and the first byte
	_, err := transfer.New(c).Pack(context.Background(), archive.NewPacker(), transfer.Job{Name: name}, func() {})
	return err
}

// Link is the link, for a test.
type Link struct{ l receiverLink }

// NewLink returns a link that is up.
func NewLink(log *slog.Logger) *Link { return &Link{receiverLink{log: log}} }

// MarkSuspect handles a failed upload, and returns the wait before the next ping.
func (l *Link) MarkSuspect(err error, now time.Time) time.Duration {
	l.l.markSuspect(err, false, now)
	return l.l.nextPing.Sub(now)
}

// HandlePing handles the result of a ping. It returns whether the link is not up, and the wait
// before the next ping.
func (l *Link) HandlePing(pong wire.PingResponse, err error, now time.Time) (bool, time.Duration) {
	l.l.handlePing(pingResult{response: pong, err: err}, now)
	return l.l.state != linkUp, l.l.nextPing.Sub(now)
}

// RunWatcher runs a watcher alone, long before the next scan: it checks all episodes or, with
// overflow, handles the event for lost events. It returns how many names the dispatcher has in
// memory then.
func (s *Shipper) RunWatcher(ctx context.Context, overflow bool) (inMemory int, err error) {
	d := &dispatcher{
		Shipper: s, link: receiverLink{log: s.log}, inFlight: make(map[episode.Name]candidate),
		backoffs: make(map[episode.Name]backoff), finishedc: make(chan episode.Name),
		scanDone: true, nextScan: time.Now().Add(time.Hour),
	}
	w, err := d.newWatcher(ctx)
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() {
		if overflow {
			ended <- w.handleEvent(-1, unix.IN_Q_OVERFLOW, "")
			return
		}
		ended <- w.watchAll()
	}()
	for {
		select {
		case name := <-d.finishedc:
			if err := d.enqueueNow(name, time.Now()); err != nil {
				return 0, err
			}
		case err := <-ended:
			if err == nil {
				err = d.enqueueDue(time.Now())
			}
			return len(d.inFlight), err
		}
	}
}

// AwaitSettled makes n episodes wait to settle at once. It returns how many are in memory then
// and how many were left to the next scan.
func (s *Shipper) AwaitSettled(n int) (inMemory, left int) {
	d := &dispatcher{Shipper: s, inFlight: make(map[episode.Name]candidate)}
	for i := range n {
		now := time.Now()
		d.awaitSettled(candidate{Episode: backlog.Episode{Name: episode.Name(fmt.Sprint("run-", i))}}, now, now)
	}
	return d.settling.size(), s.Tally().Transient
}

// KeepsChanging makes packers find a number of times that an episode, whose marker has the
// ctime marked, is still changing.
func (s *Shipper) KeepsChanging(name episode.Name, marked time.Time, times int) {
	d := &dispatcher{Shipper: s, inFlight: make(map[episode.Name]candidate), toPack: newSizedQueue(Oldest, 1)}
	c := candidate{Episode: backlog.Episode{Name: name}}
	for range times {
		now := time.Now()
		d.handleUnsettled(c, &settling.UnsettledError{Until: now, MarkedAt: marked}, now)
		if err := d.enqueueSettled(now.Add(time.Hour)); err != nil {
			panic(err)
		}
		q := d.toPack.next()
		c = q.next()
		q.pop()
	}
}

// PackOrder makes episodes wait to settle that have kept changing for a time, and one that was
// finished just now. It returns the order in which packers get them, if none is finished
// meanwhile.
func (s *Shipper) PackOrder(order Order, packers int, finished episode.Name, restless ...episode.Name) (turns []episode.Name) {
	d := &dispatcher{Shipper: s, inFlight: make(map[episode.Name]candidate), toPack: newSizedQueue(order, max(1, packers/2))}
	now := time.Now()
	for _, name := range restless {
		d.awaitSettled(candidate{Episode: backlog.Episode{Name: name}, waitingSince: now.Add(-time.Hour)}, now, now)
	}
	e, err := backlog.Inspect(s.dirs, finished)
	if err == nil {
		err = d.enqueueCandidate(newCandidate(e), now)
	}
	if err = errors.Join(err, d.enqueueSettled(now.Add(time.Hour))); err != nil {
		panic(err)
	}
	for q := d.toPack.next(); q != nil && len(turns) < packers; q = d.toPack.next() {
		d.toPack.countStarted(q.next())
		turns = append(turns, q.next().Name)
		q.pop()
	}
	return turns
}

// ReportUnshippable reports an entry that cannot even be held.
func (s *Shipper) ReportUnshippable(err error) { (&dispatcher{Shipper: s}).reportUnshippable(err) }
