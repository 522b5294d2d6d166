package receiver

import (
	"context"
	"errors"

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
		if err != nil {
			return err
		}
		if err := r.resume(ctx, staged); err != nil {
			return err
		}
	}
	return nil
}

func (r *Receiver) resume(ctx context.Context, staged store.Staged) error {
	log := r.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	o, published, err := staged.Published(ctx)
	if errors.Is(err, store.ErrDamaged) {
		// With a row it may have been acknowledged: then it is for the scrub, or
		// for its host, which may still have the bytes.
		_, acknowledged, ferr := r.index.Find(ctx, staged.Key)
		switch {
		case ferr != nil:
			return ferr
		case acknowledged:
			log.Error("a stored archive is damaged: send it again from its host's shipped folder", "err", err)
			return staged.Clear()
		}
		log.Error("set aside an archive that a crash damaged before it was acknowledged; see quarantine", "err", err)
		return staged.SetAside()
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
	if _, err := r.settle(ctx, o); err != nil {
		return err
	}
	log.Info("recovered", "sha256", o.Digest, "bytes", o.Size)
	return nil
}
