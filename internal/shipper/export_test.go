package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/settling"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Page is how many names a scan returns.
const Page = scanPageSize

// StuckAfter is when a worker counts as stuck.
const StuckAfter = stuckAfter

// StageOf is the state machine.
func StageOf(finished, sealed, held bool) Stage {
	return stageOf(facts{finished, outbox.State{Sealed: sealed, Held: held}})
}

// Judge is judge, with words for its verdicts.
func Judge(err error) (string, outbox.Reason) {
	v, reason := classify(err)
	return [...]string{actionRetry: "retry", actionHold: "hold", actionPauseSending: "pause", actionPausePacking: "full", actionStop: "stop"}[v], reason
}

// DeleteUnchangedFor sets how long no file must have changed before the daemon deletes an
// episode.
func (s *Shipper) DeleteUnchangedFor(d time.Duration) { s.minUnchanged = d }

// ScanOnly takes inotify away, so that the file system does not wake the daemon. A read
// of it would keep virtual time from passing.
func (s *Shipper) ScanOnly() { s.inotify = func(int) (int, error) { return -1, unix.EMFILE } }

// SendError is an error on the way to the receiver.
func SendError(err error) error { return &uplink.UnreachableError{Err: err} }

// Scan returns the names of a page.
func (s *Shipper) Scan(after episode.Name) ([]episode.Name, bool, error) {
	sheet, err := s.scan(after, func(error) {})
	var names []episode.Name
	for _, c := range sheet.candidates {
		names = append(names, c.name)
	}
	return names, sheet.last, err
}

// SealOnly packs an episode and stops there, as a power cut would.
func (s *Shipper) SealOnly(name episode.Name) error { return s.SealWhile(name, func() {}) }

// SealWhile packs an episode, and calls do once in the middle of it.
func (s *Shipper) SealWhile(name episode.Name, do func()) error {
	_, err := s.packEpisode(context.Background(), archive.NewPacker(), candidate{name: name}, sync.OnceFunc(do), func() {})
	return err
}

// Link is the link, in the hands of a test.
type Link struct{ l link }

// NewLink returns a link that is up.
func NewLink(log *slog.Logger) *Link { return &Link{link{log: log}} }

// Fail takes it down, and returns when it is asked next.
func (l *Link) Fail(err error, now time.Time) time.Duration {
	l.l.markSuspect(err, false, now)
	return l.l.nextPing.Sub(now)
}

// Answered takes in a ping, and returns whether it is down and when it is asked next.
func (l *Link) Answered(pong wire.PingResponse, err error, now time.Time) (bool, time.Duration) {
	l.l.handlePing(pingResult{response: pong, err: err}, now)
	return l.l.state != linkUp, l.l.nextPing.Sub(now)
}

// Watching runs a watcher alone, long before the next scan is due: it looks at
// everything, or, if overflow, handles what the kernel says when events were
// lost. It returns how many names the loop has in memory then.
func (s *Shipper) Watching(ctx context.Context, overflow bool) (hand int, err error) {
	d := &dispatcher{
		Shipper: s, link: link{log: s.log}, inFlight: make(map[episode.Name]candidate),
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

// Await has n episodes wait to settle at once, and returns how many are in memory then
// and how many were left to the next sweep.
func (s *Shipper) Await(n int) (inMemory, left int) {
	d := &dispatcher{Shipper: s, inFlight: make(map[episode.Name]candidate)}
	for i := range n {
		now := time.Now()
		d.awaitSettled(candidate{name: episode.Name(fmt.Sprint("run-", i))}, now, now)
	}
	return d.settling.length(), s.Tally().Transient
}

// KeepsChanging has packers find so often that an episode, whose marker was made at a
// time, is still being changed.
func (s *Shipper) KeepsChanging(name episode.Name, marked time.Time, times int) {
	d := &dispatcher{Shipper: s, inFlight: make(map[episode.Name]candidate), toPack: newSizedQueue(Oldest, 1)}
	c := candidate{name: name}
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

// Turns has episodes wait to settle that have kept changing for a time, and one that was
// finished just now. It returns in which order packers get them, if none comes to an end.
func (s *Shipper) Turns(order Order, packers int, fresh episode.Name, restless ...episode.Name) (turns []episode.Name) {
	d := &dispatcher{Shipper: s, inFlight: make(map[episode.Name]candidate), toPack: newSizedQueue(order, max(1, packers/2))}
	now := time.Now()
	for _, name := range restless {
		d.awaitSettled(candidate{name: name, waitingSince: now.Add(-time.Hour)}, now, now)
	}
	c, err := s.inspect(fresh)
	if err == nil {
		err = d.enqueue(c, now)
	}
	if err = errors.Join(err, d.enqueueSettled(now.Add(time.Hour))); err != nil {
		panic(err)
	}
	for q := d.toPack.next(); q != nil && len(turns) < packers; q = d.toPack.next() {
		d.toPack.started(q.next())
		turns = append(turns, q.next().name)
		q.pop()
	}
	return turns
}

// Bad reports an entry that cannot even be held.
func (s *Shipper) Bad(err error) { (&dispatcher{Shipper: s}).reportUnshippable(err) }
