package scrub

import (
	"context"
	"time"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
)

// Options say what [RunOnce] does.
type Options struct {
	Rate      int64         // bytes per second; 0 means unlimited
	OlderThan time.Duration // skip what was verified more recently
	Host      episode.Name  // only this host's archives; empty for all
	// Quarantine moves corrupt archives to quarantine. The caller must hold the lock of
	// the data directory: an upload might replace an archive while it is read.
	Quarantine bool
	Found      func(Finding)
	Progress   func(bytes int) // unless nil, is called with the number of bytes of each read
}

// RunOnce verifies the store in data, whose index has the name indexFile. It may run beside a
// live receiver, unless [Options.Quarantine] is set. It changes nothing but the attributes
// that say when a file was verified.
func RunOnce(ctx context.Context, data *durable.Dir, indexFile string, o Options) (Progress, error) {
	v := &Verifier{Progress: o.Progress, Row: func(ctx context.Context, key episode.Key) (digest.Digest, bool, error) {
		return lookUpDigest(ctx, data, indexFile, key)
	}}
	var err error
	if o.Quarantine {
		s, serr := store.Open(data)
		if serr != nil {
			return Progress{}, serr
		}
		defer s.Close()
		v.Store, v.Quarantine = s.Reader, s.Quarantine
	} else {
		if v.Store, err = store.OpenReader(data.Path("episodes")); err != nil {
			return Progress{}, err
		}
		defer v.Store.Close()
	}
	disk, err := v.Store.Volume()
	if err != nil {
		return Progress{}, err
	}
	now := time.Now().UTC()
	p := &scrubPass{
		progress: Progress{Started: now, Decoded: true, Disk: disk.ID()}, verifier: v,
		verifiedSince: now.Add(-o.OlderThan), onlyHost: o.Host,
		budget: newBudget(o.Rate, func() bool { return false }),
		data:   data, indexFile: indexFile, onFinding: o.Found, afterArchive: v.diskError,
	}
	err = p.run(ctx)
	return p.progress, err
}

// lookUpDigest returns the digest of an archive's row.
func lookUpDigest(ctx context.Context, data *durable.Dir, indexFile string, key episode.Key) (digest.Digest, bool, error) {
	f, err := data.Open(indexFile)
	if err != nil {
		return digest.Digest{}, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return digest.Digest{}, false, err
	}
	row, found, err := index.FindRow(ctx, f, info.Size(), key)
	return row.SHA256, found, err
}
