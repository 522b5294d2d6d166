package receiver

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
)

// ScrubOptions say what [ScrubOnce] does.
type ScrubOptions struct {
	Rate      int64         // bytes a second; 0 is as fast as can be
	OlderThan time.Duration // read only what was not read back for so long
	Host      episode.Name  // only this host's; empty for all
	// SetAside moves what is not what it was to quarantine. It needs the data
	// directory's lock: only who keeps uploads away knows that it moves what it
	// has read.
	SetAside bool
	Holder   string // what the next one who wants the lock is told
	Found    func(ScrubFinding)
	Progress func(bytes int) // unless nil, is told how many bytes each read gave
}

// ScrubOnce reads a store back, also beside a live receiver, and changes
// nothing but what it notes at the files: when each was read and right. With
// [ScrubOptions.SetAside] it returns a [*durable.LockedError] beside one.
func ScrubOnce(ctx context.Context, c Config, o ScrubOptions) (Progress, error) {
	data, err := durable.Open(string(c.DataDir))
	if err != nil {
		return Progress{}, err
	}
	defer data.Close()
	p := &prover{lock: func(episode.Key) func() { return func() {} }, progress: o.Progress}
	p.row = func(ctx context.Context, key episode.Key) (digest.Digest, bool, error) { return lookup(ctx, data, key) }
	if o.SetAside {
		lock, err := data.Lock(lockName, o.Holder, formerLockName)
		if err != nil {
			return Progress{}, err
		}
		defer lock.Unlock()
		s, err := store.Open(data)
		if err != nil {
			return Progress{}, err
		}
		defer s.Close()
		p.store, p.setAside = s.Reader, s.SetAside
	} else {
		if p.store, err = store.OpenReader(filepath.Join(string(c.DataDir), "episodes")); err != nil {
			return Progress{}, err
		}
		defer p.store.Close()
	}
	v, err := p.store.Volume()
	if err != nil {
		return Progress{}, err
	}
	now := time.Now().UTC()
	s := &scrub{
		Progress: &Progress{Started: now, Decoded: true, Disk: v.ID()}, store: p.store, since: now.Add(-o.OlderThan), host: o.Host,
		pace: newPacer(o.Rate, func() bool { return false }), prove: p.prove, lock: p.lock,
		rows:  func() (*os.File, error) { return data.Open(IndexFile) },
		found: o.Found,
		save: func() error {
			if p.failing() {
				return errDisk
			}
			return nil
		},
	}
	err = s.run(ctx)
	return *s.Progress, err
}

// lookup returns what the index says of an archive.
func lookup(ctx context.Context, data *durable.Dir, key episode.Key) (digest.Digest, bool, error) {
	f, err := data.Open(IndexFile)
	if err != nil {
		return digest.Digest{}, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return digest.Digest{}, false, err
	}
	row, found, err := index.Lookup(ctx, f, info.Size(), key)
	return row.SHA256, found, err
}
