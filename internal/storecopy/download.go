package storecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/index"
	"cis490/internal/s3backend"
	"cis490/internal/store"
)

// copyArchives stores the archives of rows, and returns those that still have a mark of a missing row.
func (c *toDisk) copyArchives(ctx context.Context, rows []index.Row) ([]store.Object, error) {
	stored := make([]store.Object, len(rows))
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, row := range lastRows(rows) {
		g.Go(func() error {
			var err error
			stored[i], err = c.copyRow(work, row)
			if err != nil {
				return fmt.Errorf("copy %s/%s: %w", row.Key.Host, row.Key.Name, err)
			}
			return nil
		})
	}
	err := g.Wait()
	marked := stored[:0]
	for _, o := range stored {
		if o.Key.Name != "" {
			marked = append(marked, o)
		}
	}
	return marked, err
}

// lastRows yields the last row of each key, with its number.
func lastRows(rows []index.Row) func(func(int, index.Row) bool) {
	last := make(map[[2]string]int)
	for i, row := range rows {
		last[[2]string{string(row.Key.Host), string(row.Key.Name)}] = i
	}
	return func(yield func(int, index.Row) bool) {
		for i, row := range rows {
			if last[[2]string{string(row.Key.Host), string(row.Key.Name)}] == i && !yield(i, row) {
				return
			}
		}
	}
}

// copyRow stores the archive of a row, unless a later row of its key has another one. It returns the
// object if its row must be marked as durable.
func (c *toDisk) copyRow(ctx context.Context, row index.Row) (store.Object, error) {
	o, isNew, err := c.copyOrFind(ctx, row)
	if isNew {
		err = c.noteMissing()
	}
	return o, err
}

// copyOrFind is copyRow, and reports whether the archive is missing or damaged in the bucket and was not
// in a former run.
func (c *toDisk) copyOrFind(ctx context.Context, row index.Row) (o store.Object, isNew bool, err error) {
	err = again(ctx, func() error {
		o, err = c.copyArchive(ctx, row)
		return err
	})
	switch {
	case errors.Is(err, errMissing):
		isNew = c.absent.set(row, missing)
	case errors.Is(err, errDamaged):
		isNew = c.absent.set(row, damaged)
	default:
		return o, false, err
	}
	return store.Object{}, isNew, nil
}

// errMissing and errDamaged say that the bucket does not have an archive, or has it with other bytes.
var (
	errMissing = errors.New("the bucket does not have the archive")
	errDamaged = errors.New("the bucket has the archive with other bytes")
)

func (c *toDisk) copyArchive(ctx context.Context, row index.Row) (store.Object, error) {
	a, err := c.from.Find(ctx, row.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return store.Object{}, errMissing
	}
	if err != nil || a.Digest != row.SHA256 {
		return store.Object{}, err // superseded
	}
	o, err := c.findStored(ctx, row)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case store.FailsVerification(err):
		if err := c.to.Quarantine(row.Key); err != nil {
			return o, err
		}
	case err != nil:
		return o, err
	case o.Digest == row.SHA256 && o.Size == row.Size:
		c.absent.set(row, "")
		if o.Indexed {
			return store.Object{}, nil
		}
		o.ReceivedAt = row.ReceivedAt
		return o, nil
	default: // the disk had another one before; nothing is deleted
		if err := c.to.Quarantine(row.Key); err != nil {
			return o, err
		}
	}
	err = c.download(ctx, row, a)
	if errors.Is(err, errDamaged) { // or the way here has damaged it
		err = c.download(ctx, row, a)
	}
	if err != nil {
		return store.Object{}, err
	}
	c.absent.set(row, "")
	c.noteArchive(row.Size)
	return store.Object{Key: row.Key, Size: row.Size, Digest: row.SHA256, ReceivedAt: row.ReceivedAt}, nil
}

// findStored returns the archive that the disk has for a row. It reads what this copy has not just stored:
// its host may have sent it again because the disk has damaged it. It returns an error for which
// [store.FailsVerification] is true if the bytes are not those that the disk promises.
func (c *toDisk) findStored(ctx context.Context, row index.Row) (store.Object, error) {
	o, err := c.to.Stat(row.Key)
	if err != nil || !o.Indexed && !c.returning && o.Digest == row.SHA256 {
		return o, err
	}
	return c.to.ReadBack(ctx, row.Key, digest.Digest{}, store.Reading{Progress: c.opts.Progress})
}

// download stores an archive as an upload is stored.
func (c *toDisk) download(ctx context.Context, row index.Row, a s3backend.ExportedArchive) error {
	r, err := c.from.Open(ctx, a)
	if errors.Is(err, fs.ErrNotExist) {
		return errMissing
	}
	if err != nil {
		return err
	}
	defer r.Close()
	u, err := c.to.CreateUpload(row.Key)
	if err != nil {
		return err
	}
	w := digest.NewWriter(u)
	from := &countingReader{c.limiter.LimitStream(ctx, io.LimitReader(r, row.Size+1)), c.opts.Progress}
	if _, err := io.Copy(w, from); err != nil {
		return errors.Join(err, u.Discard())
	}
	if d, n := w.Sum(); d != row.SHA256 || n != row.Size {
		return errors.Join(errDamaged, u.Discard())
	}
	err = u.Commit(row.SHA256, row.ReceivedAt)
	if errors.Is(err, durable.ErrFault) { // the name may exist
		return errors.Join(err, u.Abandon())
	}
	if err != nil {
		return errors.Join(err, u.Discard())
	}
	return u.Abandon() // with its second link, which marks the missing row
}

type countingReader struct {
	r        io.Reader
	progress func(int)
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.progress != nil && n > 0 {
		r.progress(n)
	}
	return n, err
}

// copyMissing looks again for the archives that the bucket did not have.
func (c *toDisk) copyMissing(ctx context.Context) error {
	for _, row := range c.absent.sorted() {
		a, err := c.from.Find(ctx, row.Key)
		if err == nil && a.Digest != row.SHA256 {
			c.absent.set(row, "") // superseded
			continue
		}
		o, _, err := c.copyOrFind(ctx, row) // it has been counted
		if err == nil && o.Key.Name != "" {
			err = c.to.MarkIndexed(o)
		}
		if err != nil {
			return err
		}
	}
	return c.absent.save(c.data)
}
