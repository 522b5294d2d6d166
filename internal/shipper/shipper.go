// Package shipper is the daemon of a lab host. It decides which episode is packed or sent next, and
// what follows from an error. [Shipper.RunOnce] makes one pass over all waiting episodes, and
// [Shipper.Run] works until its context ends.
//
// Begin at [dispatcher] (dispatcher.go): one goroutine decides, workers pack and send. Channels
// carry names to look at, never facts. A finished episode is found by a scan (scan.go) or by inotify
// (watch.go), waits until it has settled (settle.go), and is queued (queue.go). A worker passes it
// to [transfer.Pipeline]. What the result means is decided by [classifyError] (result.go): retry
// (backoff.go), hold (hold.go), pause sending (link.go) or packing (space.go), or stop.
//
// Invariant: the disk is the state machine ([backlog.Inspect]). There is no other list of episodes,
// so a start after a power cut is an ordinary start.
package shipper

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/bandwidth"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/transfer"
	"cis490/internal/uplink"
)

// receiverClient is what the shipper needs of a [wire.Client].
type receiverClient interface {
	transfer.Client
	uplink.PingClient
	uplink.ReportClient
}

// Shipper owns a lab host's directories until it is closed.
type Shipper struct {
	// Status, if set before [Shipper.Run], is called with a line for the service manager.
	Status func(string)
	// ReloadCredentials, if set before [Shipper.Run], is called with the reason when the receiver refuses
	// everything. It looks for renewed credentials on the disk, and reports whether the next request
	// uses others than the last one. The hint, if any, says what it found.
	ReloadCredentials func(refusal error) (changed bool, hint string)

	cfg       Config
	log       *slog.Logger
	dirs      *hostdir.Dirs
	src       *source.Source // of dirs
	out       *outbox.Outbox // of dirs
	client    receiverClient
	store     *uplink.Adoption
	transfers *transfer.Pipeline

	holder       string        // the text that a process reads when it finds the lock taken
	minUnchanged time.Duration // see [shipped.PruneOptions]

	link    atomic.Pointer[LinkStatus]          // nil before the first event
	inotify func(flags int) (fd int, err error) // inotify_init1(2), or a test's

	livenessProbes chan chan<- struct{} // answered by the dispatcher
	wakec          chan struct{}        // see [Shipper.RequestPing]
	changes        chan struct{}        // see [Shipper.StateChanges]
	reports        chan pingResult      // see [Shipper.SendReport]
	counters
}

// New opens and locks the directories of c, or returns a [*durable.LockedError]. Holder is the
// text that the next process reads when it finds the lock taken.
func New(c Config, client receiverClient, holder string, log *slog.Logger) (*Shipper, error) {
	dirs, err := hostdir.Acquire(c.DirsConfig(), holder, log)
	if err != nil {
		return nil, err
	}
	s := &Shipper{
		cfg: c, log: log, dirs: dirs, src: dirs.Source, out: dirs.Outbox, client: client, holder: holder, livenessProbes: make(chan chan<- struct{}),
		wakec: make(chan struct{}, 1), changes: make(chan struct{}, 1), reports: make(chan pingResult),
		inotify: unix.InotifyInit1,
	}
	if s.store, err = uplink.NewAdoption(s.src, s.out, client, log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.transfers = transfer.New(transfer.Config{
		Host: c.HostID, Settle: c.Settle.Std(), MinFree: int64(c.MinFree), OutboxMax: int64(c.OutboxMax), MaxRequests: c.Senders,
		Dirs: dirs, Client: client, Store: s.store, Limiter: bandwidth.NewLimiter(c.BandwidthLimit),
		LinkUp: func() bool { return s.LinkStatus().Up }, Log: log,
	})
	return s, nil
}

// Close releases the lock and closes the directories.
func (s *Shipper) Close() error { return s.dirs.Close() }

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
