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
	// Checked, unless nil, is called repeatedly with the number of archives verified so far.
	Checked func(archives int64)
	// Total, unless nil, is called during the pass, once the archives to verify are counted.
	Total func(archives, bytes int64)
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
		budget: NewBudget(o.Rate, func() bool { return false }),
		data:   data, indexFile: indexFile, onFinding: o.Found, afterArchive: v.diskError,
	}
	if o.Checked != nil {
		p.afterArchive = func() error { o.Checked(p.progress.Objects); return v.diskError() }
	}
	defer p.countWork(ctx, o.Total)()
	err = p.run(ctx)
	return p.progress, err
}

// countWork counts what the pass verifies while the pass runs: a stat of each file of a large store
// takes a while, but only a fraction of the time to read them. stop must be called before the store
// is closed.
func (p *scrubPass) countWork(ctx context.Context, total func(archives, bytes int64)) (stop func()) {
	if total == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if archives, bytes, err := p.measureWork(ctx); err == nil {
			total(archives, bytes) // without a total, only the rate is shown
		}
	}()
	return func() { cancel(); <-ended }
}

// measureWork returns the number and the size of the archives that this pass verifies.
func (p *scrubPass) measureWork(ctx context.Context) (archives, bytes int64, err error) {
	hosts := []episode.Name{p.onlyHost}
	if p.onlyHost == "" {
		if hosts, err = p.verifier.Store.HostNames(); err != nil {
			return 0, 0, err
		}
	}
	for _, host := range hosts {
		for o, err := range p.verifier.Store.HostObjects(host) {
			if ctx.Err() != nil {
				return 0, 0, ctx.Err()
			}
			// What was verified since the start was verified by this pass.
			skipped := o.VerifiedAt.After(p.verifiedSince) && !o.VerifiedAt.After(p.progress.Started)
			if err == nil && !o.InFlight && !skipped {
				archives++
				bytes += o.Size
			}
		}
	}
	return archives, bytes, nil
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
