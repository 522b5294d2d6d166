package shipped

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// suffixDigits is how many digits of a sha256 distinguish two copies with one name.
const suffixDigits = 8

// maxSecondNames is the maximum number of names that are tried for one copy.
const maxSecondNames = 1000

// SecondName returns the name under which [KeepBoth] sends an episode, unless it is taken.
func SecondName(name episode.Name, h outbox.Hold) (episode.Name, error) {
	return nthName(name, h, 1)
}

// nthName returns the nth name to be tried.
func nthName(name episode.Name, h outbox.Hold, n int) (episode.Name, error) {
	if h.Digest == nil {
		return "", fmt.Errorf("the hold of %s does not say which bytes were packed: retry it first", name)
	}
	text := string(name) + ".conflict-" + h.Digest.String()[:suffixDigits]
	if n > 1 {
		text = fmt.Sprintf("%s-%d", text, n)
	}
	second, err := episode.ParseName(text)
	if err != nil {
		return "", fmt.Errorf("%s is too long a name to get a suffix: rename the episode's folder", name)
	}
	return second, nil
}

// KeepBoth renames an episode that is held for a conflict, or because it was changed after
// it was packed, and releases it. It is then packed and sent under its new name, which
// KeepBoth returns, and neither copy replaces the other. A running shipper does not touch
// what is held.
//
// KeepBoth drops the packed copy of a changed episode only if the receiver confirms that it
// has it, or gave a receipt for it and cannot be asked. Otherwise the error is an
// [*uplink.UnreachableError], and nothing is changed.
//
// After a crash the episode has one of its names and stays held. KeepBoth may be called
// again, and finishes.
func KeepBoth(ctx context.Context, c hostdir.Config, name episode.Name, client uplink.InventoryClient) (episode.Name, error) {
	dirs, err := hostdir.Open(c)
	if err != nil {
		return "", err
	}
	defer dirs.Close()
	hold, err := dirs.Outbox.ReadHold(name)
	if err != nil {
		return "", err
	}
	r := keepBothRun{src: dirs.Source, out: dirs.Outbox, name: name, hold: hold}
	switch hold.Reason {
	case outbox.Conflict:
	case outbox.Changed:
		if err := r.checkDelivered(ctx, client); err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("%s is held for another reason (%s) than a conflict or a change", name, hold.Reason)
	}
	// The packed copy has the old name inside. It must not go before the episode has its
	// new name.
	second, err := r.renameEpisode(ctx)
	if err != nil {
		return "", err
	}
	if err := r.out.Remove(name); err != nil {
		return "", err
	}
	return second, r.out.Release(name)
}

// keepBothRun is an episode that gets a second name.
type keepBothRun struct {
	src  *source.Source
	out  *outbox.Outbox
	name episode.Name
	hold outbox.Hold
}

// checkDelivered returns an error unless the receiver has what was packed of the episode, or
// nothing is packed of it.
func (r *keepBothRun) checkDelivered(ctx context.Context, client uplink.InventoryClient) error {
	entry, err := r.out.OpenEntry(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer entry.Close()
	r.hold.Digest = &entry.Digest
	store, err := uplink.NewAdoption(r.src, r.out, client, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	entries, err := uplink.NewInventory(client, store).Query(ctx, []wire.InventoryQuery{{Episode: r.name, Digest: entry.Digest}}, false)
	// If the receiver cannot be reached, its receipt is enough. If it answers, it may have
	// lost the archive since: an older image of its store may have been restored.
	_, refused := errors.AsType[*wire.Problem](err)
	if err != nil && r.hasReceipt(entry.Digest) && !refused && !uplink.IsOtherStore(err) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if e := entries[0]; e.State != wire.Present || e.Digest == nil || *e.Digest != entry.Digest || e.Unreadable {
		return fmt.Errorf("the receiver does not have what was packed of %s (%s): let it be sent first, with 'shipper retry %s'", r.name, e.State, r.name)
	}
	return nil
}

// hasReceipt reports whether there was a receipt for an archive before the episode was held.
func (r *keepBothRun) hasReceipt(d digest.Digest) bool {
	return r.hold.Delivered != nil && *r.hold.Delivered == d
}

// renameEpisode gives the episode a free name, which it returns. It records the name in the hold
// first, so that a later call can finish.
func (r *keepBothRun) renameEpisode(ctx context.Context) (episode.Name, error) {
	episodes, shipped := r.src.Dirs()
	if r.hold.SecondName == "" && !fileExists(episodes, r.name) {
		return r.findRenamed(ctx)
	}
	for n := 1; n <= maxSecondNames; n++ {
		if err := r.chooseName(&n); err != nil {
			return "", err
		}
		err := episodes.Rename(string(r.name), episodes, string(r.hold.SecondName))
		if errors.Is(err, fs.ErrNotExist) && (fileExists(episodes, r.hold.SecondName) || fileExists(shipped, r.hold.SecondName)) {
			err = nil // an earlier call was interrupted
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", r.missingError()
		case errors.Is(err, fs.ErrExist):
			r.hold.SecondName = ""
		default:
			return r.hold.SecondName, err
		}
	}
	return "", fmt.Errorf("%d episodes have the names that %s could get: rename its folder", maxSecondNames, r.name)
}

// chooseName records the first free name from the nth on, unless one is recorded.
func (r *keepBothRun) chooseName(n *int) error {
	for ; r.hold.SecondName == "" && *n <= maxSecondNames; *n++ {
		name, err := nthName(r.name, r.hold, *n)
		if err != nil {
			return err
		}
		taken, err := r.isTaken(name)
		if err != nil {
			return err
		}
		if !taken {
			r.hold.SecondName = name
			return r.out.Hold(r.name, r.hold)
		}
	}
	return nil
}

// isTaken reports whether there is an episode of this name, or a file of one.
func (r *keepBothRun) isTaken(name episode.Name) (bool, error) {
	episodes, shipped := r.src.Dirs()
	state, err := r.out.ReadState(name)
	return state.Sealed || state.Held || fileExists(episodes, name) || fileExists(shipped, name), err
}

// findRenamed returns the name that an older program gave the episode without recording it. In
// a conflict the packed copy may be the only one of the episode, so the directory of that name
// is compared with it.
func (r *keepBothRun) findRenamed(ctx context.Context) (episode.Name, error) {
	second, err := SecondName(r.name, r.hold)
	if err != nil {
		return "", err
	}
	episodes, shipped := r.src.Dirs()
	for _, folder := range []*durable.Dir{episodes, shipped} {
		if !fileExists(folder, second) {
			continue
		}
		if r.hold.Reason == outbox.Conflict {
			err = r.compareWithEntry(ctx, folder, second)
		}
		return second, err
	}
	return "", r.missingError()
}

// compareWithEntry returns an error if the directory second of folder is not what was packed
// of the episode.
func (r *keepBothRun) compareWithEntry(ctx context.Context, folder *durable.Dir, second episode.Name) error {
	entry, err := r.out.OpenEntry(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer entry.Close()
	tree, err := r.src.TreeIn(folder, string(second), r.name)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := archive.Compare(ctx, entry.Reader(), tree); err != nil {
		return fmt.Errorf("%w, and %s may be another episode: %w", r.missingError(), second, err)
	}
	return nil
}

// missingError says that the episode was removed.
func (r *keepBothRun) missingError() error {
	episodes, _ := r.src.Dirs()
	return fmt.Errorf("%s is not in %s any more: what is left of it is %s",
		r.name, episodes.Path(""), r.out.Dir().Path(string(r.name)+".tar.zst"))
}

func fileExists(dir *durable.Dir, name episode.Name) bool {
	_, err := dir.Lstat(string(name))
	return err == nil
}
