package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"cis490/internal/durable"
	"cis490/internal/index"
	"cis490/internal/store"
)

// rowsPerWrite is how many rows a backfill appends at once. Reading their archives takes
// far longer. A backfill that is killed loses at most these.
const rowsPerWrite = 256

// dryRunRows is how many rows a dry run shows.
const dryRunRows = 5

// BackfillReport has the counts of a [Backfill].
type BackfillReport struct {
	Scanned  int64 `json:"scanned"`         // stored files that are not in flight
	Indexed  int64 `json:"already_indexed"` // of these, those that have a row
	Missing  int64 `json:"to_backfill"`     // of these, those that had none
	Written  int64 `json:"backfilled"`      // rows appended
	Bad      int64 `json:"bad"`             // files and names that got no row
	Underway int64 `json:"underway"`        // files whose row the receiver has yet to append
	// Expanding is how many archives were decoded in part only, see [Options.Expanding].
	Expanding int64       `json:"expanding,omitzero"`
	Rows      []index.Row `json:"-"` // of a dry run: the first that would be written
	More      int64       `json:"-"` // of a dry run: files without a row beyond those
}

// Backfill appends a row for each stored file that has none. It may run beside a live
// receiver or another backfill: no key gets a second row. A file that does not decode, or
// does not have the digest in its attribute, is passed to opts.Bad and gets no row; others
// do. Backfill returns [ErrNoEpisodes] if there is no store. After another error, the rows
// that are reported as written stay.
func Backfill(ctx context.Context, opts Options) (BackfillReport, error) {
	w, err := openWalk(opts)
	if err != nil {
		return BackfillReport{}, err
	}
	defer w.Close()
	b := &backfillRun{walk: w}
	defer b.close()
	for files, err := range w.allBatches(ctx, b.reportWalkError) {
		if err != nil {
			return b.report, err
		}
		if err := b.runBatch(ctx, files); err != nil {
			return b.report, err
		}
	}
	b.report.Expanding = b.partiallyDecoded
	return b.report, nil
}

type backfillRun struct {
	*walk
	report BackfillReport
	files  batch        // the present one
	rows   []index.Row  // to append
	cursor index.Cursor // position in the index, for the present batch

	dir *durable.Dir // of the index; nil until there is something to write
	out *index.Writer
}

func (b *backfillRun) close() {
	if b.out != nil {
		b.out.Close() // every append was synced
		b.dir.Close()
	}
}

// runBatch does the files of one batch. The index is read after the files were listed: a
// file with one link had its row by then.
func (b *backfillRun) runBatch(ctx context.Context, files batch) error {
	b.files, b.cursor = files, index.Cursor{}
	in, err := openIndex(b.opts.Index)
	if err != nil {
		return err
	}
	defer in.close()
	if _, err := b.cursor.Advance(ctx, in, b.countRow); err != nil {
		return err
	}
	missing := []*walkEntry{}
	for i := range files {
		switch e := &files[i]; {
		case e.rows > 0:
			b.report.Indexed++
		case e.InFlight:
			b.report.Underway++
			continue
		default:
			b.report.Missing++
			missing = append(missing, e)
			if !b.opts.DryRun || b.report.Missing <= dryRunRows {
				b.countTotal(e.Object)
			}
		}
		b.report.Scanned++
	}
	b.reportTotal(true)
	for _, e := range missing {
		if err := b.addRow(ctx, e); err != nil {
			return err
		}
	}
	return b.writeRows(ctx)
}

// countRow counts the rows of the batch's keys. One that lacks other members counts too: a
// second would be a duplicate, and [Verify] reports the first.
func (b *backfillRun) countRow(_ int64, row index.Row, _ error) {
	if e := b.files.findEntry(row.Key); e != nil {
		e.rows++
	}
}

// addRow adds the row of a file to those to append.
func (b *backfillRun) addRow(ctx context.Context, e *walkEntry) error {
	if b.opts.DryRun && len(b.report.Rows) == dryRunRows {
		b.report.More++
		return nil
	}
	row, err := b.makeRow(ctx, e.Object)
	b.reportChecked()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, durable.ErrFault):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return nil // quarantined or removed meanwhile
	case err != nil:
		b.reportBad(fmt.Errorf("%s: %w", b.Path(e.Key), err))
	case b.opts.DryRun:
		b.report.Rows = append(b.report.Rows, row)
	default:
		b.rows = append(b.rows, row)
	}
	if len(b.rows) < rowsPerWrite {
		return nil
	}
	return b.writeRows(ctx)
}

// makeRow reads a file and returns its row.
func (b *backfillRun) makeRow(ctx context.Context, o store.Object) (index.Row, error) {
	got, err := b.readArchive(ctx, o)
	if err != nil {
		return index.Row{}, err
	}
	if got.Size != o.Size {
		return index.Row{}, fmt.Errorf("had %d bytes when it was listed and %d when it was read", o.Size, got.Size)
	}
	if !o.Digest.IsZero() && got.Digest != o.Digest {
		return index.Row{}, &DigestError{got.Digest, o.Digest, fmt.Sprintf("its sha256 is %s, and %s was received", got.Digest, o.Digest)}
	}
	row := index.Row{
		ReceivedAt: o.ReceivedAt,
		Key:        o.Key,
		SHA256:     got.Digest,
		Size:       got.Size,
		Commit:     b.readMetaCommit(o.Key),
		Backfilled: true,
	}
	return row, row.Validate()
}

// writeRows appends the rows, except those that other processes have appended meanwhile.
func (b *backfillRun) writeRows(ctx context.Context) error {
	if len(b.rows) == 0 {
		return nil
	}
	if err := b.openWriter(); err != nil {
		return err
	}
	written := int64(0)
	err := b.out.Update(func(r io.ReaderAt) ([]index.Row, error) {
		// Lines that are not rows may have been cut, and rows of other processes may be in
		// their place now.
		b.cursor.Rewind()
		if _, err := b.cursor.Advance(ctx, r, b.countRow); err != nil {
			return nil, err
		}
		var missing []index.Row
		for _, row := range b.rows {
			if b.files.findEntry(row.Key).rows == 0 {
				missing = append(missing, row)
			}
		}
		b.rows = b.rows[:0]
		written = int64(len(missing))
		return missing, nil
	})
	if err == nil {
		b.report.Written += written
	}
	return err
}

func (b *backfillRun) openWriter() error {
	if b.out != nil {
		return nil
	}
	dir, err := durable.Open(filepath.Dir(b.opts.Index))
	if err != nil {
		return err
	}
	out, err := index.OpenWriter(dir, filepath.Base(b.opts.Index), b.opts.Notify)
	if err != nil {
		dir.Close()
		return err
	}
	b.dir, b.out = dir, out
	return nil
}

func (b *backfillRun) reportBad(err error) {
	b.report.Bad++
	if b.opts.Bad != nil {
		b.opts.Bad(err)
	}
}

// reportWalkError reports a name that is not a stored archive, unless it does not even look
// like one: [Verify] reports those.
func (b *backfillRun) reportWalkError(err error) {
	if stray, ok := errors.AsType[*store.StrayError](err); ok && !strings.HasSuffix(stray.Path, store.Suffix) {
		return
	}
	b.reportBad(err)
}
