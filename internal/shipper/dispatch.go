package shipper

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/settling"
	"cis490/internal/uplink"
)

// dispatch decides what is done next. All of its fields belong to its one
// goroutine; the workers get a name and answer with a result.
type dispatch struct {
	*Shipper
	once bool

	toSeal  lanes
	toSend  lanes
	hand    map[episode.Name]candidate // queued, settling, or with a worker
	working int                        // with a worker
	sending int                        // of those, with a sender
	later   map[episode.Name]delay     // those that failed
	soonest time.Time                  // when the first of them may be tried again; zero if there is none
	link    link
	report  reporting
	toldOf  int  // failures of a single pass that are in the log
	untold  int  // and that are not
	full    bool // the disk is at its floor: no packing until the next sweep
	told    bool // and that is in the log

	delivered time.Time // when an episode last was
	blaming   bool      // one of those that failed may have a [pathFault]
	scout     time.Time // when one of them is tried at the latest
	lacking   bool      // one may have [noRoomThere]
	cramped   bool      // one may have [noRoomHere]
	looked    time.Time // when it was looked whether there is space again

	knowsHolds bool // a whole sweep has looked why each is held
	held       int  // met by the last sweep, and those that came and went since
	met        int  // held ones, by this sweep

	settling queue     // finished, and changed too recently to be packed; by when to look again
	giveUp   time.Time // when a single pass waits for them no longer; zero if it has not swept
	logCrowd sync.Once // that there are more

	after   episode.Name         // how far the sweep of the folders has come
	swept   bool                 // it has come to the end
	due     time.Time            // when the next one begins
	packers chan *archive.Packer // those that are not at work
	turns   chan struct{}        // held by who may send

	sealc  chan candidate
	sendc  chan episode.Name
	done   chan result
	probec chan struct{}
	pongs  chan ponged
	found  chan episode.Name // names that became finished just now

	strays     map[string]bool   // entries that never ship, and are in the log
	keptLogged map[string]string // why retired episodes are kept, by directory; the retention's alone
}

// run starts the workers and decides until ctx ends or, once, until all that
// waited was tried.
func (s *Shipper) run(ctx context.Context, once bool) (unreachable error, err error) {
	d := &dispatch{
		Shipper: s, once: once, link: link{log: s.log},
		toSeal: newLanes(s.cfg.Order, max(1, s.cfg.Packers/2)), toSend: newLanes(s.cfg.Order, min(mostLargeSent, max(1, s.cfg.Senders/2))),
		hand: make(map[episode.Name]candidate), later: make(map[episode.Name]delay),
		packers: make(chan *archive.Packer, s.cfg.Packers), turns: make(chan struct{}, s.cfg.Senders),
		sealc: make(chan candidate), sendc: make(chan episode.Name), done: make(chan result),
		probec: make(chan struct{}), pongs: make(chan ponged), found: make(chan episode.Name),
		keptLogged: make(map[string]string), strays: make(map[string]bool),
	}
	defer durable.RaiseGOMAXPROCS()()
	if s.busyTimeout = uplink.BusyTimeout; once {
		s.busyTimeout = onceBusyTimeout
	}
	g, ctx := errgroup.WithContext(ctx)
	for range s.cfg.Packers {
		d.packers <- archive.NewPacker()
	}
	for i := range max(hands, s.cfg.Packers) {
		g.Go(func() error { return d.sealer(ctx, 2*i) })
	}
	for i := range max(hands, s.cfg.Senders) {
		g.Go(func() error { return d.sender(ctx, 2*i+1) })
	}
	g.Go(func() error { return d.prober(ctx) })
	if !once {
		g.Go(func() error { return d.watch(ctx) })
		g.Go(func() error { return d.pruneLoop(ctx) })
	}
	g.Go(func() error {
		defer close(d.sealc)
		defer close(d.sendc)
		defer close(d.probec)
		d.recall(time.Now())
		return d.decide(ctx)
	})
	if err = g.Wait(); !errors.Is(err, durable.ErrFault) {
		d.report.due = d.report.due || !d.link.heard.IsZero() && !d.link.heard.Before(d.report.written)
		d.tell(time.Now(), true)
		err = errors.Join(err, d.store.Close())
	}
	return d.link.err, err
}

// decide is the loop.
func (d *dispatch) decide(ctx context.Context) error {
	for {
		if err := d.refill(time.Now()); err != nil {
			return err
		}
		if d.once && d.finished() {
			d.tellUntold()
			return nil
		}
		d.tell(time.Now(), false)
		if err := d.step(ctx); err != nil {
			return err
		}
	}
}

// step waits for the next thing that happens. A channel that must not be used
// now is nil.
func (d *dispatch) step(ctx context.Context) error {
	d.reachable.Store(!d.link.down)
	var sealc chan candidate
	var sendc chan episode.Name
	var seal, send candidate
	var probec chan struct{}
	sealq := d.toSeal.next()
	if sealq != nil {
		sealc, seal = d.sealc, sealq.next()
	}
	sendq := d.toSend.next()
	if sendq != nil && !d.link.down {
		sendc, send = d.sendc, sendq.next()
	}
	now := time.Now()
	if d.mayProbe() && !now.Before(d.link.next) {
		probec = d.probec
	}
	alarm := time.NewTimer(d.nextAlarm(now))
	defer alarm.Stop()
	select {
	case sealc <- seal:
		sealq.pop()
		d.toSeal.began(seal)
		d.working++
	case sendc <- send.name:
		sendq.pop()
		d.toSend.began(send)
		d.working++
		d.sending++
	case probec <- struct{}{}:
		d.link.asked()
	case <-d.wakes:
		d.link.wake(time.Now())
	case r := <-d.done:
		d.working--
		c := d.hand[r.name]
		delete(d.hand, r.name)
		r.held = c.held
		if r.stage == Send {
			d.sending--
			d.toSend.ended(c)
		} else {
			d.toSeal.ended(c)
		}
		return d.handleResult(r, c, time.Now())
	case p := <-d.pongs:
		return d.ponged(p)
	case name := <-d.found:
		return d.take(name, time.Now())
	case answer := <-d.beats:
		answer <- struct{}{}
	case <-alarm.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// nextAlarm returns how long the loop may sleep. A time that has passed must be
// one at which something is then done, or the loop spins: a single pass begins
// no other sweep and tries nothing twice.
func (d *dispatch) nextAlarm(now time.Time) time.Duration {
	if d.hungry() {
		return 0
	}
	wait := d.cfg.ScanInterval.Std()
	if d.mayProbe() {
		wait = min(wait, d.link.next.Sub(now))
	}
	if d.swept && !d.once {
		wait = min(wait, d.due.Sub(now))
	}
	if !d.soonest.IsZero() && !d.once {
		wait = min(wait, d.soonest.Sub(now))
	}
	if d.wantsSpace() {
		wait = min(wait, d.looked.Add(lookEvery).Sub(now))
	}
	if d.settling.len() > 0 {
		wait = min(wait, d.settling.next().at.Sub(now))
	}
	if d.patienceEnds(now) {
		wait = 0
	}
	if d.report.due && !d.once {
		wait = min(wait, d.report.written.Add(reportEvery).Sub(now))
	}
	return max(wait, 0)
}

// finished reports whether a pass is over: everything was scanned, what could be
// tried has been, nothing settles, and a receiver that seems to be away was asked whether
// it is.
func (d *dispatch) finished() bool {
	return d.swept && len(d.hand) == 0 && !d.link.probing && !d.mayProbe()
}

// refill scans the next page of the folders when there is little left of the
// one before, or begins anew when it is time.
func (d *dispatch) refill(now time.Time) error {
	if err := d.takeSettled(now); err != nil {
		return err
	}
	if !d.once {
		d.lookForSpace(now)
		if err := d.retryDue(now); err != nil {
			return err
		}
		if d.swept && !now.Before(d.due) {
			d.sweep()
		}
	}
	if !d.hungry() {
		return nil
	}
	if err := d.dirs.CheckPaths(); err != nil {
		return err
	}
	if d.after == "" && (d.cfg.OutboxMax > 0 || d.Status != nil) {
		if err := d.out.Measure(); err != nil {
			return err
		}
	}
	sheet, err := d.scan(d.after, d.bad)
	if err != nil {
		return err
	}
	d.after = sheet.end
	slices.SortFunc(sheet.found, compare)
	for _, c := range sheet.found {
		if err := d.queue(c, now); err != nil {
			return err
		}
	}
	if sheet.last {
		// What waited for room at the last sweep waits still, if there is none.
		d.flag(d.full || d.short() || d.told && d.loaded())
		d.swept, d.due = true, now.Add(d.cfg.ScanInterval.Std())
		if d.once {
			d.giveUp = time.Now().Add(settling.MaxWait(d.cfg.Settle.Std()))
		}
		d.knowsHolds, d.held = true, d.met
		d.report.due = d.report.due || d.report.there // says that it is still so
		d.notify()
	}
	return nil
}

// hungry reports whether another page may be scanned.
func (d *dispatch) hungry() bool {
	return !d.swept && d.toSeal.small.len() == 0 && d.toSeal.large.len() < page && d.toSend.len() < page
}

// short reports whether the disk is below its floor, whoever took it there.
func (d *dispatch) short() bool {
	free, err := d.out.Dir().Space()
	return err == nil && free < int64(d.cfg.MinFree)
}

// sweep begins to scan from the start.
func (d *dispatch) sweep() { d.swept, d.full, d.after, d.met = false, false, "", 0 }

// retryDue takes up the episodes that failed and have waited long enough.
func (d *dispatch) retryDue(now time.Time) error {
	if d.soonest.IsZero() || now.Before(d.soonest) {
		return nil
	}
	d.soonest = time.Time{}
	for name, delay := range d.later {
		if now.Before(delay.until) {
			d.wakeAt(delay.until)
			continue
		}
		if err := d.take(name, now); err != nil {
			return err
		}
	}
	return nil
}

// wakeAt makes the loop look at the episodes that failed.
func (d *dispatch) wakeAt(t time.Time) {
	if d.soonest.IsZero() || t.Before(d.soonest) {
		d.soonest = t
	}
}
