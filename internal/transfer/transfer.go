// Package transfer takes a single episode through its two stages: [Pipeline.Pack] packs a finished
// one into the outbox, and [Pipeline.Send] sends what is packed and retires the episode with the
// receipt. The beginning of a large archive is sent while the rest is packed. Which episode is next,
// and what follows from an error, is the caller's matter.
//
// Invariant: an episode leaves its directory only by being moved, and only with a receipt for
// exactly the bytes that were packed, from the store that this host has adopted
// ([uplink.Adoption]).
package transfer

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/bandwidth"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Client is what a pipeline needs of a [wire.Client].
type Client interface {
	Put(ctx context.Context, u wire.Upload, archive io.ReaderAt) (wire.Receipt, error)
	OpenUpload(ctx context.Context, name episode.Name) (id string, err error)
	AppendPiece(ctx context.Context, id string, archive io.ReaderAt, offset, size int64) error
	CancelUpload(ctx context.Context, id string) error
}

// Config is what a pipeline needs of its caller.
type Config struct {
	Host        episode.Name
	Settle      time.Duration // see [settling.Survey]
	MinFree     int64         // bytes that packing leaves free on the disk
	OutboxMax   int64         // bytes that may wait in the outbox; 0 is any number
	MaxRequests int           // at once, of all uploads

	Dirs    *hostdir.Dirs
	Client  Client
	Store   *uplink.Adoption
	Limiter *bandwidth.Limiter // shared by all uploads
	LinkUp  func() bool        // reports whether the receiver is reachable
	Log     *slog.Logger
}

// Pipeline packs and sends episodes, for any number of goroutines.
type Pipeline struct {
	// BusyTimeout, which must be set before the first Send, is explained at [uplink.RetryWhileBusy].
	BusyTimeout time.Duration

	Config
	src            *source.Source // of Dirs
	out            *outbox.Outbox // of Dirs
	requestSlots   chan struct{}  // held by each upload request
	openRequests   atomic.Int64   // that wait for a response
	readBytes      atomic.Int64
	deliveredBytes atomic.Int64
	workTracker
}

// New returns a pipeline. The directories of c must be those of [hostdir.Acquire].
func New(c Config) *Pipeline {
	return &Pipeline{Config: c, src: c.Dirs.Source, out: c.Dirs.Outbox, requestSlots: make(chan struct{}, c.MaxRequests)}
}

// Progress is how far an episode is that is being packed or sent.
type Progress struct {
	Episode   episode.Name
	Sends     bool  // it is sent, or being retired
	Bytes     int64 // of the archive that are written, or sent
	Size      int64 // of the archive; 0 while it is packed
	Moved     int64 // bytes that were written, or read to be sent
	StartedAt time.Time
	Delivered bool // it is being retired
}

// DeliveredBytes returns how many bytes of archives have a receipt.
func (p *Pipeline) DeliveredBytes() int64 { return p.deliveredBytes.Load() }

// ReadBytes returns how many bytes were read to be sent.
func (p *Pipeline) ReadBytes() int64 { return p.readBytes.Load() }

// HangTimeout is how long an episode may show no progress. It is longer than every wait that is
// bounded by itself. The longest is for a receiver that is slow to answer the announcement, does
// not answer the upload, and does not answer the query about it.
const HangTimeout = 20 * time.Minute

// work is the packing or sending of one episode.
type work struct {
	name      episode.Name
	sends     bool
	startedAt time.Time

	lastProgress atomic.Int64 // a [time.Duration] since startedAt
	size         atomic.Int64 // of the archive; 0 while it is unknown
	position     atomic.Int64 // bytes of the archive that are written or sent
	moved        atomic.Int64 // bytes that were written or read to be sent, repetitions included
	delivered    atomic.Bool  // the receiver has confirmed the archive
}

// beat records progress. Work without any for HangTimeout counts as hung.
func (w *work) beat() { w.lastProgress.Store(int64(time.Since(w.startedAt))) }

// advance records that n bytes of the archive, which end at position, were processed.
func (w *work) advance(n int, position int64) {
	w.moved.Add(int64(n))
	if position > w.position.Load() { // a repeated request starts at an earlier position
		w.position.Store(position)
	}
}

// workTracker tracks what is being packed and sent.
type workTracker struct {
	mu     sync.Mutex
	active map[*work]struct{} // guarded by mu
}

// startWork records the start of work. The caller must call beat on progress, and then endWork.
func (t *workTracker) startWork(name episode.Name, sends bool) *work {
	w := &work{name: name, sends: sends, startedAt: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active == nil {
		t.active = make(map[*work]struct{})
	}
	t.active[w] = struct{}{}
	return w
}

func (t *workTracker) endWork(w *work) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.active, w)
}

// IsProgressing reports whether nothing hangs.
func (t *workTracker) IsProgressing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.active {
		if time.Since(w.startedAt)-time.Duration(w.lastProgress.Load()) > HangTimeout {
			return false
		}
	}
	return true
}

// Active returns the episodes that are being packed or sent, in the order of their starts.
func (t *workTracker) Active() []Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Progress, 0, len(t.active))
	for w := range t.active {
		all = append(all, Progress{w.name, w.sends, w.position.Load(), w.size.Load(), w.moved.Load(), w.startedAt, w.delivered.Load()})
	}
	slices.SortFunc(all, func(x, y Progress) int {
		return cmp.Or(x.StartedAt.Compare(y.StartedAt), cmp.Compare(x.Episode, y.Episode))
	})
	return all
}

// meteredReader counts what is read to be sent.
type meteredReader struct {
	io.ReaderAt
	p *Pipeline
	w *work // nil for an archive that is still being packed
}

func (r meteredReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.p.readBytes.Add(int64(n))
	if r.w != nil {
		r.w.advance(n, off+int64(n))
	}
	return n, err
}
