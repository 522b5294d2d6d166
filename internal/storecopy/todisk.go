package storecopy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/index"
	"cis490/internal/s3backend"
	"cis490/internal/sharedhosts"
	"cis490/internal/store"
)

// toDisk copies a store from a bucket.
type toDisk struct {
	*run
	data   *durable.Dir
	in     bucket.Bucket
	from   *s3backend.Export
	to     *store.Store
	log    *durable.Log // the index on the disk
	absent *missingRows
	copyID string // of this copy
	// returning reports that the disk had the store before, so it has archives that no copy has stored.
	returning bool
	ids       []string // that the store gets here because it was lost at other places

	ends []int64 // of the batches in the bucket that are copied, or were before
}

// ToDisk copies the store in a bucket into a data directory, which is empty or has an earlier copy of it, or
// had the store before it moved into the bucket. No receiver may run with the directory. It stays the
// caller's.
func ToDisk(ctx context.Context, in bucket.Bucket, data *durable.Dir, opts Options) (report Report, err error) {
	c := &toDisk{run: newRun(opts), data: data, in: in}
	unlock, err := lockData(data, true, opts.Holder)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := c.open(ctx); err != nil || c.report.Moved {
		return c.report, errors.Join(err, c.closeAll())
	}
	defer func() { err = errors.Join(err, c.closeAll()) }()
	err = c.copyAll(ctx)
	return c.finished(), err
}

func (c *toDisk) open(ctx context.Context) error {
	var err error
	if c.from, err = s3backend.OpenExport(ctx, c.in); err != nil {
		return err
	}
	id := c.from.Identity()
	c.report.Store = id.ID
	if name, err := datadir.ReadStore(c.data); err == nil && name.MovedTo == "" && name.CopiedFrom == "" &&
		(name.ID == id.ID || slices.Contains(name.Replaces, id.ID)) {
		c.copyID, c.report.Store = name.CopyID, name.ID
		if c.report.Moved, err = c.isMoved(ctx); c.report.Moved || err != nil {
			return err
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		if err := c.checkEmpty(); err != nil {
			return err
		}
	}
	name, err := datadir.BeginCopy(c.data, id.ID, id.CreatedAt, c.opts.From)
	if err != nil {
		return err
	}
	c.copyID, c.returning = name.CopyID, name.MovedTo != ""
	if c.to, err = store.Open(c.data); err != nil {
		return err
	}
	c.opened = append(c.opened, c.to)
	if err := c.dropUnfinished(ctx); err != nil {
		return err
	}
	if c.absent, err = readMissing(c.data); err != nil {
		return err
	}
	if c.log, err = c.data.OpenLog(datadir.IndexFile, 0o640); err == nil {
		c.opened = append(c.opened, c.log)
	}
	return err
}

// isMoved reports whether an earlier run has moved the store here.
func (c *toDisk) isMoved(ctx context.Context) (bool, error) {
	ends, fenced, err := c.findBatches(ctx)
	if err != nil || !fenced {
		return false, err
	}
	st, err := c.data.Lstat(datadir.IndexFile)
	c.report.IndexBytes = st.Size()
	if err != nil {
		return false, err
	}
	return len(ends) == 0 || st.Size() >= ends[len(ends)-1], nil
}

// checkEmpty returns an error if a directory without a store has something that one would have.
func (c *toDisk) checkEmpty() error {
	for _, name := range []string{batchlog.CopyStateName(datadir.IndexFile), datadir.IndexFile, "episodes"} {
		if _, err := c.data.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, fmt.Errorf("%s exists already and is of no copy: use an empty data_dir", c.data.Path(name)))
		}
	}
	return nil
}

// dropUnfinished removes the archives that a run did not receive to their end.
func (c *toDisk) dropUnfinished(ctx context.Context) error {
	for staged, err := range c.to.AllStaged() {
		if _, stray := errors.AsType[*store.StrayError](err); stray {
			continue // the receiver says so
		}
		if err != nil {
			return err
		}
		if _, committed, err := staged.Linked(ctx, nil); committed || store.FailsVerification(err) {
			continue // its row comes, or the receiver recovers it
		} else if err != nil {
			return err
		}
		if err := staged.Unlink(); err != nil {
			return err
		}
	}
	return nil
}

// findBatches returns where the batches end, and whether the log is fenced because the store moves here.
func (c *toDisk) findBatches(ctx context.Context) (ends []int64, fenced bool, err error) {
	ends, err = batchlog.Ends(ctx, c.in)
	moved, ok := errors.AsType[*batchlog.MovedError](err)
	switch {
	case err != nil && !ok:
		return ends, false, err
	case !ok && c.opts.Lost != "":
		return ends, false, errors.New("the store has not moved from this bucket, so no data_dir with it is lost: run this without --lost")
	case !ok:
		return ends, false, nil
	case moved.CopyID == c.copyID && moved.To == c.opts.To:
		c.ids = moved.Stores
		return ends, true, nil
	case moved.CopyID == c.opts.Lost && c.opts.Lost != "":
		return ends, false, nil
	case moved.To == c.opts.To:
		err = fmt.Errorf("%w: this is another data_dir than the one of this name into which it was copied", err)
	}
	return ends, false, fmt.Errorf("%w; if that data_dir is lost for good, see 'If the new disk is lost' in docs/scale-out.md: the id of its copy is %s", err, moved.CopyID)
}

// closeBucket fences the bucket, or takes over what the place that is lost had of it. [toDisk.copyRows] finds out
// whether another copy has done so before.
func (c *toDisk) closeBucket(ctx context.Context) error {
	return again(ctx, func() error {
		var err error
		if c.opts.Lost != "" {
			err = batchlog.TakeOver(ctx, c.in, c.opts.Lost, c.opts.To, c.copyID, rand.Text())
		} else {
			err = batchlog.Fence(ctx, c.in, int64(len(c.ends)), c.opts.To, c.copyID)
		}
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	})
}

func (c *toDisk) copyAll(ctx context.Context) error {
	fenced, err := c.copyRows(ctx)
	if err != nil {
		return err
	}
	if err := c.copyMissing(ctx); err != nil {
		return err
	}
	for _, row := range c.absent.sorted() {
		f := Finding{Finding: missing, Host: row.Key.Host, Episode: row.Key.Name, Detail: fmt.Sprintf("the bucket has no archive with the sha256 %s", row.SHA256)}
		if c.absent.damaged[row.Key] {
			f.Finding, f.Detail = damaged, fmt.Sprintf("the archive in the bucket does not have its sha256, %s, in two readings", row.SHA256)
		}
		c.reportFinding(f)
	}
	if !c.opts.Final {
		return nil
	}
	if len(c.absent.rows) > 0 && !c.opts.AcceptMissing {
		return ErrIncomplete
	}
	for !fenced {
		if err := c.closeBucket(ctx); err != nil {
			return err
		}
		// Rows may have come before the fence.
		if fenced, err = c.copyRows(ctx); err != nil {
			return err
		}
	}
	return c.handOver(ctx)
}

// copyRows copies the rows that the disk does not have, and reports whether no more can come.
func (c *toDisk) copyRows(ctx context.Context) (fenced bool, err error) {
	if c.ends, fenced, err = c.findBatches(ctx); err != nil {
		return false, err
	}
	next, err := c.findEnd(ctx)
	if err != nil {
		return false, err
	}
	for next <= int64(len(c.ends)) {
		if next, err = c.copyFrom(ctx, next); err != nil {
			return false, err
		}
	}
	c.report.IndexBytes, err = c.log.Size()
	return fenced, err
}

// findEnd returns the first batch that the disk does not have, or has only a part of. It compares what is
// before, as [toBucket.findEnd].
func (c *toDisk) findEnd(ctx context.Context) (int64, error) {
	size, err := c.log.Size()
	if err != nil {
		return 0, err
	}
	next := int64(1)
	for next <= int64(len(c.ends)) && c.ends[next-1] <= size {
		next++
	}
	if next > 1 {
		err = c.compareBatch(ctx, next-1)
	}
	if _, differs := errors.AsType[*differenceError](err); differs {
		for n := int64(1); n < next; n++ {
			if err := c.compareBatch(ctx, n); err != nil {
				return 0, err
			}
		}
	}
	if err == nil && next > int64(len(c.ends)) && size > c.start(next) {
		extra := make([]byte, min(size-c.start(next), maxBatchText))
		if _, err := c.log.ReadAt(extra, c.start(next)); err != nil {
			return 0, err
		}
		err = &differenceError{copied: line(extra)}
	}
	return next, err
}

// start returns where a batch begins.
func (c *toDisk) start(n int64) int64 {
	if n == 1 {
		return 0
	}
	return c.ends[n-2]
}

func (c *toDisk) compareBatch(ctx context.Context, n int64) error {
	text, err := batchlog.ReadBatch(ctx, c.in, n)
	if err != nil {
		return err
	}
	disk := make([]byte, len(text))
	if _, err := c.log.ReadAt(disk, c.start(n)); err != nil {
		return err
	}
	return compareTexts(text, disk)
}

// copyFrom copies the rows from a batch on, with their archives first, and returns the next batch.
func (c *toDisk) copyFrom(ctx context.Context, n int64) (int64, error) {
	rows, text, end, err := batchlog.ReadFrom(ctx, c.in, n, int64(len(c.ends)))
	if err != nil {
		return n, err
	}
	if end > int64(len(c.ends)) || c.ends[end-1]-c.start(n) != int64(len(text)) {
		return n, fmt.Errorf("%s has %d bytes, and the list of the bucket says otherwise", batchlog.Name(n), len(text))
	}
	stored, err := c.copyArchives(ctx, rows)
	// Also after an error, so that the next run does not count them again.
	if err = errors.Join(err, c.absent.save(c.data)); err == nil {
		err = c.appendRows(c.start(n), text)
	}
	if err != nil {
		return n, err
	}
	for _, o := range stored { // what is not marked is found by the start of the receiver
		if err := c.to.MarkIndexed(o); err != nil {
			return n, err
		}
	}
	for range rows {
		c.noteCopied()
	}
	return end + 1, nil
}

// maxAppend is how much is appended at once. The log expects no more.
const maxAppend = 256 << 10

// appendRows appends rows that begin at an offset, without those that a run which was killed has appended.
func (c *toDisk) appendRows(offset int64, text []byte) (err error) {
	if err := c.log.Lock(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.log.Unlock()) }()
	size, err := c.log.Size()
	if err != nil {
		return err
	}
	if size < offset || size > offset+int64(len(text)) {
		return errors.New("another process has changed the index: run this again")
	}
	had := make([]byte, size-offset)
	if _, err := c.log.ReadAt(had, offset); err != nil && len(had) > 0 {
		return err
	}
	if err := compareTexts(text[:len(had)], had); err != nil {
		return err
	}
	for text = text[len(had):]; len(text) > 0; {
		n := min(len(text), maxAppend)
		if err := c.log.Append(text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

// handOver makes the disk the store. The bucket is fenced.
func (c *toDisk) handOver(ctx context.Context) error {
	size, err := c.log.Size()
	if err != nil {
		return err
	}
	if n := len(c.ends); n > 0 && c.ends[n-1] != size || n == 0 && size > 0 {
		return fmt.Errorf("the index on the disk has %d bytes, which are not those of the bucket", size)
	}
	if err := c.data.WriteFile(index.BatchesName(datadir.IndexFile), index.EncodeBatchEnds(c.ends), 0o640); err != nil {
		return err
	}
	if err := c.receiveDisabled(ctx); err != nil {
		return err
	}
	name, err := datadir.EndCopy(ctx, c.data, c.from.Identity().Replaces, c.ids, c.opts.Holder)
	if err != nil {
		return err
	}
	c.report.Store, c.report.Moved = name.ID, true
	return nil
}

// receiveDisabled takes over the list of disabled hosts. What changes it in the bucket from here on fails.
func (c *toDisk) receiveDisabled(ctx context.Context) error {
	var number int64
	var newest []byte
	err := again(ctx, func() (err error) {
		number, newest, err = sharedhosts.NewList(c.in).Newest(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the list of disabled hosts: %w", err)
	}
	return datadir.ReceiveDisabled(ctx, c.data, number, newest, c.opts.Holder)
}
