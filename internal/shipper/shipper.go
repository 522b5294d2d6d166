// Package shipper is the daemon of a lab host. It moves episodes stage by
// stage: a finished one is sealed in the outbox, a sealed one is sent, and one
// for which there is a receipt is retired.
//
// The disk is the state machine. How far an episode has come is read off the
// folders ([stageOf]); there is no list of them anywhere else, and a start
// after a power cut is an ordinary start. [Shipper.Once] takes every waiting
// episode one pass further, [Shipper.Run] goes on as long as it may.
//
// One goroutine, [dispatcher], decides; packers and senders carry out. A channel
// never carries a fact, only a name to look at.
//
// The law: an episode leaves its folder only with a receipt for the bytes that
// were sealed of it, of the store that this host has adopted ([uplink.Adoption]), and only by
// being moved.
package shipper

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/bandwidth"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// receiverClient is what the shipper needs of a [wire.Client].
type receiverClient interface {
	Put(ctx context.Context, u wire.Upload, archive io.ReaderAt) (wire.Receipt, error)
	Open(ctx context.Context, name episode.Name) (id string, err error)
	Append(ctx context.Context, id string, archive io.ReaderAt, offset, size int64) error
	Forget(ctx context.Context, id string) error
	Ping(ctx context.Context) (wire.PingResponse, error)
	uplink.InventoryClient
}

// Shipper owns a lab host's state directory for as long as it is open.
type Shipper struct {
	// Status, if it is set before [Shipper.Run], is told from time to time how
	// it goes.
	Status func(string)
	// Renew, if it is set before [Shipper.Run], is called when the receiver takes nothing,
	// with the reason. It looks for other credentials of this host on the disk, and reports
	// whether the next request shows others than the last one did; the hint, if there is
	// one, says what was found.
	Renew func(refusal error) (renewed bool, hint string)

	cfg     Config
	log     *slog.Logger
	dirs    *hostdir.Dirs
	src     *source.Source // of dirs
	out     *outbox.Outbox // of dirs
	client  receiverClient
	store   *uplink.Adoption   // of the receiver
	limiter *bandwidth.Limiter // of all senders together

	holder       string        // what another process that wants a lock is told
	minUnchanged time.Duration // see [PruneOptions]

	requestSlots chan struct{}                       // held by what is being sent
	busyTimeout  time.Duration                       // see [uplink.RetryWhileBusy]
	openRequests atomic.Int64                        // of uploads, that wait for a response
	receiverUp   atomic.Bool                         // the receiver seems to be there
	inotify      func(flags int) (fd int, err error) // inotify_init1(2)

	livenessProbes chan chan<- struct{} // answered by the dispatch that runs
	wakec          chan struct{}        // see Wake
	work           workTracker
	tally          counters
}

// New opens the folders of c and takes the state directory, or returns a
// [*durable.LockedError]. Holder is what the next one who asks is told.
func New(c Config, client receiverClient, holder string, log *slog.Logger) (*Shipper, error) {
	dirs, err := hostdir.Acquire(c.Dirs(), holder, log)
	if err != nil {
		return nil, err
	}
	s := &Shipper{
		cfg: c, log: log, dirs: dirs, src: dirs.Source, out: dirs.Outbox, client: client, limiter: bandwidth.NewLimiter(c.BandwidthLimit), holder: holder,
		requestSlots: make(chan struct{}, c.Senders), livenessProbes: make(chan chan<- struct{}),
		wakec:   make(chan struct{}, 1),
		inotify: unix.InotifyInit1,
	}
	if s.store, err = uplink.NewAdoption(s.src, s.out, client, log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close gives the state directory up.
func (s *Shipper) Close() error { return s.dirs.Close() }

// Stage is what is to be done next with an episode.
type Stage int

// The stages, in the order of travel.
const (
	Nothing Stage = iota // not finished, or not there
	Pack                 // finished, and not packed yet
	Send                 // sealed: send, and retire with the receipt
	Held                 // a person must look
	Stale                // a hold of nothing
)

// facts are what the disk says of an episode.
type facts struct {
	finished bool // episodes/<name> is there and has its marker
	outbox.State
}

// stageOf is the state machine.
func stageOf(f facts) Stage {
	switch {
	case f.Held && !f.finished && !f.Sealed:
		return Stale
	case f.Held:
		return Held
	case f.Sealed:
		// Also without the episode: a crash came between retiring it and
		// dropping the entry, or it was taken away. The receiver knows.
		return Send
	case f.finished:
		return Pack
	}
	return Nothing
}

// inspect reads off the folders how far an episode has come.
func (s *Shipper) inspect(name episode.Name) (candidate, error) {
	finish, finished, err := s.src.FinishedAt(name)
	stray, isStray := errors.AsType[*source.StrayError](err)
	if err != nil && !isStray {
		return candidate{}, err
	}
	state, err := s.out.State(name)
	c := candidate{name: name, stage: stageOf(facts{finished, state}), sortTime: finish.At, size: state.Size, markedAt: finish.MarkedAt}
	if time.Since(c.markedAt) < restlessAfter { // later, somebody must be told what keeps changing
		c.changedAt = finish.ChangedAt
	}
	state.Held = false
	c.next = stageOf(facts{finished, state})
	if err == nil && isStray && c.stage == Nothing {
		return c, stray
	}
	return c, durable.ReadFailed(err)
}

// Once makes one pass over all waiting episodes, without regard to their backoffs, and
// returns its counts. If sending ended early because of this host or the path, packing did
// not, and the error is an [*uplink.UnreachableError].
func (s *Shipper) Once(ctx context.Context) (Tally, error) {
	unreachable, err := s.run(ctx, true)
	if err == nil && unreachable != nil {
		err = &uplink.UnreachableError{Err: unreachable}
	}
	return s.Tally(), err
}

// Run ships until ctx ends, and returns nil then. Any other end is an error,
// of which a [durable.ErrFault] must not be restarted.
func (s *Shipper) Run(ctx context.Context) error {
	_, err := s.run(ctx, false)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
