package receiver

import (
	"context"
	"errors"
	"fmt"

	"cis490/internal/durable"
	"cis490/internal/store"
)

// recover ends what a crash interrupted. It lists staging and nothing else, so
// that it costs what was under way, however much is stored.
func (r *Receiver) recover(ctx context.Context) error {
	for staged, err := range r.store.Staged() {
		if stray, ok := errors.AsType[*store.StrayError](err); ok {
			r.log.Warn("left alone what is not ours", "err", stray)
			continue
		}
		if err == nil {
			err = r.resume(ctx, staged)
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || store.IsShortage(err):
			return err
		case err != nil:
			// It stays in staging, so that its row stays owed: the next upload of
			// its key, or the next start, looks at it again.
			r.log.Error("left an interrupted upload", "host", staged.Key.Host, "episode", staged.Key.Name, "err", err, "hint", unreadableHint)
		}
	}
	return nil
}

func (r *Receiver) resume(ctx context.Context, staged store.Staged) error {
	log := r.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	o, published, err := staged.Published(ctx)
	if isBad(err) { // one wrong reading is no proof
		o, published, err = staged.Published(ctx)
	}
	if published || err != nil {
		if r.prover.saw(err) {
			return fmt.Errorf("%w: %w: %w", durable.ErrFault, errDisk, err)
		}
	}
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrUnreadable) {
		return r.resumeBad(ctx, staged, err)
	}
	if err != nil {
		return err
	}
	if !published {
		if kept, err := r.restore(staged); kept || err != nil {
			return err
		}
		log.Info("dropped an upload that a crash interrupted; its host sends it again")
		return staged.Clear()
	}
	found, err := r.index.FindAll(ctx, o.Key)
	if err != nil {
		return err
	}
	if _, err := r.settle(ctx, o, found); err != nil {
		return err
	}
	log.Info("recovered", "sha256", o.Digest, "bytes", o.Size)
	return nil
}

// resumeBad ends a published upload whose bytes are others, or are not given by the
// disk. With a row it may have been acknowledged: then it is for the scrub, or for its
// host, which may still have the bytes.
func (r *Receiver) resumeBad(ctx context.Context, staged store.Staged, bad error) error {
	log := r.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	_, acknowledged, err := r.index.Find(ctx, staged.Key)
	switch {
	case err != nil:
		return err
	case acknowledged:
		log.Error("a stored archive is damaged: send it again from its host's shipped folder", "err", bad)
		return staged.Clear()
	}
	log.Error("set aside an archive that a crash damaged before it was acknowledged; see quarantine", "err", bad)
	return staged.SetAside()
}
