package receiver

import (
	"io"

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
