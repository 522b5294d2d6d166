package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"cis490/internal/durable"
	"cis490/internal/store"
)

// chunk is how many rows a backfill writes at once. Reading their archives
// takes long beside it, and what a killed backfill loses is one chunk.
const chunk = 256

// shown is how many rows a dry run shows.
const shown = 5

// BackfillReport says what [Backfill] found and did.
type BackfillReport struct {
	Scanned  int64 `json:"scanned"`         // stored files that the receiver has settled
	Indexed  int64 `json:"already_indexed"` // of these, those that have a row
	Missing  int64 `json:"to_backfill"`     // of these, those that had none
	Written  int64 `json:"backfilled"`      // rows appended
	Bad      int64 `json:"bad"`             // files and names that were given no row
	Underway int64 `json:"underway"`        // files left to the receiver, which owes them their row
	// Expanding is how many archives were decoded in part only, see [Options.Expanding].
	Expanding int64 `json:"expanding,omitzero"`
	Rows      []Row `json:"-"` // of a dry run: the first that would be written
	More      int64 `json:"-"` // of a dry run: files without a row beyond those
}

// Backfill appends a row for each stored file that has none, also beside a live
// receiver or another backfill: no key gets a second row. A file that does not
// decode, or is not what its attribute says was received, goes to opts.Bad and
// gets no row; the others are done. It returns [ErrNoEpisodes] if the store is
// not there. After another error the rows reported as written stay.
func Backfill(ctx context.Context, opts Options) (BackfillReport, error) {
	t, err := openTree(opts)
	if err != nil {
		return BackfillReport{}, err
	}
	defer t.Close()
	b := &backfill{tree: t}
	defer b.close()
	for files, err := range t.batches(ctx, b.odd) {
		if err != nil {
			return b.report, err
		}
		if err := b.batch(ctx, files); err != nil {
			return b.report, err
		}
	}
	b.report.Expanding = b.partly
	return b.report, nil
}

type backfill struct {
	*tree
	report BackfillReport
	files  batch  // the present one
	rows   []Row  // the present chunk
	seen   cursor // how far the index was read for the present batch

	dir *durable.Dir // of the index, once there is something to write
	out *appender
}

func (b *backfill) close() {
	if b.out != nil {
		b.out.close() // every append was synced
		b.dir.Close()
	}
}

// batch does the files of one batch. The index is read after the files were
// listed: a file with one link had its row by then.
func (b *backfill) batch(ctx context.Context, files batch) error {
	b.files, b.seen = files, cursor{}
	in, err := openSource(b.opts.Index)
	if err != nil {
		return err
	}
	defer in.close()
	if _, err := b.seen.advance(ctx, in, b.mark); err != nil {
		return err
	}
	missing := []*entry{}
	for i := range files {
		switch e := &files[i]; {
		case e.rows > 0:
			b.report.Indexed++
		case e.Underway:
			b.report.Underway++
			continue
		default:
			b.report.Missing++
			missing = append(missing, e)
		}
		b.report.Scanned++
	}
	for _, e := range missing {
		if err := b.add(ctx, e); err != nil {
			return err
		}
	}
	return b.flush(ctx)
}

// mark counts the rows of the batch's keys. A row that says too little else is
// still one: a second would be a duplicate, and [Verify] tells of the first.
func (b *backfill) mark(_ int64, row Row, _ error) {
	if e := b.files.find(row.Key()); e != nil {
		e.rows++
	}
}

func (b *backfill) add(ctx context.Context, e *entry) error {
	if b.opts.DryRun && len(b.report.Rows) == shown {
		b.report.More++
		return nil
	}
	row, err := b.row(ctx, e.Object)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, durable.ErrFault):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return nil // set aside or taken away meanwhile
	case err != nil:
		b.bad(fmt.Errorf("%s: %w", b.Path(e.Key), err))
	case b.opts.DryRun:
		b.report.Rows = append(b.report.Rows, row)
	default:
		b.rows = append(b.rows, row)
	}
	if len(b.rows) < chunk {
		return nil
	}
	return b.flush(ctx)
}

// row reads a file and makes its row.
func (b *backfill) row(ctx context.Context, o store.Object) (Row, error) {
	got, err := b.examine(ctx, o)
	if err != nil {
		return Row{}, err
	}
	if got.Size != o.Size {
		return Row{}, fmt.Errorf("had %d bytes when it was listed and %d when it was read", o.Size, got.Size)
	}
	if !o.Digest.IsZero() && got.Digest != o.Digest {
		return Row{}, fmt.Errorf("%w: its sha256 is %s, and %s was received", errBytes, got.Digest, o.Digest)
	}
	row := Row{
		ReceivedAt: o.ReceivedAt,
		Host:       o.Key.Host,
		Episode:    o.Key.Name,
		SHA256:     got.Digest,
		Size:       got.Size,
		Commit:     b.commit(o.Key),
		Backfilled: true,
	}
	return row, row.valid()
}

// flush appends the chunk without the rows that others wrote meanwhile. Under
// the lock nobody appends, so what the index says then is final.
func (b *backfill) flush(ctx context.Context) error {
	if len(b.rows) == 0 {
		return nil
	}
	if err := b.open(); err != nil {
		return err
	}
	return b.out.locked(func() error {
		if err := b.out.catchUp(); err != nil {
			return err
		}
		// Garbage lines that were read may have been cut, and rows of others
		// may stand there now.
		b.seen.pos = b.seen.kept
		if _, err := b.seen.advance(ctx, b.out.log, b.mark); err != nil {
			return err
		}
		var lines []byte
		n := int64(0)
		for _, row := range b.rows {
			if b.files.find(row.Key()).rows == 0 {
				lines = row.Append(lines)
				n++
			}
		}
		b.rows = b.rows[:0]
		if n == 0 {
			return nil
		}
		if err := b.out.append(lines); err != nil {
			return fmt.Errorf("append %d rows to %s: %w", n, b.opts.Index, err)
		}
		b.report.Written += n
		return nil
	})
}

func (b *backfill) open() error {
	if b.out != nil {
		return nil
	}
	dir, err := durable.Open(filepath.Dir(b.opts.Index))
	if err != nil {
		return err
	}
	out, err := openAppender(dir, filepath.Base(b.opts.Index), b.opts.Notify)
	if err != nil {
		dir.Close()
		return err
	}
	b.dir, b.out = dir, out
	return nil
}

func (b *backfill) bad(err error) {
	b.report.Bad++
	if b.opts.Bad != nil {
		b.opts.Bad(err)
	}
}

// odd takes what the walk could not make an object of. What does not even
// look like an archive is none of ours: [Verify] names it.
func (b *backfill) odd(err error) {
	if stray, ok := errors.AsType[*store.StrayError](err); ok && !strings.HasSuffix(stray.Path, store.Suffix) {
		return
	}
	b.bad(err)
}
