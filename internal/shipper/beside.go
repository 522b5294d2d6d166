package shipper

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

// besideDigits is how much of a sha256 tells two copies of one name apart.
const besideDigits = 8

// maxBesides is the maximum number of names that are tried for one copy.
const maxBesides = 1000

// BesideName is the name under which an episode is sent whose packed copy the receiver
// refused because it has another one of its name, or that was changed after it was
// packed.
func BesideName(name episode.Name, h outbox.Hold) (episode.Name, error) {
	return besideName(name, h, 1)
}

// besideName is the nth name to be tried.
func besideName(name episode.Name, h outbox.Hold, n int) (episode.Name, error) {
	if h.Digest == nil {
		return "", fmt.Errorf("the hold of %s does not say which bytes were packed: retry it first", name)
	}
	text := string(name) + ".conflict-" + h.Digest.String()[:besideDigits]
	if n > 1 {
		text = fmt.Sprintf("%s-%d", text, n)
	}
	beside, err := episode.ParseName(text)
	if err != nil {
		return "", fmt.Errorf("%s is too long a name to be sent beside the other: rename the episode's folder", name)
	}
	return beside, nil
}

// Beside lets an episode that is held for a conflict, or because it was changed after it
// was packed, go beside the archive that the receiver has: under a name of its own, which
// it returns, and by the ordinary way, on which it is packed anew for the new name.
// Neither copy replaces the other. It works beside a running shipper, which does not
// touch what is held.
//
// The packed copy of a changed episode is dropped only if the receiver says now that it
// has it, or has given a receipt for it and cannot be asked. Without either, the error is
// an [*uplink.UnreachableError], and nothing is changed.
//
// A power cut leaves the episode under one of its names, and the hold until all
// is done: Beside may be called again, and ends what it began.
func Beside(ctx context.Context, c Config, name episode.Name, up uplink.InventoryClient) (episode.Name, error) {
	dirs, err := hostdir.Open(c.Dirs())
	if err != nil {
		return "", err
	}
	defer dirs.Close()
	out := dirs.Outbox
	hold, err := out.Held(name)
	if err != nil {
		return "", err
	}
	b := beside{src: dirs.Source, out: out, name: name, hold: hold}
	switch hold.Reason {
	case outbox.Conflict:
	case outbox.Changed:
		if err := b.seeDelivered(ctx, up); err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("%s is held for another reason (%s) than a conflict or a change", name, hold.Reason)
	}
	// The episode is what custody is about: the packed copy bears the old name
	// inside, and goes only once the episode has the new one.
	other, err := b.rename(ctx)
	if err != nil {
		return "", err
	}
	if err := out.Remove(name); err != nil {
		return "", err
	}
	return other, out.Release(name)
}

// beside is an episode that gets another name.
type beside struct {
	src  *source.Source
	out  *outbox.Outbox
	name episode.Name
	hold outbox.Hold
}

// seeDelivered returns an error unless the receiver has what was packed of the episode,
// or there is nothing packed of it.
func (b *beside) seeDelivered(ctx context.Context, up uplink.InventoryClient) error {
	entry, err := b.out.Entry(b.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer entry.Close()
	b.hold.Digest = &entry.Digest
	store, err := uplink.NewAdoption(b.src, b.out, up, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	said, err := uplink.NewInventory(up, store).Query(ctx, []wire.InventoryQuery{{Episode: b.name, Digest: entry.Digest}}, false)
	// If the receiver cannot be reached, its receipt is enough. If it answers, it may have
	// lost the archive since: an older image of its store may have been restored.
	_, refused := errors.AsType[*wire.Problem](err)
	if err != nil && b.hasReceipt(entry.Digest) && !refused && !uplink.IsOtherStore(err) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if h := said[0]; h.State != wire.Present || h.Digest == nil || *h.Digest != entry.Digest || h.Unreadable {
		return fmt.Errorf("the receiver does not have what was packed of %s (%s): let it be sent first, with 'shipper retry %s'", b.name, h.State, b.name)
	}
	return nil
}

// hasReceipt reports whether there was a receipt for an archive before the episode was held.
func (b *beside) hasReceipt(d digest.Digest) bool {
	return b.hold.Delivered != nil && *b.hold.Delivered == d
}

// rename gives the episode a name that is free, which it returns. The name is noted in
// the hold first, so that a call that ends what another one began knows it.
func (b *beside) rename(ctx context.Context) (episode.Name, error) {
	episodes, shipped := b.src.Dirs()
	if b.hold.Beside == "" && !there(episodes, b.name) {
		return b.renamedBefore(ctx)
	}
	for n := 1; n <= maxBesides; n++ {
		if err := b.choose(&n); err != nil {
			return "", err
		}
		err := episodes.Rename(string(b.name), episodes, string(b.hold.Beside))
		if errors.Is(err, fs.ErrNotExist) && (there(episodes, b.hold.Beside) || there(shipped, b.hold.Beside)) {
			err = nil // an earlier call was interrupted
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", b.gone()
		case errors.Is(err, fs.ErrExist):
			b.hold.Beside = ""
		default:
			return b.hold.Beside, err
		}
	}
	return "", fmt.Errorf("%d episodes are called as %s would be: rename its folder", maxBesides, b.name)
}

// choose notes the first name from the nth on that is free, unless one is noted.
func (b *beside) choose(n *int) error {
	for ; b.hold.Beside == "" && *n <= maxBesides; *n++ {
		name, err := besideName(b.name, b.hold, *n)
		if err != nil {
			return err
		}
		taken, err := b.taken(name)
		if err != nil {
			return err
		}
		if !taken {
			b.hold.Beside = name
			return b.out.Hold(b.name, b.hold)
		}
	}
	return nil
}

// taken reports whether there is an episode of a name, or something of one.
func (b *beside) taken(name episode.Name) (bool, error) {
	episodes, shipped := b.src.Dirs()
	state, err := b.out.State(name)
	return state.Sealed || state.Held || there(episodes, name) || there(shipped, name), err
}

// renamedBefore returns the name that a call of an older program has given the episode
// which noted it nowhere. A conflict's packed copy may be all that is left of the
// episode: that it is not, is seen by a comparison.
func (b *beside) renamedBefore(ctx context.Context) (episode.Name, error) {
	other, err := BesideName(b.name, b.hold)
	if err != nil {
		return "", err
	}
	for _, folder := range dirsOf(b.src) {
		if !there(folder, other) {
			continue
		}
		if b.hold.Reason == outbox.Conflict {
			err = b.compare(ctx, folder, other)
		}
		return other, err
	}
	return "", b.gone()
}

func dirsOf(src *source.Source) []*durable.Dir {
	episodes, shipped := src.Dirs()
	return []*durable.Dir{episodes, shipped}
}

// compare returns an error if the directory other of a folder is not what was packed of
// the episode.
func (b *beside) compare(ctx context.Context, folder *durable.Dir, other episode.Name) error {
	entry, err := b.out.Entry(b.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer entry.Close()
	tree, err := b.src.TreeIn(folder, string(other), b.name)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := archive.Compare(ctx, entry.Reader(), tree); err != nil {
		return fmt.Errorf("%w, and %s may be another episode: %w", b.gone(), other, err)
	}
	return nil
}

// gone says that the episode was taken away.
func (b *beside) gone() error {
	episodes, _ := b.src.Dirs()
	return fmt.Errorf("%s is not in %s any more: what is left of it is %s",
		b.name, episodes.Path(""), b.out.Dir().Path(string(b.name)+".tar.zst"))
}

func there(dir *durable.Dir, name episode.Name) bool {
	_, err := dir.Lstat(string(name))
	return err == nil
}
