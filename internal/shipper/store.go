package shipper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/durable"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// noteEvery is how often the length of the receiver's index is written down while it
// grows. A crash loses so much of it: the host then knows less, and nothing wrong.
const noteEvery = 10 * time.Second

// An OtherStoreError says that the receiver has another store than the one to which this
// host has given its episodes. Nothing is retired, deleted or sent again for what it says.
type OtherStoreError struct {
	Adopted outbox.Store // zero if this host has adopted none
	Said    wire.Store
}

func (e *OtherStoreError) Error() string {
	switch {
	case e.Adopted.ID == "":
		return fmt.Sprintf("the receiver has another store: %s knows none of the episodes that this host has retired; "+
			"check receiver.url here and which disk is mounted there, or run 'receiver store replaces %s' there", e.Said.ID, wire.Unnamed)
	case e.Adopted.ID == e.Said.ID && e.Said.IndexBytes < e.Adopted.IndexBytes:
		return fmt.Sprintf("the receiver has another store: the index of %s has %d bytes and had %d, so that an older image of it was restored; "+
			"put the right one back, or run 'receiver store replaces --rewound' there", e.Said.ID, e.Said.IndexBytes, e.Adopted.IndexBytes)
	case e.Adopted.ID == e.Said.ID:
		return fmt.Sprintf("the receiver has another store: the first %d bytes of the index of %s are not those that it had, so that an older image of it was restored; "+
			"put the right one back, or run 'receiver store replaces --rewound' there", e.Adopted.IndexBytes, e.Said.ID)
	}
	return fmt.Sprintf("the receiver has another store: it is %s, and this host's episodes are in %s; "+
		"check receiver.url here and which disk is mounted there, or run 'receiver store replaces %s' there", e.Said.ID, e.Adopted.ID, e.Adopted.ID)
}

// isOtherStore reports whether err says that the receiver has another store.
func isOtherStore(err error) bool {
	_, other := errors.AsType[*OtherStoreError](err)
	return other
}

// adoption is the store that this host has adopted, and what it says of itself.
//
// Each request says what is known ([adoption.ask]), so that the receiver refuses it if it
// has another store: an older image that was restored, and has grown since, is told by its
// rows. What is answered all the same is judged here once more, by what was known when it
// was asked for: answers overtake one another, and an older one tells of a shorter index.
type adoption struct {
	src *source.Source
	out *outbox.Outbox
	up  stocktaker
	log *slog.Logger

	turn    chan struct{} // held by who adopts, or writes the length down
	warned  atomic.Bool   // that the receiver does not name its store
	mu      sync.Mutex    // guards the fields below
	now     outbox.Store
	noted   int64 // the length that is written down
	notedAt time.Time
}

func newAdoption(src *source.Source, out *outbox.Outbox, up stocktaker, log *slog.Logger) (*adoption, error) {
	now, err := out.Store()
	if err != nil {
		return nil, err
	}
	return &adoption{
		src: src, out: out, up: up, log: log, turn: make(chan struct{}, 1),
		now: now, noted: now.IndexBytes, notedAt: time.Now(),
	}, nil
}

// known returns what is known before a question is asked.
func (a *adoption) known() outbox.Store {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// ask returns what is known before a question is asked, and a context for asking it.
func (a *adoption) ask(ctx context.Context) (outbox.Store, context.Context) {
	before := a.known()
	return before, asking(ctx, before)
}

func asking(ctx context.Context, known outbox.Store) context.Context {
	return wire.WithKnown(ctx, wire.Store{ID: known.ID, IndexBytes: known.IndexBytes, IndexTail: known.IndexTail})
}

// answered returns an [*OtherStoreError] if the receiver refused for its store, or is not
// of the adopted one, and err otherwise.
func (a *adoption) answered(said *wire.Store, before outbox.Store, err error) error {
	return otherStore(err, before, func() error { return a.check(said, before) })
}

// otherStore returns an [*OtherStoreError] in the place of a refusal for the store, and
// what check says if there is no error.
func otherStore(err error, before outbox.Store, check func() error) error {
	if err == nil {
		return check()
	}
	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Code == wire.OtherStore && p.Store != nil {
		return &OtherStoreError{Adopted: before, Said: *p.Store}
	}
	return err
}

// check returns an [*OtherStoreError] if an answer is not of the adopted store. A receiver
// that names none is an older one, and is taken. Before is what was known when it was
// asked.
func (a *adoption) check(said *wire.Store, before outbox.Store) error {
	if said == nil {
		if !a.warned.Swap(true) {
			a.log.Warn("receiver does not name its store", "hint", "upgrade it: only then this host notices an empty disk or a restored image")
		}
		return nil
	}
	now := a.known()
	switch {
	case said.ID == before.ID:
		if said.IndexBytes < before.IndexBytes {
			return &OtherStoreError{Adopted: before, Said: *said}
		}
		return nil
	case now.ID == "" || said.Follows(now.ID):
		return nil
	}
	return &OtherStoreError{Adopted: now, Said: *said}
}

// receipt judges a receipt before an episode is retired for it. The first one's store is
// adopted, and one that replaces the adopted store, durably.
func (a *adoption) receipt(ctx context.Context, said *wire.Store, before outbox.Store) error {
	if err := a.check(said, before); err != nil || said == nil {
		return err
	}
	if a.grew(said) {
		return a.noteLength()
	}
	if said.ID == before.ID && said.ID != "" {
		// Another store has been adopted in its place since: it need not have this one.
		return &sendError{errors.New("the receiver's store was replaced while the episode was sent")}
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Another sender may have adopted a store meanwhile.
	if err := a.check(said, before); err != nil || a.grew(said) {
		return err
	}
	return a.adopt(ctx, *said)
}

// grew takes in how long the index of the adopted store is, and reports whether said is
// that store.
func (a *adoption) grew(said *wire.Store) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if said.ID != a.now.ID {
		return false
	}
	if said.IndexBytes > a.now.IndexBytes {
		a.now.IndexBytes, a.now.IndexTail = said.IndexBytes, said.IndexTail
	}
	return true
}

// adopt makes a store this host's own. The caller has the turn.
func (a *adoption) adopt(ctx context.Context, said wire.Store) error {
	former := a.known().ID
	if former == "" && !said.Follows(wire.Unnamed) {
		if err := a.isKnownTo(ctx, &said); err != nil {
			return err
		}
	}
	next := outbox.Store{ID: said.ID, IndexBytes: said.IndexBytes, IndexTail: said.IndexTail}
	err := a.out.Adopt(next)
	switch {
	case durable.IsShortage(err):
		// Retiring makes room. After a crash this host has adopted nothing, or the former
		// store, and does so again: the episodes that it retires now are in this one.
		a.log.Warn("could not note the store", "store", said.ID, "err", err)
	case err != nil:
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now, a.notedAt = next, time.Now()
	if err == nil {
		a.noted = next.IndexBytes
	} else {
		a.noted = -1
	}
	a.log.Info("adopted the receiver's store", "store", said.ID, "former", former, "index_bytes", said.IndexBytes)
	return nil
}

// ping asks a receiver that failed. It adopts nothing. Where nothing is adopted, receipts
// may have been refused of a store that knows nothing, and it is asked again.
func (a *adoption) ping(ctx context.Context, up uplink) (wire.PingResponse, error) {
	before, ctx := a.ask(ctx)
	pong, err := up.Ping(ctx)
	if err := a.answered(pong.Store, before, err); err != nil || pong.Store == nil {
		return pong, err
	}
	if a.grew(pong.Store); a.known().ID != "" || pong.Store.Follows(wire.Unnamed) {
		return pong, nil
	}
	return pong, a.isKnownTo(ctx, pong.Store)
}

// noteLength writes down how long the index is, unless it did lately.
func (a *adoption) noteLength() error {
	select {
	case a.turn <- struct{}{}:
	default:
		return nil // somebody does
	}
	defer func() { <-a.turn }()
	if !a.isDue(noteEvery) {
		return nil
	}
	return a.note()
}

// isDue reports whether the index is longer than what was written down so long ago.
func (a *adoption) isDue(since time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now.ID != "" && a.now.IndexBytes > a.noted && time.Since(a.notedAt) >= since
}

// close writes down how long the index is.
func (a *adoption) close() error {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if !a.isDue(0) {
		return nil
	}
	return a.note()
}

// note writes down what is known. The caller has the turn. Without it the host knows less
// after a crash, so that nothing but a fault of the storage is an error.
func (a *adoption) note() error {
	now := a.known()
	err := a.out.Adopt(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notedAt = time.Now()
	if err == nil {
		a.noted = now.IndexBytes
		return nil
	}
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	a.log.Warn("could not note the length of the receiver's index", "err", err)
	return nil
}

// Adopted returns the store that the host of c has adopted, if any. Before the first start
// there is none, and what may not be read is not known.
func Adopted(c Config) (outbox.Store, error) {
	dir, err := durable.Open(string(c.OutboxDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return outbox.Store{}, nil
	}
	if err != nil {
		return outbox.Store{}, err
	}
	out := outbox.New(dir)
	defer out.Close()
	adopted, err := out.Store()
	if errors.Is(err, fs.ErrPermission) {
		return outbox.Store{}, nil
	}
	return adopted, err
}

// pinger is what [Ping] needs of a [wire.Client].
type pinger interface {
	Ping(ctx context.Context) (wire.PingResponse, error)
	stocktaker
}

// Ping asks the receiver, and returns an [*OtherStoreError] if it has another store than
// the adopted one, or, where none is adopted, one that the host of c would not adopt. It
// adopts nothing.
func Ping(ctx context.Context, c Config, up pinger, adopted outbox.Store) (wire.PingResponse, error) {
	pong, err := up.Ping(asking(ctx, adopted))
	return pong, otherStore(err, adopted, func() error {
		if pong.Store == nil {
			return nil
		}
		if adopted.ID == "" && !pong.Store.Follows(wire.Unnamed) {
			return knows(ctx, c, up, pong.Store)
		}
		return (&adoption{now: adopted}).check(pong.Store, adopted)
	})
}

// knows returns an [*OtherStoreError] if a store knows none of the episodes that the host
// of c has retired. Folders that are not there, or not to be looked into, hold none.
func knows(ctx context.Context, c Config, up stocktaker, said *wire.Store) error {
	dirs, err := hostdir.Open(c.Dirs())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	err = (&adoption{src: dirs.Source, up: up}).isKnownTo(ctx, said)
	return errors.Join(err, dirs.Close())
}
