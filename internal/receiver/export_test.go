package receiver

import (
	"context"
	"io"
	"time"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Disk puts a disk of the test's in the place of the store's, for reading back.
func (r *Receiver) Disk(open func(*durable.Dir, string) (io.ReadCloser, error)) {
	r.store.Reader.Uncached = open
}

// Meet is what an upload does with its error.
func (r *Receiver) Meet(err error) error { return r.failed(err) }

// Places are those for uploads.
type Places struct{ s slots }

// NewPlaces returns so many in all, and of each host. Who finds none waits so long.
func NewPlaces(all, each int, patience time.Duration) *Places {
	return &Places{slots{all: all, each: each, patience: patience}}
}

// Take takes a place for a host.
func (p *Places) Take(ctx context.Context, host episode.Name) (func(), error) {
	return p.s.take(ctx, host)
}

// Unpeeked keeps commits from looking into archives, until done.
func (r *Receiver) Unpeeked() (done func()) {
	var all []*archive.MetaReader
	for range maxPeeks {
		all = append(all, <-r.peeks)
	}
	return func() {
		for _, m := range all {
			r.peeks <- m
		}
	}
}

// Lock keeps others from the key of an archive, until unlock.
func (r *Receiver) Lock(key episode.Key) (unlock func()) { return r.keys.lock(key) }

// Underway returns how many requests have a place.
func (r *Receiver) Underway() int {
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	return r.slots.taken
}

// Unqueued makes those wait no more who find no place.
func (r *Receiver) Unqueued() { r.slots.patience = 0 }

// Drain tells those whose requests go on that the receiver stops.
func (r *Receiver) Drain() { r.end(wire.ErrDraining) }

// MostUnheard is how many answers are kept for a host.
const MostUnheard = mostUnheard
