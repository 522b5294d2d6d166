package storecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/index"
	"cis490/internal/s3backend"
	"cis490/internal/sharedhosts"
	"cis490/internal/store"
)

// toBucket copies a store from a disk.
type toBucket struct {
	*run
	data     *durable.Dir
	in       bucket.Bucket
	identity datadir.StoreName
	log      *durable.Log  // the index on the disk
	archives *store.Reader // nil if the disk has none
	to       *s3backend.Import

	former   []int64 // where batches ended in a bucket in which the store was before
	batches  int64   // in the bucket
	offset   int64   // where they end
	resuming bool    // the next batch may have been begun by a run that was killed
}

// ToBucket copies the store in data into a bucket. The directory stays the caller's. It returns a
// [*durable.LockedError] if another copy runs, or a receiver does and the run is final.
func ToBucket(ctx context.Context, data *durable.Dir, in bucket.Bucket, opts Options) (report Report, err error) {
	c := &toBucket{run: newRun(opts), data: data, in: in}
	unlock, err := lockData(data, opts.Final, opts.Holder)
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

// lockData takes the lock of a copy, and that of a receiver if none may run.
func lockData(data *durable.Dir, alone bool, holder string) (unlock func() error, err error) {
	copying, err := datadir.LockCopy(data, holder)
	if err != nil || !alone {
		if err == nil {
			unlock = copying.Unlock
		}
		return unlock, err
	}
	receiving, err := datadir.Lock(data, holder)
	if err != nil {
		return nil, errors.Join(err, copying.Unlock())
	}
	return func() error { return errors.Join(receiving.Unlock(), copying.Unlock()) }, nil
}

func (c *toBucket) open(ctx context.Context) error {
	var err error
	if c.identity, err = datadir.ReadStore(c.data); err != nil {
		return err
	}
	c.report.Store = c.identity.ID
	if c.identity.CopiedFrom != "" || c.identity.MovedTo != "" && c.identity.MovedTo != c.opts.To {
		return datadir.CheckHere(c.data.Path(""))
	}
	c.to, err = s3backend.OpenImport(ctx, c.in, c.identity.ID, c.identity.MovedCopy)
	if _, imported := errors.AsType[*s3backend.ImportedError](err); imported && c.identity.MovedTo == c.opts.To {
		c.report.Moved = true
		return nil
	}
	if err != nil {
		return err
	}
	if c.opts.Final { // as a start of the receiver would: a row that is whole gets its newline
		w, err := index.OpenWriter(c.data, datadir.IndexFile, c.opts.Notify)
		if err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	if c.log, err = c.data.OpenLog(datadir.IndexFile, 0o640); err != nil {
		return err
	}
	c.opened = append(c.opened, c.log)
	if err := c.readFormer(); err != nil {
		return err
	}
	c.archives, err = store.OpenReader(c.data.Path("episodes"))
	if errors.Is(err, fs.ErrNotExist) {
		c.archives = nil
		return nil
	}
	if err == nil {
		c.opened = append(c.opened, c.archives)
	}
	return err
}

func (c *toBucket) copyAll(ctx context.Context) error {
	if err := c.findEnd(ctx); err != nil {
		return err
	}
	if err := c.copyMissing(ctx); err != nil {
		return err
	}
	// Rows that are not on the disk yet may be lost at a power cut, and others take their place.
	end, err := wholeRows(c.log, c.log.SyncedSize())
	if err != nil {
		return err
	}
	if err := c.reportTotal(end); err != nil {
		return err
	}
	for c.offset < end {
		if err := c.copyBatch(ctx, end); err != nil {
			return err
		}
	}
	if err := c.reportFindings(ctx); err != nil || !c.opts.Final {
		return err
	}
	return c.handOver(ctx, end)
}

// findEnd finds where the bucket ends, and compares its last batch with the disk. That is enough, because
// rows never change. If it differs, all are compared, to name the first one.
func (c *toBucket) findEnd(ctx context.Context) error {
	ends, err := batchlog.Ends(ctx, c.in)
	if err != nil {
		return err
	}
	c.batches, c.resuming = int64(len(ends)), true
	if c.batches == 0 {
		return nil
	}
	c.offset = ends[c.batches-1]
	if err := c.compareBatch(ctx, ends, c.batches); err == nil {
		return nil
	} else if _, differs := errors.AsType[*differenceError](err); !differs {
		return err
	}
	for n := range c.batches {
		if err := c.compareBatch(ctx, ends, n+1); err != nil {
			return err
		}
	}
	return errors.New("the object store returns other bytes each time")
}

func (c *toBucket) compareBatch(ctx context.Context, ends []int64, n int64) error {
	text, err := batchlog.ReadBatch(ctx, c.in, n)
	if err != nil {
		return err
	}
	return compareRows(c.log, ends[n-1]-int64(len(text)), text)
}

// copyBatch copies the next rows, with their archives first.
func (c *toBucket) copyBatch(ctx context.Context, end int64) error {
	rows, text, err := c.readBatch(end)
	if err != nil {
		return err
	}
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, row := range rows {
		g.Go(func() error {
			if err := again(work, func() error { return c.copyRow(work, row) }); err != nil {
				return fmt.Errorf("copy %s/%s: %w", row.Key.Host, row.Key.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	err = again(ctx, func() error { return c.createBatch(ctx, text) })
	if err != nil {
		return err
	}
	c.batches, c.offset, c.resuming = c.batches+1, c.offset+int64(len(text)), false
	for range rows {
		c.noteCopied()
	}
	return nil
}

// readBatch returns the rows of the next batch. If the store was in a bucket before it has the same batches
// as there, because hosts remember them.
func (c *toBucket) readBatch(end int64) ([]placedRow, []byte, error) {
	if c.batches >= int64(len(c.former)) || c.former[c.batches] > end {
		return readRows(c.log, c.offset, end, maxBatchRows, maxBatchText)
	}
	rows, text, err := readRows(c.log, c.offset, c.former[c.batches], math.MaxInt, math.MaxInt)
	if err == nil && c.offset+int64(len(text)) != c.former[c.batches] {
		err = fmt.Errorf("%s is not of this index", index.BatchesName(datadir.IndexFile))
	}
	return rows, text, err
}

// readFormer reads where the batches ended in the bucket in which the store was before.
func (c *toBucket) readFormer() error {
	f, err := c.data.Open(index.BatchesName(datadir.IndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err == nil {
		c.former, err = index.ParseBatchEnds(b)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return nil
}

// createBatch creates the batch after the last one. It may exist: an answer was lost, or another copy runs,
// which has begun at another row.
func (c *toBucket) createBatch(ctx context.Context, text []byte) error {
	err := batchlog.CreateBatch(ctx, c.in, c.batches+1, text)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	theirs, err := batchlog.ReadBatch(ctx, c.in, c.batches+1)
	if err == nil && string(theirs) != string(text) {
		err = errors.New("another copy has copied these rows meanwhile: run it again")
	}
	return err
}

// copyRow copies the archive of a row, and commits it.
func (c *toBucket) copyRow(ctx context.Context, row placedRow) error {
	found, err := c.copyArchive(ctx, row.Row)
	if err != nil {
		return err
	}
	if found != "" {
		if err := c.noteMissing(); err != nil {
			return err
		}
		if err := c.to.NoteMissing(ctx, row.Row, row.offset); err != nil {
			return err
		}
	}
	return c.to.Commit(ctx, row.Row, row.offset, c.batches)
}

// copyArchive puts the archive of a row into the bucket, unless it is there. If the disk does not have it,
// it returns the finding.
func (c *toBucket) copyArchive(ctx context.Context, row index.Row) (string, error) {
	if c.resuming {
		if has, err := c.to.HasArchive(ctx, row); has || err != nil {
			return "", err
		}
	}
	if finding, err := c.examine(row); finding != "" || err != nil {
		return finding, err
	}
	f, err := c.archives.Open(row.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return missing, nil // quarantined meanwhile
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	from := c.newSource(ctx, f)
	err = c.to.PutArchive(ctx, row, from)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case from.err != nil && !durable.IsShortage(from.err):
		return damaged, nil // an error of the disk
	case errors.Is(err, bucket.ErrDigest):
		// Whose bytes are wrong? The object store judged those that it got.
		if d, n, err := digest.Of(f); err != nil || d != row.SHA256 || n != row.Size {
			return damaged, nil
		}
		return "", fmt.Errorf("the object store refuses bytes that are right: %w", errors.New(err.Error()))
	case err != nil:
		return "", err
	}
	c.noteArchive(row.Size)
	return "", nil
}

// examine returns a finding if the disk does not have the archive of a row, judged by its name, size and
// attributes.
func (c *toBucket) examine(row index.Row) (string, error) {
	if c.archives == nil {
		return missing, nil
	}
	o, err := c.archives.Stat(row.Key)
	_, stray := errors.AsType[*store.StrayError](err)
	switch {
	case errors.Is(err, fs.ErrNotExist), stray:
		return missing, nil
	case errors.Is(err, store.ErrUnreadable):
		return damaged, nil
	case err != nil:
		return "", err
	case !o.Digest.IsZero() && o.Digest != row.SHA256:
		return missing, nil // another one has taken its place
	case o.Size != row.Size:
		return damaged, nil
	}
	return "", nil
}

// copyMissing looks again for the archives that the disk did not have in earlier runs.
func (c *toBucket) copyMissing(ctx context.Context) error {
	rows, err := c.to.Missing(ctx)
	if err != nil {
		return err
	}
	for offset, row := range rows {
		err := again(ctx, func() error {
			found, err := c.copyArchive(ctx, row)
			if err != nil || found != "" {
				return err
			}
			return c.to.Found(ctx, offset)
		})
		if err != nil {
			return fmt.Errorf("copy %s/%s: %w", row.Key.Host, row.Key.Name, err)
		}
	}
	return nil
}

// reportFindings reports the archives that are missing in the bucket, in the order of their rows.
func (c *toBucket) reportFindings(ctx context.Context) error {
	c.report.IndexBytes = c.offset
	rows, err := c.to.Missing(ctx)
	if err != nil {
		return err
	}
	offsets := make([]int64, 0, len(rows))
	for offset := range rows {
		offsets = append(offsets, offset)
	}
	slices.Sort(offsets)
	for _, offset := range offsets {
		row := rows[offset]
		kind, err := c.examine(row)
		if err != nil {
			return err
		}
		f := Finding{Finding: kind, Host: row.Key.Host, Episode: row.Key.Name, Detail: fmt.Sprintf("the disk has no archive with the sha256 %s", row.SHA256)}
		if kind != missing {
			f.Finding, f.Detail = damaged, fmt.Sprintf("the archive on the disk does not have its sha256, %s, or cannot be read", row.SHA256)
		}
		c.reportFinding(f)
	}
	return nil
}

// handOver makes the bucket the store. The disk is given up before, so no two receivers can both
// acknowledge.
func (c *toBucket) handOver(ctx context.Context, end int64) (err error) {
	if c.report.Missing+c.report.Damaged > 0 && !c.opts.AcceptMissing {
		return ErrIncomplete
	}
	if err := c.log.Lock(); err != nil { // other commands append rows
		return err
	}
	defer func() { err = errors.Join(err, c.log.Unlock()) }()
	if size, err := c.log.Size(); err != nil || size != end {
		return errors.Join(err, errors.New("another command has appended rows to the index: run this one again"))
	}
	if _, err := datadir.CountDisabled(c.data.Path("")); err != nil { // while that can still be repaired here
		return err
	}
	name, err := datadir.MoveAway(ctx, c.data, c.identity.ID, c.opts.To, c.to.CopyID(), c.opts.Holder)
	if err != nil {
		return err
	}
	if err := datadir.CarryDisabled(ctx, c.data, sharedhosts.NewList(c.in), c.opts.Holder); err != nil {
		return fmt.Errorf("%w; run this command again: no receiver starts before", err)
	}
	id := s3backend.StoreIdentity{ID: name.ID, CreatedAt: name.CreatedAt, Replaces: name.Replaces}
	if err := again(ctx, func() error { return c.to.Finish(ctx, id, end, c.batches) }); err != nil {
		return fmt.Errorf("%w; run this command again: no receiver starts before", err)
	}
	c.report.Moved = true
	return nil
}

// reportTotal counts what is to be copied.
func (c *toBucket) reportTotal(end int64) error {
	if c.opts.Total == nil {
		return nil
	}
	rows, sum := int64(0), int64(0)
	for row, err := range index.ReadRows(io.NewSectionReader(c.log, c.offset, end-c.offset)) {
		if _, bad := errors.AsType[*index.LineError](err); bad {
			break // copyBatch says so
		}
		if err != nil {
			return err
		}
		rows, sum = rows+1, sum+row.Size
	}
	c.opts.Total(rows, sum)
	return nil
}
