// Package shipped acts on episodes that are delivered or held, for an operator or for the
// retention: it verifies, prunes, resends, releases and keeps both copies of a conflict.
// All of it works beside a running shipper.
//
// Invariant: a retired episode is deleted only if the receiver has read exactly its bytes
// back from its disk, and if a comparison made directly before the deletion shows that the
// episode still is what was shipped.
package shipped

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
)

// open opens the directories of c for a command, and an inventory that accepts responses of
// the adopted store only. Log may be nil.
func open(c hostdir.Config, client uplink.InventoryClient, log *slog.Logger) (*hostdir.Dirs, *uplink.Inventory, error) {
	dirs, err := hostdir.Open(c)
	if err != nil {
		return nil, nil, err
	}
	err = dirs.WatchPaths(nil)
	var store *uplink.Adoption
	if err == nil {
		store, err = uplink.NewAdoption(dirs.Source, dirs.Outbox, client, cmp.Or(log, slog.New(slog.DiscardHandler)))
	}
	if err != nil {
		return nil, nil, errors.Join(err, dirs.Close())
	}
	return dirs, uplink.NewInventory(client, store), nil
}

// ResendRetired moves a retired episode back to the episodes directory, so that it is packed and
// sent again. Dir is its directory in the shipped directory. It returns an error wrapping
// [fs.ErrNotExist] if there is none.
func ResendRetired(c hostdir.Config, dir string) error {
	dirs, err := hostdir.Open(c)
	if err != nil {
		return err
	}
	defer dirs.Close()
	r, err := dirs.Source.ReadRetired(dir)
	if err != nil {
		return err
	}
	return resendEpisode(dirs, r)
}

// resendEpisode refuses an episode of a name that is packed or held: the packed copy may be of
// another run.
func resendEpisode(dirs *hostdir.Dirs, r source.Retired) error {
	state, err := dirs.Outbox.ReadState(r.Name)
	if err != nil {
		return err
	}
	if state.Sealed || state.Held {
		return fmt.Errorf("an episode %s is on its way or held already: see 'shipper status'", r.Name)
	}
	err = dirs.Source.Resend(r)
	if errors.Is(err, fs.ErrExist) {
		episodes, _ := dirs.Source.Dirs()
		return fmt.Errorf("there is an episode %s in %s already: let it be shipped first", r.Name, episodes.Path(""))
	}
	return err
}

// ReleaseHold lets a held episode be tried again. With accept, an episode that was changed after
// it was packed is retired as it is, once the receiver confirms again that it has what was
// packed. It returns an error wrapping [fs.ErrNotExist] if the episode is not held.
func ReleaseHold(c hostdir.Config, name episode.Name, accept bool) error {
	dirs, err := hostdir.Open(c)
	if err != nil {
		return err
	}
	release := dirs.Outbox.Release
	if accept {
		release = dirs.Outbox.Accept
	}
	return errors.Join(release(name), dirs.Close())
}

// CountInterrupted returns how many deletions of c's outbox have begun and not ended.
func CountInterrupted(c hostdir.Config) (int, error) {
	dir, err := durable.Open(string(c.Outbox))
	if err != nil {
		return 0, err
	}
	out := outbox.New(dir)
	n, err := out.CountDiscarded()
	return n, errors.Join(err, out.Close())
}
