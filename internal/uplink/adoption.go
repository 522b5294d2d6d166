package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/durable"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// saveInterval is how often the length of the receiver's index is saved while it grows. A
// crash loses at most that much: the host then knows less, and nothing wrong.
const saveInterval = 10 * time.Second

// OtherStoreError says that the receiver's store is not the one to which this host sent its
// episodes.
type OtherStoreError struct {
	Adopted  outbox.Store // zero if this host has adopted none
	Reported wire.Store   // by the receiver
}

func (e *OtherStoreError) Error() string {
	switch {
	case e.Adopted.ID == "":
		return fmt.Sprintf("the receiver has another store: %s knows none of the episodes that this host has retired; "+
			"check receiver.url here and which disk is mounted there, or run 'receiver store replaces %s' there", e.Reported.ID, wire.Unnamed)
	case e.Adopted.ID == e.Reported.ID && e.Reported.IndexBytes < e.Adopted.IndexBytes:
		return fmt.Sprintf("the receiver has another store: the index of %s has %d bytes and had %d, so an older image of it was restored; "+
			"put the right one back, or run 'receiver store replaces --rewound' there", e.Reported.ID, e.Reported.IndexBytes, e.Adopted.IndexBytes)
	case e.Adopted.ID == e.Reported.ID:
		return fmt.Sprintf("the receiver has another store: the first %d bytes of the index of %s have changed, so an older image of it was restored; "+
			"put the right one back, or run 'receiver store replaces --rewound' there", e.Adopted.IndexBytes, e.Reported.ID)
	}
	return fmt.Sprintf("the receiver has another store: it is %s, and this host's episodes are in %s; "+
		"check receiver.url here and which disk is mounted there, or run 'receiver store replaces %s' there", e.Reported.ID, e.Adopted.ID, e.Adopted.ID)
}

// IsOtherStore reports whether err says that the receiver has another store.
func IsOtherStore(err error) bool {
	_, other := errors.AsType[*OtherStoreError](err)
	return other
}

// Adoption is the receiver's store that this host has adopted.
//
// Each request says what the host knows of that store ([Adoption.WithKnown]), and the
// receiver refuses it if it has another one. It recognizes an older image that was restored
// and has grown since by the rows. Responses are checked here as well, against what the
// host knew when it sent the request: responses overtake one another, and an older one
// reports a shorter index.
type Adoption struct {
	src    *source.Source // nil: nothing is retired
	out    *outbox.Outbox
	client InventoryClient
	log    *slog.Logger

	sem    chan struct{} // held to adopt a store, or to save the length
	warned atomic.Bool   // that the receiver does not name its store

	mu         sync.Mutex // guards the fields below
	store      outbox.Store
	savedBytes int64 // the length of the index that is saved; -1 if none is
	savedAt    time.Time
}

// NewAdoption reads which store this host has adopted.
func NewAdoption(src *source.Source, out *outbox.Outbox, client InventoryClient, log *slog.Logger) (*Adoption, error) {
	store, err := out.ReadStore()
	if err != nil {
		return nil, err
	}
	return &Adoption{
		src: src, out: out, client: client, log: log, sem: make(chan struct{}, 1),
		store: store, savedBytes: store.IndexBytes, savedAt: time.Now(),
	}, nil
}

// knownStore returns what this host knows of the adopted store.
func (a *Adoption) knownStore() outbox.Store {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.store
}

// WithKnown returns what this host knows of the adopted store, and a context for a request
// that says so.
func (a *Adoption) WithKnown(ctx context.Context) (outbox.Store, context.Context) {
	before := a.knownStore()
	return before, withKnown(ctx, before)
}

func withKnown(ctx context.Context, known outbox.Store) context.Context {
	return wire.WithKnownStore(ctx, wire.Store{ID: known.ID, IndexBytes: known.IndexBytes, IndexTail: known.IndexTail})
}

// CheckResponse returns an [*OtherStoreError] if the receiver refused the request because of
// its store, or answered for a store other than the adopted one. Otherwise it returns err.
// Before is what [Adoption.WithKnown] returned for the request.
func (a *Adoption) CheckResponse(reported *wire.Store, before outbox.Store, err error) error {
	if err != nil {
		return refusedFor(before, err)
	}
	return a.checkStore(reported, before)
}

// refusedFor returns err as an [*OtherStoreError] if it is a refusal because of the store.
func refusedFor(before outbox.Store, err error) error {
	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Code == wire.OtherStore && p.Store != nil {
		return &OtherStoreError{Adopted: before, Reported: *p.Store}
	}
	return err
}

// checkStore returns an [*OtherStoreError] if a response is not of the adopted store. A receiver
// that names no store is an older one, and is trusted.
func (a *Adoption) checkStore(reported *wire.Store, before outbox.Store) error {
	if reported == nil {
		if !a.warned.Swap(true) {
			a.log.Warn("receiver does not name its store", "hint", "upgrade it: only then this host notices an empty disk or a restored image")
		}
		return nil
	}
	now := a.knownStore()
	switch {
	case reported.ID == before.ID:
		if reported.IndexBytes < before.IndexBytes {
			return &OtherStoreError{Adopted: before, Reported: *reported}
		}
		return nil
	case now.ID == "" || reported.Follows(now.ID):
		return nil
	}
	return &OtherStoreError{Adopted: now, Reported: *reported}
}

// AcceptReceipt checks the store of a receipt. It must be called before the episode is
// retired. The store of the first receipt is adopted, durably, and so is one that replaces
// the adopted store.
func (a *Adoption) AcceptReceipt(ctx context.Context, reported *wire.Store, before outbox.Store) error {
	if err := a.checkStore(reported, before); err != nil || reported == nil {
		return err
	}
	if a.noteGrowth(reported) {
		return a.saveIfDue()
	}
	if reported.ID == before.ID && reported.ID != "" {
		// Another store has been adopted since, and need not have this episode.
		return &UnreachableError{errors.New("the receiver's store was replaced while the episode was sent")}
	}
	select {
	case a.sem <- struct{}{}:
		defer func() { <-a.sem }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Another sender may have adopted a store meanwhile.
	if err := a.checkStore(reported, before); err != nil || a.noteGrowth(reported) {
		return err
	}
	return a.adoptStore(ctx, *reported)
}

// noteGrowth records the reported length of the index, and reports whether the store is the
// adopted one.
func (a *Adoption) noteGrowth(reported *wire.Store) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if reported.ID != a.store.ID {
		return false
	}
	if reported.IndexBytes > a.store.IndexBytes {
		a.store.IndexBytes, a.store.IndexTail = reported.IndexBytes, reported.IndexTail
	}
	return true
}

// adoptStore adopts a store. The caller must hold a.sem.
func (a *Adoption) adoptStore(ctx context.Context, reported wire.Store) error {
	former := a.knownStore().ID
	if former == "" && !reported.Follows(wire.Unnamed) {
		if err := a.checkKnowsRetired(ctx, &reported); err != nil {
			return err
		}
	}
	next := outbox.Store{ID: reported.ID, IndexBytes: reported.IndexBytes, IndexTail: reported.IndexTail}
	err := a.out.AdoptStore(next)
	switch {
	case durable.IsShortage(err):
		// Retiring frees space. After a crash this host has adopted no store, or the former
		// one, and adopts this one again, which has what is retired now.
		a.log.Warn("store adopted but not saved", "store", reported.ID, "err", err)
	case err != nil:
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.store, a.savedAt = next, time.Now()
	if err == nil {
		a.savedBytes = next.IndexBytes
	} else {
		a.savedBytes = -1
	}
	a.log.Info("adopted the receiver's store", "store", reported.ID, "former", former, "index_bytes", reported.IndexBytes)
	return nil
}

// Ping pings the receiver and checks its store. It adopts nothing. While no store is
// adopted, it also checks that the store knows the retired episodes: their receipts may
// have been refused for that.
func (a *Adoption) Ping(ctx context.Context, client PingClient) (wire.PingResponse, error) {
	before, ctx := a.WithKnown(ctx)
	pong, err := client.Ping(ctx)
	return pong, a.checkPing(ctx, pong.Store, before, err)
}

// Report sends a report, to which the receiver responds as to a ping. The response is checked as one.
// An older receiver's is nil.
func (a *Adoption) Report(ctx context.Context, client ReportClient, r wire.Report) (*wire.PingResponse, error) {
	before, ctx := a.WithKnown(ctx)
	response, err := client.SendReport(ctx, r)
	if err != nil || response == nil {
		return nil, refusedFor(before, err)
	}
	return response, a.checkPing(ctx, response.Store, before, nil)
}

// checkPing checks the store that a response to a ping reports.
func (a *Adoption) checkPing(ctx context.Context, reported *wire.Store, before outbox.Store, err error) error {
	if err := a.CheckResponse(reported, before, err); err != nil || reported == nil {
		return err
	}
	a.noteGrowth(reported)
	if a.knownStore().ID != "" || reported.Follows(wire.Unnamed) {
		return nil
	}
	return a.checkKnowsRetired(ctx, reported)
}

// saveIfDue saves the length of the index if it has not been saved lately.
func (a *Adoption) saveIfDue() error {
	select {
	case a.sem <- struct{}{}:
	default:
		return nil // another sender saves it
	}
	defer func() { <-a.sem }()
	return a.saveAfter(saveInterval)
}

// Close saves the length of the index.
func (a *Adoption) Close() error {
	a.sem <- struct{}{}
	defer func() { <-a.sem }()
	return a.saveAfter(0)
}

// saveAfter saves what is known if the index has grown and was saved an interval ago. The
// caller must hold a.sem. If that fails, the host knows less after a crash, so only a
// storage fault is an error.
func (a *Adoption) saveAfter(interval time.Duration) error {
	a.mu.Lock()
	store, due := a.store, a.store.ID != "" && a.store.IndexBytes > a.savedBytes && time.Since(a.savedAt) >= interval
	a.mu.Unlock()
	if !due {
		return nil
	}
	err := a.out.AdoptStore(store)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.savedAt = time.Now()
	if err == nil {
		a.savedBytes = store.IndexBytes
		return nil
	}
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	a.log.Warn("index length not saved", "err", err)
	return nil
}
