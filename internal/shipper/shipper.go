// Package shipper is the daemon of a lab host. It packs finished episodes into the outbox, sends
// what is packed, and retires what the receiver has given a receipt for.
//
// The disk is the state machine: [stageOf] reads from the directories how far an episode has come.
// There is no other list, so a start after a power cut is an ordinary start. [Shipper.RunOnce]
// makes one pass over all waiting episodes, and [Shipper.Run] works until its context ends.
//
// One goroutine, [dispatcher], decides; workers pack and send. Channels carry names to look at,
// never facts.
//
// Invariant: an episode leaves its directory only by being moved, and only with a receipt for
// exactly the bytes that were packed, from the store that this host has adopted
// ([uplink.Adoption]).
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
	OpenUpload(ctx context.Context, name episode.Name) (id string, err error)
	AppendPiece(ctx context.Context, id string, archive io.ReaderAt, offset, size int64) error
	CancelUpload(ctx context.Context, id string) error
	uplink.PingClient
}

// Shipper owns a lab host's directories until it is closed.
type Shipper struct {
	// Status, if set before [Shipper.Run], is called with a line for the service manager.
	Status func(string)
	// ReloadCredentials, if set before [Shipper.Run], is called with the reason when the receiver refuses
	// everything. It looks for renewed credentials on the disk, and reports whether the next request
	// uses others than the last one. The hint, if any, says what it found.
	ReloadCredentials func(refusal error) (changed bool, hint string)

	cfg     Config
	log     *slog.Logger
	dirs    *hostdir.Dirs
	src     *source.Source // of dirs
	out     *outbox.Outbox // of dirs
	client  receiverClient
	store   *uplink.Adoption
	limiter *bandwidth.Limiter // shared by all senders

	holder       string        // the text that a process reads when it finds the lock taken
	minUnchanged time.Duration // see [shipped.PruneOptions]

	requestSlots chan struct{}                       // held by each upload request
	busyTimeout  time.Duration                       // see [uplink.RetryWhileBusy]
	openRequests atomic.Int64                        // that wait for a response
	link         atomic.Pointer[LinkStatus]          // nil before the first event
	readBytes    atomic.Int64                        // that were read to be sent
	toSendCount  atomic.Int64                        // archives that are queued or being sent
	toSendBytes  atomic.Int64                        // of those
	inotify      func(flags int) (fd int, err error) // inotify_init1(2), or a test's

	livenessProbes chan chan<- struct{} // answered by the dispatcher
	wakec          chan struct{}        // see [Shipper.RequestPing]
	changes        chan struct{}        // see [Shipper.StateChanges]
	answers        chan struct{}        // see [Shipper.Answers]
	work           workTracker
	tally          tallyCounter
	outcomes       outcomeCounter
}

// New opens and locks the directories of c, or returns a [*durable.LockedError]. Holder is the
// text that the next process reads when it finds the lock taken.
func New(c Config, client receiverClient, holder string, log *slog.Logger) (*Shipper, error) {
	dirs, err := hostdir.Acquire(c.DirsConfig(), holder, log)
	if err != nil {
		return nil, err
	}
	s := &Shipper{
		cfg: c, log: log, dirs: dirs, src: dirs.Source, out: dirs.Outbox, client: client, limiter: bandwidth.NewLimiter(c.BandwidthLimit), holder: holder,
		requestSlots: make(chan struct{}, c.Senders), livenessProbes: make(chan chan<- struct{}),
		wakec: make(chan struct{}, 1), changes: make(chan struct{}, 1), answers: make(chan struct{}, 1),
		inotify: unix.InotifyInit1,
	}
	if s.store, err = uplink.NewAdoption(s.src, s.out, client, log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close releases the lock and closes the directories.
func (s *Shipper) Close() error { return s.dirs.Close() }

// Stage is what to do next with an episode.
type Stage int

// The stages, in the order of travel.
const (
	Nothing Stage = iota // not finished, or not there
	Pack                 // finished, and not packed
	Send                 // packed: send it, and retire it with the receipt
	Held                 // until an operator acts
	Stale                // a hold without an episode
)

// diskFacts are the state of an episode by its directories.
type diskFacts struct {
	finished bool // episodes/<name> exists and has its marker
	outbox.State
}

// stageOf is the state machine.
func stageOf(f diskFacts) Stage {
	switch {
	case f.Held && !f.finished && !f.Sealed:
		return Stale
	case f.Held:
		return Held
	case f.Sealed:
		// The episode may be missing: a crash came between retiring it and removing the entry, or
		// it was removed by hand. The receiver knows.
		return Send
	case f.finished:
		return Pack
	}
	return Nothing
}

// inspectEpisode reads from the directories how far an episode has come.
func (s *Shipper) inspectEpisode(name episode.Name) (candidate, error) {
	finish, finished, err := s.src.FinishedAt(name)
	stray, isStray := errors.AsType[*source.StrayError](err)
	if err != nil && !isStray {
		return candidate{}, err
	}
	state, err := s.out.ReadState(name)
	c := candidate{name: name, stage: stageOf(diskFacts{finished, state}), sortTime: finish.At, size: state.Size, markedAt: finish.MarkedAt, waitsSince: finish.ChangedAt}
	if time.Since(c.markedAt) < restlessAfter { // later, the log must name what keeps changing
		c.changedAt = finish.ChangedAt
	}
	state.Held = false
	c.next = stageOf(diskFacts{finished, state})
	if err == nil && isStray && c.stage == Nothing {
		return c, stray
	}
	return c, durable.AsReadError(err)
}

// RunOnce makes one pass over all waiting episodes, without regard to their backoffs, and
// returns its counts. If sending ended early because of this host or the path, packing did
// not, and the error is an [*uplink.UnreachableError].
func (s *Shipper) RunOnce(ctx context.Context) (Tally, error) {
	unreachable, err := s.run(ctx, true)
	if err == nil && unreachable != nil {
		err = &uplink.UnreachableError{Err: unreachable}
	}
	return s.Tally(), err
}

// Run works until ctx ends, and returns nil then. Any other end is an error. After a
// [durable.ErrFault] the process must not be restarted.
func (s *Shipper) Run(ctx context.Context) error {
	_, err := s.run(ctx, false)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
