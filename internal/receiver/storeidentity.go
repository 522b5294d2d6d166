package receiver

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/wire"
)

// openIdentity reads the identity of the store, or creates one. An empty store is logged
// as a warning: its disk may not be mounted.
func (r *Receiver) openIdentity(now time.Time) error {
	empty, err := r.isEmpty()
	if err != nil {
		return err
	}
	var created bool
	if r.identity, created, err = datadir.OpenStore(r.data, r.log, empty, now); err != nil {
		return err
	}
	id := r.identity.Current().ID
	switch {
	case empty:
		r.log.Warn("a new, empty store", "store", id, "data_dir", r.data.Path(""), "hint", "is the right disk mounted? hosts with episodes in another store do not ship to this one until 'receiver store replaces'")
	case created:
		r.log.Info("store has an id now", "store", id,
			"hint", "if hosts call it another store, run 'receiver store replaces OLD-ID' with the id that they name")
	}
	return nil
}

// isEmpty reports whether the store has neither a row nor an archive.
func (r *Receiver) isEmpty() (bool, error) {
	if r.index.DurableBytes() > 0 {
		return false, nil
	}
	for host, err := range r.store.AllHosts() {
		if err != nil {
			continue // not a host, or unreadable: the scrub reports it
		}
		for _, err := range r.store.HostObjects(host) {
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Store returns the identity of the store, for an answer to a host.
func (r *Receiver) Store() (wire.Store, error) {
	name, n := r.identity.Current(), r.index.DurableBytes()
	tail, err := r.index.TailHash(n)
	if err != nil {
		return wire.Store{}, r.noteFault(err)
	}
	return wire.Store{ID: name.ID, IndexBytes: n, IndexTail: tail, Replaces: name.Replaces}, nil
}

// HasStore reports whether this is the store that a host knows, or replaces it. The length of the
// index is not enough: one that was restored from an older image may have grown since.
func (r *Receiver) HasStore(known wire.Store) (bool, error) {
	name := r.identity.Current()
	if known.ID != name.ID {
		return slices.Contains(name.Replaces, known.ID), nil
	}
	tail, err := r.index.TailHash(known.IndexBytes)
	if err != nil {
		return false, r.noteFault(err)
	}
	return tail != "" && (known.IndexTail == "" || known.IndexTail == tail), nil
}
