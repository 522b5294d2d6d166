package s3backend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"cis490/internal/admission"
	"cis490/internal/batchlog"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// followInterval is how often the copy of the index is completed while this receiver appends nothing.
const followInterval = 2 * time.Second

// Run completes the copy of the index in the data directory, removes expired uploads and verifies stored
// archives, until ctx ends. It returns an error only if the data directory can no longer be trusted.
func (b *Backend) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.followIndex(ctx) })
	g.Go(func() error { return b.expireUploadsUntil(ctx) })
	g.Go(func() error { return b.runScrub(ctx) })
	return g.Wait()
}

// followIndex reads what other receivers append, and completes the copy of the index.
func (b *Backend) followIndex(ctx context.Context) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	failed, left := false, false
	for {
		err := b.CopyIndex(ctx)
		_, moved := errors.AsType[*batchlog.MovedError](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case moved && !left:
			b.log.Error("store has moved", "err", err, "hint", "stop this receiver")
			left = true
		case moved:
		case errors.Is(err, durable.ErrFault):
			b.recordFault(err)
			return err
		case err != nil && !failed:
			b.log.Warn("could not copy the index", "err", err)
		case err == nil && failed:
			b.log.Info("index copied again")
		}
		failed = err != nil && !moved
		select {
		case <-ctx.Done():
			return nil
		case <-b.appended:
		case <-tick.C:
		}
	}
}

// CopyIndex completes the copy of the index in the data directory once. Then it returns a
// [*batchlog.MovedError] if the store has left the bucket.
func (b *Backend) CopyIndex(ctx context.Context) error {
	err := b.index.CatchUp(ctx)
	if err != nil && b.index.Moved() == nil {
		return err
	}
	if err := b.copy.CatchUpTo(ctx, b.index); err != nil {
		return err
	}
	return err
}

// Recover does nothing: what a crash has left is found by the next attempt of the sender.
func (b *Backend) Recover(context.Context, func(bytes int)) error { return nil }

// Alive reports true: an object store that does not answer is no reason to start again.
func (b *Backend) Alive(context.Context) bool { return true }

// CheckStorage returns an error if the data directory can no longer be trusted.
func (b *Backend) CheckStorage() error {
	if b.faulted.Load() {
		return errFaulted
	}
	return nil
}

var errFaulted = errors.New("the disk of data_dir has failed, and nothing is acknowledged any more")

// checkTimeout bounds a request that only tests whether the object store answers, and checkedFor how
// long its result is used.
const (
	checkTimeout = 5 * time.Second
	checkedFor   = 5 * time.Second
)

// CheckSpace returns an error if uploads would be refused, because the store has left the bucket, the object
// store does not answer or data_dir has no space for parts of archives.
func (b *Backend) CheckSpace() error {
	if err := errors.Join(b.index.Moved(), b.checkSpool()); err != nil {
		return fmt.Errorf("uploads are refused: %w", err)
	}
	b.checkMu.Lock()
	defer b.checkMu.Unlock()
	if time.Since(b.checkedAt) < checkedFor {
		return b.checkErr
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	_, b.checkErr = b.bucket.Stat(ctx, identityName)
	if b.checkErr != nil {
		b.checkErr = fmt.Errorf("uploads are refused: the object store does not answer: %w", b.checkErr)
	}
	b.checkedAt = time.Now()
	return b.checkErr
}

// checkSpool refuses uploads in parts while the disk has no space for one.
func (b *Backend) checkSpool() error {
	if b.opts.Data == nil {
		return nil
	}
	free, err := b.opts.Data.FreeSpace()
	if err != nil || free.IsUnknown() || free.Bytes >= b.opts.MinFree+b.minPart {
		return nil
	}
	return wire.Refuse(wire.Full, "the receiver has no space for parts of archives")
}

// Faults receives the first storage fault.
func (b *Backend) Faults() <-chan error { return b.faults }

// HandleFault ends the daemon if err is a storage fault of the data directory, and returns the error for
// the sender.
func (b *Backend) HandleFault(err error) error {
	if errors.Is(err, durable.ErrFault) {
		b.recordFault(err)
	}
	return b.forSender(err)
}

func (b *Backend) recordFault(err error) {
	if !b.faulted.Swap(true) {
		b.faults <- err
	}
}

// Uploads returns the limiter of uploads.
func (b *Backend) Uploads() *admission.Limiter { return &b.uploads }

// CountArchives returns the number of archives of a host, by the copy of the index.
func (b *Backend) CountArchives(host episode.Name, _ time.Time) (n int64, changedAt time.Time, counted bool, err error) {
	return b.copy.CountArchives(host), time.Time{}, true, nil
}
