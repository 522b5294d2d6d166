package diskbackend

import (
	"context"
	"errors"

	"cis490/internal/datadir"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// newVerifier returns the verifier of stored archives, for the scrub and for hosts that ask.
func (b *Backend) newVerifier() *scrub.Verifier {
	return &scrub.Verifier{
		Store:      b.store.Reader,
		Lock:       b.keyLocks.Lock,
		Quarantine: b.store.Quarantine,
		Row: func(ctx context.Context, key episode.Key) (digest.Digest, bool, error) {
			row, found, err := b.index.FindRow(ctx, key)
			return row.SHA256, found, err
		},
	}
}

// RunScrub verifies the store in the background until ctx ends. It returns an error only if
// the storage can no longer be trusted.
func (b *Backend) RunScrub(ctx context.Context) error {
	s := &scrub.Scheduler{
		Config: b.cfg.Scrub, Data: b.data, IndexFile: datadir.IndexFile, Store: b.store, Verifier: b.verifier,
		Busy: func() bool { return b.uploadLimiter.ActiveCount() > 0 }, Log: b.log, OnFinding: b.noteFinding,
	}
	if err := s.Run(ctx); err != nil {
		return b.HandleFault(err)
	}
	return nil
}

// noteFinding tells of a finding that means lost or corrupt bytes.
func (b *Backend) noteFinding(f scrub.Finding) {
	if f.IsLoss() {
		b.observer.NoteDamage(episode.Key{Host: f.Host, Name: f.Episode}, f.Finding, f.Quarantined)
	}
}

// findingOf names what is wrong with a copy that fails verification, as a scrub does.
func findingOf(err error) string {
	if errors.Is(err, store.ErrCorrupt) {
		return "damaged"
	}
	return "unreadable"
}

// ScrubOnce runs [scrub.RunOnce] on the data directory of c. With [scrub.Options.Quarantine] it
// takes the lock of the data directory, which names holder, and returns a
// [*durable.LockedError] beside a live receiver.
func ScrubOnce(ctx context.Context, c Config, holder string, o scrub.Options) (scrub.Progress, error) {
	data, err := durable.Open(c.DataDir)
	if err != nil {
		return scrub.Progress{}, err
	}
	defer data.Close()
	if o.Quarantine {
		lock, err := datadir.Lock(data, holder)
		if err != nil {
			return scrub.Progress{}, err
		}
		defer lock.Unlock()
	}
	return scrub.RunOnce(ctx, data, datadir.IndexFile, o)
}
