package receiver

import (
	"io"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Disk puts a disk of the test's in the place of the store's, for reading back.
func (r *Receiver) Disk(open func(*durable.Dir, string) (io.ReadCloser, error)) {
	r.store.Reader.Uncached = open
}

// Meet is what an upload does with its error.
func (r *Receiver) Meet(err error) error { return r.failed(err) }

// Places are those for uploads.
type Places struct{ s slots }

// NewPlaces returns so many in all, and of each host.
func NewPlaces(all, each int) *Places { return &Places{slots{all: all, each: each}} }

// Take takes a place for a host.
func (p *Places) Take(host episode.Name) (func(), error) { return p.s.take(host) }

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
