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

// SetDisk puts a disk of the test's in the place of the store's, for reading back.
func (r *Receiver) SetDisk(open func(*durable.Dir, string) (io.ReadCloser, error)) {
	r.store.Reader.Uncached = open
}

// SetDiskSerial puts the store on a disk that says that it has the serial number.
func (r *Receiver) SetDiskSerial(serial string) error {
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

// NoteFault is what an upload does with its error.
func (r *Receiver) NoteFault(err error) error { return r.noteFault(err) }

// BlockMetaReaders keeps commits from looking into archives, until done.
func (r *Receiver) BlockMetaReaders() (done func()) {
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

// LockKey keeps others from the key of an archive, until unlock.
func (r *Receiver) LockKey(key episode.Key) (unlock func()) { return r.keyLocks.Lock(key) }

// ActiveUploads returns how many requests have a place.
func (r *Receiver) ActiveUploads() int { return r.uploadLimiter.Active() }

// Unqueued makes those wait no more who find no place.
func (r *Receiver) Unqueued() { r.uploadLimiter.MaxWait = 0 }

// Drain tells those whose requests go on that the receiver stops.
func (r *Receiver) Drain() { r.cancelBase(wire.ErrDraining) }

// MaxCachedReadbacks is how many answers are kept for a host.
const MaxCachedReadbacks = maxCachedReadbacks

// SetMaxWait makes requests wait so long for a place.
func (r *Receiver) SetMaxWait(d time.Duration) { r.uploadLimiter.MaxWait = d }

// QueuedUploads returns how many requests wait for a place.
func (r *Receiver) QueuedUploads() int { return r.uploadLimiter.Queued() }

// AdmittedRequests returns how many requests are under way whose hosts were let in.
func (r *Receiver) AdmittedRequests() int {
	r.access.mu.Lock()
	defer r.access.mu.Unlock()
	return len(r.access.requests)
}

// ReviewRequests is what the timer of the access control does each second.
func (r *Receiver) ReviewRequests() { r.access.tick() }

// PortHandler is what serves the requests of the TLS port.
func (r *Receiver) PortHandler() http.Handler { return r.newServer(r.gate.Caller).Handler }
