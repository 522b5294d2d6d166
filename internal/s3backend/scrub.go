package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/scrub"
	"cis490/internal/shards"
	"cis490/internal/store"
)

// errEngine says that the object store failed to return one archive after another.
var errEngine = errors.New("the object store failed to return several archives in a row: see its log")

// unreadableHint says what to do about an archive that the object store does not return.
const unreadableHint = "see the log of the object store; 'receiver probe' checks it"

// runScrub verifies the store in the background until ctx ends, together with other receivers.
func (b *Backend) runScrub(ctx context.Context) error {
	return scrub.RunPasses(ctx, b.opts.Scrub, b.log, scrub.Progress{}, func(ctx context.Context, _ scrub.Progress) (scrub.Progress, error) {
		return b.scrubPass(ctx)
	})
}

// scrubPass takes part in the pass that is in progress, or begins one if it is due. It returns the state
// of the last pass.
func (b *Backend) scrubPass(ctx context.Context) (scrub.Progress, error) {
	pass, err := shards.Join(ctx, b.bucket, b.log, b.opts.Name, b.opts.Scrub.Interval.Std(), b.countBatches)
	if err != nil {
		return scrub.Progress{}, err
	}
	if last := pass.Ended(); last != nil {
		return *last, nil
	}
	b.verifier.RecordReadError(nil) // what failed before may work again
	findings := scrub.NewFindingLog(b.log, unreadableHint)
	defer findings.LogSuppressed()
	budget := scrub.NewBudget(int64(b.opts.Scrub.Rate), func() bool { return b.uploads.ActiveCount() > 0 })
	for {
		shard, more, err := pass.Next(ctx)
		if err != nil {
			return scrub.Progress{}, err
		}
		if !more {
			break
		}
		budget.BeforeWait = func() { pass.Renew(ctx, shard) }
		s := &bucketScrub{
			archiveReader: archiveReader{backend: b, budget: budget, quarantine: true},
			since:         pass.Started(), shared: true,
			onFinding: func(f scrub.Finding) {
				findings.LogFinding(f)
				if f.IsLoss() && b.opts.Observer != nil {
					b.opts.Observer.NoteDamage(episode.Key{Host: f.Host, Name: f.Episode}, f.Finding, f.Quarantined)
				}
			},
		}
		if err := s.readBatches(ctx, shard.First, shard.Last); err != nil {
			pass.Release(ctx, shard)
			return scrub.Progress{}, err
		}
		if err := pass.Finish(ctx, shard, s.progress); err != nil {
			return scrub.Progress{}, err
		}
	}
	last := pass.Ended()
	if last == nil {
		return scrub.Progress{}, nil // another pass has begun
	}
	last.LogEnd(b.log)
	return *last, nil
}

// countBatches returns the number of batches of the index.
func (b *Backend) countBatches(ctx context.Context) (int64, error) {
	err := b.index.CatchUp(ctx)
	return b.index.Head(), err
}

// bucketScrub verifies the archives of rows.
type bucketScrub struct {
	archiveReader
	since    time.Time    // what was verified since then is not read
	shared   bool         // what was verified since then was read by this pass, before a restart
	onlyHost episode.Name // empty: all hosts

	onFinding    func(scrub.Finding)
	afterArchive func() // unless nil, is called after each archive
	progress     scrub.Progress
}

// readBatches verifies the archives whose rows are in the batches from first to last. The rows of
// repaired archives are skipped: each has an earlier row, by which the newest archive is found.
func (s *bucketScrub) readBatches(ctx context.Context, first, last int64) error {
	for row, err := range batchlog.Rows(ctx, s.backend.bucket, first, last) {
		if _, corrupt := errors.AsType[*batchlog.CorruptError](err); corrupt {
			s.backend.log.Error("batch of the index is corrupt", "err", err)
			s.progress.NotOpened++ // at least one archive
			continue
		}
		if err != nil {
			return err
		}
		if row.Repaired || s.onlyHost != "" && row.Key.Host != s.onlyHost {
			continue
		}
		if err := s.verifyRow(ctx, row); err != nil {
			return err
		}
		if s.afterArchive != nil {
			s.afterArchive()
		}
		if s.backend.verifier.IsFailing() {
			if err := s.backend.checkEngine(ctx); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// checkEngine returns an error unless the object store returns something else than the archives that it
// has failed to return. If it does, these have been counted, and the archives behind them must be read.
func (b *Backend) checkEngine(ctx context.Context) error {
	if err := b.checkAnswers(ctx); err != nil {
		return fmt.Errorf("%w: %w", errEngine, err)
	}
	b.verifier.RecordReadError(nil)
	return nil
}

// verifyRow verifies the archive of a row, unless that may be skipped.
func (s *bucketScrub) verifyRow(ctx context.Context, row index.Row) error {
	if err := s.budget.WaitSeek(ctx); err != nil {
		return err
	}
	c, err := s.backend.newestCommit(ctx, row.Key)
	if errors.Is(err, fs.ErrNotExist) {
		s.backend.verifier.RecordReadError(nil)
		s.onFinding(s.progress.AddMissing(row.Key, "its row has no commit in the bucket"))
		return nil
	}
	var earlier verification
	if err == nil {
		earlier, _, err = s.backend.readVerification(ctx, c)
	}
	var quarantined time.Time
	if err == nil {
		quarantined, err = s.backend.quarantinedAt(ctx, c)
	}
	if err == nil && !quarantined.IsZero() {
		s.addQuarantined(c, quarantined)
		return nil
	}
	if err == nil && !earlier.At.IsZero() {
		var skipped bool
		if skipped, err = s.skipVerified(ctx, c, earlier); skipped {
			return nil
		}
	}
	if err != nil {
		return s.addUnreadable(ctx, row, err)
	}
	return s.readArchive(ctx, c, earlier)
}

// skipVerified reports whether an archive was verified recently, and counts it.
func (s *bucketScrub) skipVerified(ctx context.Context, c commit, earlier verification) (bool, error) {
	if !earlier.At.After(s.since) || earlier.At.After(time.Now()) {
		return false, nil
	}
	info, err := s.backend.bucket.Stat(ctx, c.object)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.ETag != earlier.ETag {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.backend.verifier.RecordReadError(nil)
	switch {
	case s.shared:
		s.progress.Add(c.row.Key, scrub.Result{Object: store.Object{Size: c.row.Size}, ExpandedSize: earlier.Decoded})
	default:
		s.progress.Skipped++
	}
	return true, nil
}

// addQuarantined counts an archive that was quarantined and was not sent again: as damaged if this pass has done
// that, and as missing if an earlier one has, as on a disk.
func (s *bucketScrub) addQuarantined(c commit, at time.Time) {
	s.backend.verifier.RecordReadError(nil)
	if s.shared && at.After(s.since) {
		s.progress.Add(c.row.Key, scrub.Result{Object: store.Object{Size: c.row.Size}, Err: store.ErrCorrupt, Quarantined: true})
		return
	}
	s.onFinding(s.progress.AddMissing(c.row.Key, fmt.Sprintf("%s was quarantined as corrupt on %s, and not sent again", c.object, at.UTC().Format(time.DateOnly))))
}

// addUnreadable counts an archive that the object store does not return. It returns err if ctx has ended.
func (s *bucketScrub) addUnreadable(ctx context.Context, row index.Row, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = fmt.Errorf("%w: %w", store.ErrUnreadable, err)
	s.backend.verifier.RecordReadError(err)
	s.addResult(row.Key, scrub.Result{Err: err})
	return nil
}

// readArchive reads and decodes the archive of a commit.
func (s *bucketScrub) readArchive(ctx context.Context, c commit, earlier verification) error {
	result, _, err := s.verify(ctx, c, earlier)
	if errors.Is(err, fs.ErrNotExist) {
		return s.confirmMissing(ctx, c)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil { // it was read, and the result could not be recorded
		result.Err = errors.Join(result.Err, err)
	}
	s.addResult(c.row.Key, result)
	return nil
}

// confirmMissing looks again for an archive that is missing, unless it was repaired meanwhile.
func (s *bucketScrub) confirmMissing(ctx context.Context, c commit) error {
	now, err := s.backend.newestCommit(ctx, c.row.Key)
	if err == nil && now.generation == c.generation {
		_, err = s.backend.bucket.Stat(ctx, c.object)
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.backend.verifier.RecordReadError(nil)
		s.onFinding(s.progress.AddMissing(c.row.Key, c.object+" is not in the bucket"))
		return nil
	}
	if err != nil {
		return s.addUnreadable(ctx, c.row, err)
	}
	s.progress.Skipped++ // the next pass reads it
	return nil
}

// addResult counts and reports the result for an archive.
func (s *bucketScrub) addResult(key episode.Key, r scrub.Result) {
	if errors.Is(r.Err, store.ErrUnreadable) {
		s.progress.NotOpened++
	}
	if r.Err == nil {
		r.LogTo(s.backend.log.With("host", key.Host, "episode", key.Name)) // a transient error
	}
	for _, f := range s.progress.Add(key, r) {
		s.onFinding(f)
	}
}

// ScrubOnce verifies all archives of the store in a bucket, or those of one host. It may run beside
// receivers, and does not share the work with them. With o.Quarantine it quarantines what is corrupt.
func ScrubOnce(ctx context.Context, in bucket.Bucket, o scrub.Options, log *slog.Logger) (scrub.Progress, error) {
	b := &Backend{bucket: in, log: log, verifier: new(scrub.Verifier)}
	now := time.Now().UTC()
	s := &bucketScrub{
		archiveReader: archiveReader{backend: b, budget: scrub.NewBudget(o.Rate, func() bool { return false }), quarantine: o.Quarantine, onBytes: o.Progress},
		since:         now.Add(-o.OlderThan), onlyHost: o.Host, onFinding: o.Found,
		progress: scrub.Progress{Started: now, Decoded: true},
	}
	if o.Checked != nil {
		s.afterArchive = func() { o.Checked(s.progress.Objects) }
	}
	last, err := batchlog.Last(ctx, in)
	if err != nil {
		return s.progress, err
	}
	defer s.countWork(ctx, last, o.Total)()
	err = s.readBatches(ctx, 1, last)
	if err == nil {
		s.progress.Ended = time.Now().UTC()
	}
	return s.progress, err
}

// countWork counts the archives of the index up to a batch while they are read. stop must be called.
func (s *bucketScrub) countWork(ctx context.Context, last int64, total func(archives, bytes int64)) (stop func()) {
	if total == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var counting sync.WaitGroup
	counting.Go(func() {
		var archives, bytes int64
		for row, err := range batchlog.Rows(ctx, s.backend.bucket, 1, last) {
			if err != nil {
				return // without a total, only the rate is shown
			}
			if !row.Repaired && (s.onlyHost == "" || row.Key.Host == s.onlyHost) {
				archives++
				bytes += row.Size
			}
		}
		total(archives, bytes)
	})
	return func() { cancel(); counting.Wait() }
}
