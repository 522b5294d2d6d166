package shipper

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cis490/internal/archive"
	"cis490/internal/backlog"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/transfer"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// dispatcher decides what to do next. All of its fields belong to its one goroutine, unless they
// say otherwise. Workers receive a name and return a result.
type dispatcher struct {
	*Shipper
	once bool

	toPack           sizedQueue
	toSend           sizedQueue
	inFlight         map[episode.Name]candidate // queued, settling, or with a worker
	activeSends      int                        // how many are with a send worker
	backoffs         map[episode.Name]backoff   // of episodes that failed
	nextRetry        time.Time                  // the earliest of backoffs; zero if there is none
	link             receiverLink
	reporting        reportState
	signalled        [3]bool // see [dispatcher.signalChange]
	signalledHeld    int
	loggedFailures   int // of a single pass, in the log
	unloggedFailures int // of a single pass, not in the log
	packing          packingState

	deliveredAt     time.Time // when an episode last was
	anyPathFault    bool      // whether a backoff may have [pathFault]
	nextPathRetry   time.Time // the latest time at which one of those is retried
	anyReceiverFull bool      // whether a backoff may have [receiverFull]
	anyHostFull     bool      // whether a backoff may have [hostFull]
	spaceCheckedAt  time.Time // when free space was last checked

	holdsRead bool // a whole scan has read the holds
	held      int  // found by the last scan, and changes since
	heldSeen  int  // held ones found by this scan

	settling       queue     // finished, and changed too recently; by when to check again
	settleDeadline time.Time // when a single pass stops waiting for them; zero before the end of its scan
	crowdLogged    sync.Once // that there were too many of them was logged

	scanCursor episode.Name         // the last name that was scanned
	scanDone   bool                 // the scan has reached the end
	nextScan   time.Time            // when the next one starts
	packers    chan *archive.Packer // those that are idle
	sendSlots  chan struct{}        // held by send workers

	packc       chan candidate
	sendc       chan episode.Name
	results     chan workResult
	pingc       chan struct{}
	pingResults chan pingResult
	finishedc   chan episode.Name // names that have just become finished; "" asks for a scan

	loggedStrays map[string]bool   // entries that never ship, and are in the log
	keptLogged   map[string]string // why retired episodes are kept, by directory; belongs to pruneLoop
}

// run starts the workers and the dispatcher. It returns when ctx ends or, once, when all that
// waited was tried.
func (s *Shipper) run(ctx context.Context, once bool) (unreachable error, err error) {
	d := &dispatcher{
		Shipper: s, once: once, link: receiverLink{log: s.log},
		toPack: newSizedQueue(s.cfg.Order, max(1, s.cfg.Packers/2)), toSend: newSizedQueue(s.cfg.Order, min(maxLargeSends, max(1, s.cfg.Senders/2))),
		inFlight: make(map[episode.Name]candidate), backoffs: make(map[episode.Name]backoff),
		packers: make(chan *archive.Packer, s.cfg.Packers), sendSlots: make(chan struct{}, s.cfg.Senders),
		packc: make(chan candidate), sendc: make(chan episode.Name), results: make(chan workResult),
		pingc: make(chan struct{}), pingResults: make(chan pingResult), finishedc: make(chan episode.Name),
		keptLogged: make(map[string]string), loggedStrays: make(map[string]bool),
	}
	s.transfers.BusyTimeout = uplink.BusyTimeout
	if once {
		s.transfers.BusyTimeout = onceBusyTimeout
	}
	g, ctx := errgroup.WithContext(ctx)
	for range s.cfg.Packers {
		d.packers <- archive.NewPacker()
	}
	for range max(workersPerStage, s.cfg.Packers) {
		g.Go(func() error { return d.packWorker(ctx) })
	}
	for range max(workersPerStage, s.cfg.Senders) {
		g.Go(func() error { return d.sendWorker(ctx) })
	}
	g.Go(func() error { return d.pingLoop(ctx) })
	if !once {
		g.Go(func() error { return d.watchEpisodes(ctx) })
		g.Go(func() error { return d.pruneLoop(ctx) })
	}
	g.Go(func() error {
		defer close(d.packc)
		defer close(d.sendc)
		defer close(d.pingc)
		d.loadReport(time.Now())
		return d.runLoop(ctx)
	})
	if err = g.Wait(); !errors.Is(err, durable.ErrFault) {
		d.reporting.changed = d.reporting.changed || !d.link.heardAt.IsZero() && !d.link.heardAt.Before(d.reporting.writtenAt)
		d.writeReport(time.Now(), true)
		err = errors.Join(err, d.store.Close())
	}
	return d.link.err, err
}

// runLoop handles events until ctx ends or, once, until the pass is over.
func (d *dispatcher) runLoop(ctx context.Context) error {
	for {
		if err := d.enqueueDue(time.Now()); err != nil {
			return err
		}
		if d.once && d.passDone() {
			d.logUnlogged()
			return nil
		}
		d.writeReport(time.Now(), false)
		d.signalChange()
		if err := d.handleNext(ctx); err != nil {
			return err
		}
	}
}

// handleNext waits for the next event. A channel that must not be used now is nil.
func (d *dispatcher) handleNext(ctx context.Context) error {
	d.publishLink()
	var packc chan candidate
	var sendc chan episode.Name
	var nextPack, nextSend candidate
	var pingc chan struct{}
	packQueue := d.toPack.next()
	if packQueue != nil {
		packc, nextPack = d.packc, packQueue.next()
	}
	sendQueue := d.toSend.next()
	if sendQueue != nil && d.link.state == linkUp {
		sendc, nextSend = d.sendc, sendQueue.next()
	}
	now := time.Now()
	if d.mayPing() && !now.Before(d.link.nextPing) {
		pingc = d.pingc
	}
	select {
	case packc <- nextPack:
		packQueue.pop()
		d.toPack.countStarted(nextPack)
	case sendc <- nextSend.Name:
		sendQueue.pop()
		d.toSend.countStarted(nextSend)
		d.activeSends++
	case pingc <- struct{}{}:
		d.link.notePing()
	case <-d.wakec:
		d.link.requestPing(time.Now())
	case r := <-d.results:
		return d.handleResult(r, d.finishWork(&r), time.Now())
	case p := <-d.pingResults:
		d.handlePing(p)
	case p := <-d.reports:
		d.handleReport(p, time.Now())
	case name := <-d.finishedc:
		return d.enqueueNow(name, time.Now())
	case answer := <-d.livenessProbes:
		answer <- struct{}{}
	case <-time.After(d.nextWake(now)):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// finishWork counts the worker of a result as idle, and returns the candidate that it had.
func (d *dispatcher) finishWork(r *workResult) candidate {
	c := d.inFlight[r.name]
	delete(d.inFlight, r.name)
	r.held = c.held
	if r.stage == backlog.Send {
		d.activeSends--
		d.toSend.countFinished(c)
		d.countToSend(-1, c)
	} else {
		d.toPack.countFinished(c)
	}
	return c
}

// nextWake returns how long the loop may sleep. A time that has passed must be one at which the
// loop then acts, or it spins: a single pass starts no second scan and retries nothing.
func (d *dispatcher) nextWake(now time.Time) time.Duration {
	if d.needsScan() {
		return 0
	}
	wait := d.cfg.ScanInterval.Std()
	if d.mayPing() {
		wait = min(wait, d.link.nextPing.Sub(now))
	}
	if d.scanDone && !d.once {
		wait = min(wait, d.nextScan.Sub(now))
	}
	if !d.nextRetry.IsZero() && !d.once {
		wait = min(wait, d.nextRetry.Sub(now))
	}
	if d.waitsForSpace() {
		wait = min(wait, d.spaceCheckedAt.Add(spaceCheckInterval).Sub(now))
	}
	if d.settling.size() > 0 {
		wait = min(wait, d.settling.next().sortTime.Sub(now))
	}
	if d.settleWaitOver(now) {
		wait = 0
	}
	if d.reporting.changed && !d.once {
		wait = min(wait, d.reporting.writtenAt.Add(minStatusInterval).Sub(now))
	}
	return max(wait, 0)
}

// passDone reports whether a pass is over: everything is scanned and tried, nothing settles, and a
// receiver that failed was pinged.
func (d *dispatcher) passDone() bool {
	return d.scanDone && len(d.inFlight) == 0 && !d.link.pinging && !d.mayPing()
}

// enqueueDue enqueues what is due: episodes that have settled or whose backoff has ended, and the
// next page of the scan when little is left of the last one.
func (d *dispatcher) enqueueDue(now time.Time) error {
	if err := d.enqueueSettled(now); err != nil {
		return err
	}
	if !d.once {
		d.checkSpace(now)
		if err := d.retryExpired(now); err != nil {
			return err
		}
		if d.scanDone && !now.Before(d.nextScan) {
			d.restartScan()
		}
	}
	if !d.needsScan() {
		return nil
	}
	return d.scanMore(now)
}

// retryExpired enqueues the episodes whose backoff has ended.
func (d *dispatcher) retryExpired(now time.Time) error {
	if d.nextRetry.IsZero() || now.Before(d.nextRetry) {
		return nil
	}
	d.nextRetry = time.Time{}
	for name, b := range d.backoffs {
		if now.Before(b.retryAt) {
			d.scheduleWake(b.retryAt)
			continue
		}
		if err := d.enqueueNow(name, now); err != nil {
			return err
		}
	}
	return nil
}

// scheduleWake has the loop check the backoffs at t.
func (d *dispatcher) scheduleWake(t time.Time) {
	if d.nextRetry.IsZero() || t.Before(d.nextRetry) {
		d.nextRetry = t
	}
}

// workResult is the result of a worker.
type workResult struct {
	name   episode.Name
	stage  backlog.Stage
	size   int64       // of the archive, or of the episode with [transfer.ErrLarge]; otherwise what was known before
	status wire.Status // of Send
	held   bool        // it is held, and was retried all the same
	err    error
}

// workersPerStage is the number of workers per stage. It exceeds packers and senders so that
// episodes that wait for fsync share one commit of the file system.
const workersPerStage = 32

// packWorker packs episodes. It receives one only when it has a packer.
func (d *dispatcher) packWorker(ctx context.Context) error {
	for {
		var p *archive.Packer
		select {
		case p = <-d.packers:
		case <-ctx.Done():
			return nil
		}
		releasePacker := sync.OnceFunc(func() { d.packers <- p })
		c, more := <-d.packc
		if !more {
			releasePacker()
			return nil
		}
		job := transfer.Job{Name: c.Name, MarkedAt: c.MarkedAt, Seen: c.lastObservation, AllowLarge: c.isLarge()}
		size, err := d.transfers.Pack(ctx, p, job, releasePacker)
		releasePacker()
		if !sendOrDone(ctx, d.results, workResult{name: c.Name, stage: backlog.Pack, size: size, err: err}) {
			return nil
		}
	}
}

// sendWorker sends episodes and retires them. It receives one only when it has a send slot.
func (d *dispatcher) sendWorker(ctx context.Context) error {
	for {
		select {
		case d.sendSlots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		releaseSlot := sync.OnceFunc(func() { <-d.sendSlots })
		name, more := <-d.sendc
		if !more {
			releaseSlot()
			return nil
		}
		status, err := d.transfers.Send(ctx, name, releaseSlot)
		published := sendOrDone(ctx, d.results, workResult{name: name, stage: backlog.Send, status: status, err: err})
		releaseSlot() // not before: the failure may pause sending
		if !published {
			return nil
		}
	}
}

func sendOrDone[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}
