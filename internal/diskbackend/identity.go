package diskbackend

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/index"
	"cis490/internal/wire"
)

// openIdentity reads the identity of the store, or creates one. An empty store is logged
// as a warning: its disk may not be mounted.
func (b *Backend) openIdentity(now time.Time) error {
	empty, err := b.isEmpty()
	if err != nil {
		return err
	}
	var created bool
	if b.identity, created, err = datadir.OpenStore(b.data, b.log, empty, now); err != nil {
		return err
	}
	id := b.identity.Current().ID
	switch {
	case empty:
		b.log.Warn("a new, empty store", "store", id, "data_dir", b.data.Path(""), "hint", "is the right disk mounted? hosts with episodes in another store do not ship to this one until 'receiver store replaces'")
	case created:
		b.log.Info("store has an id now", "store", id,
			"hint", "if hosts call it another store, run 'receiver store replaces OLD-ID' with the id that they name")
	}
	return nil
}

// isEmpty reports whether the store has neither a row nor an archive.
func (b *Backend) isEmpty() (bool, error) {
	if b.index.DurableBytes() > 0 {
		return false, nil
	}
	for host, err := range b.store.AllHosts() {
		if err != nil {
			continue // not a host, or unreadable: the scrub reports it
		}
		for _, err := range b.store.HostObjects(host) {
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Store returns the identity of the store, for an answer to a host.
func (b *Backend) Store() (wire.Store, error) {
	name, n := b.identity.Current(), b.index.DurableBytes()
	tail, err := b.index.TailHash(n)
	if err != nil {
		return wire.Store{}, b.HandleFault(err)
	}
	return wire.Store{ID: name.ID, IndexBytes: n, IndexTail: tail, Replaces: name.Replaces}, nil
}

// HasStore reports whether this is the store that a host knows, or replaces it. The length of the
// index is not enough: one that was restored from an older image may have grown since.
func (b *Backend) HasStore(known wire.Store) (bool, error) {
	name := b.identity.Current()
	if known.ID != name.ID {
		return slices.Contains(name.Replaces, known.ID), nil
	}
	tail, err := "", error(nil)
	if n, ok := index.ParseBatchTail(known.IndexTail); ok { // from the time when the store was in a bucket
		tail, err = b.index.BatchTail(n)
	} else {
		tail, err = b.index.TailHash(known.IndexBytes)
	}
	if err != nil {
		return false, b.HandleFault(err)
	}
	return tail != "" && (known.IndexTail == "" || known.IndexTail == tail), nil
}
