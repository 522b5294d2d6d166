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
func (r *Receiver) Recover(ctx context.Context) error { return r.recover(ctx) }

// Searches bounds the searches for rows.
type Searches struct{ s searches }

// Begin waits until a host's search may begin.
func (s *Searches) Begin(ctx context.Context, host episode.Name) (func(), error) {
	return s.s.begin(ctx, host)
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

// Patience makes requests wait so long for a place.
func (r *Receiver) Patience(d time.Duration) { r.slots.patience = d }

// Queued returns how many requests wait for a place.
func (r *Receiver) Queued() int {
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	return len(r.slots.queue)
}

// Served returns how many requests are under way whose hosts were let in, and how many
// connections of the port are theirs.
func (r *Receiver) Served() (requests, conns int) {
	r.access.mu.Lock()
	defer r.access.mu.Unlock()
	return len(r.access.requests), len(r.access.conns)
}

// Tick is what the timer of the access control does each second.
func (r *Receiver) Tick() { r.access.tick() }

// Port is what serves the requests of the TLS port.
func (r *Receiver) Port() http.Handler { return r.server(r.gate.Caller).Handler }

// ParseDisabled parses a list of disabled hosts, and returns it as it is written.
func ParseDisabled(b []byte) (map[episode.Name]time.Time, error) { return parseDisabled(b) }
