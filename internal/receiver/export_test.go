package receiver

import (
	"context"
	"io"
	"net/http"
	"time"

	"cis490/internal/archive"
	"cis490/internal/device"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/wire"
)

// Disk puts a disk of the test's in the place of the store's, for reading back.
func (r *Receiver) Disk(open func(*durable.Dir, string) (io.ReadCloser, error)) {
	r.store.Reader.Uncached = open
}

// OnDisk puts the store on a disk that says that it has the serial number.
func (r *Receiver) OnDisk(serial string) error {
	episodes, err := r.data.OpenDir("episodes")
	if err != nil {
		return err
	}
	defer episodes.Close()
	r.store.Reader.Volumes, err = device.OpenDisk(episodes.File(), serial)
	return err
}

// Recover is what a start does with what a crash left.
func (r *Receiver) Recover(ctx context.Context) error { return r.recoverUploads(ctx, nil) }

// Searches are the searches for rows.
type Searches struct{ s *rowSearches }

// NewSearches returns searches by find that end with ctx.
func NewSearches(ctx context.Context, find func(context.Context, ...episode.Key) (index.SearchResult, error)) Searches {
	return Searches{newRowSearches(ctx, find)}
}

// LookUp looks up rows of a host.
func (s Searches) LookUp(ctx context.Context, host episode.Name, keys ...episode.Key) error {
	_, err := s.s.lookUp(ctx, host, keys...)
	return err
}

// Close waits for the end of searches.
func (s Searches) Close() { s.s.close() }

// Meet is what an upload does with its error.
func (r *Receiver) Meet(err error) error { return r.noteFault(err) }

// Unpeeked keeps commits from looking into archives, until done.
func (r *Receiver) Unpeeked() (done func()) {
	var all []*archive.MetaReader
	for range maxMetaReaders {
		all = append(all, <-r.metaReaders)
	}
	return func() {
		for _, m := range all {
			r.metaReaders <- m
		}
	}
}

// Lock keeps others from the key of an archive, until unlock.
func (r *Receiver) Lock(key episode.Key) (unlock func()) { return r.keyLocks.Lock(key) }

// Underway returns how many requests have a place.
func (r *Receiver) Underway() int { return r.uploadLimiter.Active() }

// Unqueued makes those wait no more who find no place.
func (r *Receiver) Unqueued() { r.uploadLimiter.MaxWait = 0 }

// Drain tells those whose requests go on that the receiver stops.
func (r *Receiver) Drain() { r.cancelBase(wire.ErrDraining) }

// MostUnheard is how many answers are kept for a host.
const MostUnheard = maxCachedReadbacks

// Patience makes requests wait so long for a place.
func (r *Receiver) Patience(d time.Duration) { r.uploadLimiter.MaxWait = d }

// Queued returns how many requests wait for a place.
func (r *Receiver) Queued() int { return r.uploadLimiter.Queued() }

// Served returns how many requests are under way whose hosts were let in.
func (r *Receiver) Served() int {
	r.access.mu.Lock()
	defer r.access.mu.Unlock()
	return len(r.access.requests)
}

// Tick is what the timer of the access control does each second.
func (r *Receiver) Tick() { r.access.tick() }

// Port is what serves the requests of the TLS port.
func (r *Receiver) Port() http.Handler { return r.newServer(r.gate.Caller).Handler }
