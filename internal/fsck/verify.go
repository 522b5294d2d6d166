package fsck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/printable"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
)

// A FindingKind says what a [Finding] is.
type FindingKind string

// Kinds of findings.
const (
	FileWithoutRow FindingKind = "file-without-row" // repaired by Backfill
	RowWithoutFile FindingKind = "row-without-file"
	SizeDiffers    FindingKind = "size-differs"   // between the file and its row
	DigestDiffers  FindingKind = "digest-differs" // between what was received and its row
	DuplicateRow   FindingKind = "duplicate-row"  // a second row of a key that does not say repaired
	BadLine        FindingKind = "bad-line"       // of the index
	TornTail       FindingKind = "torn-tail"      // repaired by the next append
	Stray          FindingKind = "stray"          // a name in the store that is not an archive
	Unreadable     FindingKind = "unreadable"     // the file system returned an error
	Damaged        FindingKind = "damaged"        // an archive whose bytes do not match its row, or cannot be decoded
)

// A Finding is one difference between the index and the store.
type Finding struct {
	Kind    FindingKind  `json:"finding"`
	Host    episode.Name `json:"host_id,omitempty"`
	Episode episode.Name `json:"episode_id,omitempty"`
	Line    int64        `json:"line,omitempty"` // of the index, counted from 1
	Detail  string       `json:"detail"`
	// Digests are the digests that Detail contains.
	Digests []digest.Digest `json:"-"`
}

// VerifyReport has the counts of a [Verify].
type VerifyReport struct {
	Files    int64 `json:"files"`
	Rows     int64 `json:"rows"`
	Underway int64 `json:"underway"` // files whose row the receiver has yet to append
	Read     int64 `json:"read"`     // archives read and decoded
	Findings int64 `json:"findings"`
	// Expanding is how many of those read were decoded in part only, see [Options.Expanding].
	Expanding int64 `json:"expanding,omitzero"`
}

// Verify compares the rows of the index with the files of the store, both ways, and passes
// each difference to found. Beside a live receiver it looks twice before it reports: an
// upload in flight is not a finding. It changes nothing. It returns [ErrNoEpisodes] if there
// is no store.
func Verify(ctx context.Context, opts Options, found func(Finding)) (VerifyReport, error) {
	w, err := openWalk(opts)
	if err != nil {
		return VerifyReport{}, err
	}
	defer w.Close()
	in, err := openIndex(opts.Index)
	if err != nil {
		return VerifyReport{}, err
	}
	defer in.close()
	v := &verifier{walk: w, in: in, onFinding: found, firstBatch: true}
	for files, err := range w.allBatches(ctx, v.reportWalkError) {
		if err != nil {
			return v.report, err
		}
		if err := v.verifyBatch(ctx, files); err != nil {
			return v.report, err
		}
		v.firstBatch = false
	}
	v.report.Expanding = v.partiallyDecoded
	return v.report, nil
}

type verifier struct {
	*walk
	in         indexFile
	onFinding  func(Finding)
	report     VerifyReport
	files      batch
	firstBatch bool        // rows without a file in a batch are checked during the first
	absent     []absentRow // rows whose file was absent at the first look
}

// absentRow is a row whose file is looked for a second time.
type absentRow struct {
	key  episode.Key
	line int64
}

// maxAbsent is the maximum number of rows that wait for a second look.
const maxAbsent = 4096

// verifyBatch compares the files of one batch with their rows. They were listed before the
// index is read, so every file that was complete then has its row in it. Rows that were
// appended meanwhile are read after it.
func (v *verifier) verifyBatch(ctx context.Context, files batch) error {
	v.files = files
	for i := range files {
		if !files[i].InFlight {
			v.countTotal(files[i].Object)
		}
	}
	v.reportTotal(v.opts.Deep)
	c := index.Cursor{}
	if _, err := c.Advance(ctx, v.in, v.visitRow); err != nil {
		return err
	}
	end := c.Offset()
	if _, err := c.Advance(ctx, v.in, v.visitRow); err != nil {
		return err
	}
	for i := range files {
		if err := v.checkFile(ctx, &files[i]); err != nil {
			return err
		}
	}
	v.recheckAbsent()
	if v.firstBatch {
		return v.checkTail(ctx, c, end)
	}
	return nil
}

// checkTail looks a second time at the bytes after the last row: a row that was being
// appended is complete now, and a torn one is not.
func (v *verifier) checkTail(ctx context.Context, c index.Cursor, end int64) error {
	before := c.Offset()
	torn, err := c.Advance(ctx, v.in, func(int64, index.Row, error) {})
	if err == nil && torn && c.Offset() == before && end == before {
		v.reportFinding(Finding{Kind: TornTail, Line: c.Line() + 1, Detail: "bytes without a newline follow the last row; the next append or backfill completes a whole row with a newline, and saves and cuts anything else"})
	}
	return err
}

// visitRow is called for each line of the index.
func (v *verifier) visitRow(n int64, row index.Row, err error) {
	if v.firstBatch {
		v.report.Rows++
	}
	if err != nil && v.firstBatch {
		v.reportFinding(Finding{Kind: BadLine, Host: row.Key.Host, Episode: row.Key.Name, Line: n, Detail: err.Error()})
	}
	if v.opts.Host != "" && row.Key.Host != v.opts.Host {
		return
	}
	e := v.files.findEntry(row.Key)
	if e == nil {
		if v.firstBatch && err == nil {
			v.findFile(row.Key, n)
		}
		return
	}
	e.rows++
	if e.rows > 1 && !row.Repaired && err == nil {
		v.reportFinding(Finding{Kind: DuplicateRow, Host: row.Key.Host, Episode: row.Key.Name, Line: n, Detail: fmt.Sprintf("the key has a row in line %d already", e.line)})
	}
	e.line, e.size, e.digest = n, row.Size, row.SHA256
	if err != nil {
		e.digest = digest.Digest{}
	}
}

// findFile looks for the file of a row that is not in the present batch.
func (v *verifier) findFile(key episode.Key, n int64) {
	if v.opts.Present {
		return
	}
	_, err := v.Stat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.absent = append(v.absent, absentRow{key, n})
		if len(v.absent) == maxAbsent {
			v.recheckAbsent()
		}
	case err != nil:
		v.addUnreadableOrHost(key, err)
	}
}

// addUnreadableOrHost reports a row whose file cannot be read. If the directory of its host
// cannot be listed there may be many: the host is reported once.
func (v *verifier) addUnreadableOrHost(key episode.Key, err error) {
	for o, err := range v.Reader.HostObjects(key.Host) {
		if err != nil && o.Key.Host != "" && v.markUnlistable(key.Host) {
			v.reportFinding(Finding{Kind: Unreadable, Host: key.Host, Detail: err.Error()})
		}
		break
	}
	if !v.unlistable[key.Host] {
		v.addUnreadable(key, err)
	}
}

// recheckAbsent reports the rows whose file is still absent.
func (v *verifier) recheckAbsent() {
	for _, a := range v.absent {
		_, err := v.Stat(a.key)
		if errors.Is(err, fs.ErrNotExist) {
			v.reportFinding(Finding{Kind: RowWithoutFile, Host: a.key.Host, Episode: a.key.Name, Line: a.line, Detail: v.Path(a.key) + " does not exist"})
		}
	}
	v.absent = v.absent[:0]
}

// checkFile compares a file with its rows.
func (v *verifier) checkFile(ctx context.Context, e *walkEntry) error {
	v.report.Files++
	// Even if its upload is complete now, its row may have been appended after the last look.
	if e.InFlight {
		v.report.Underway++
		return nil
	}
	defer v.reportChecked()
	if len(e.findDifferences()) > 0 {
		o, err := v.Stat(e.Key) // it may have been repaired or removed meanwhile
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if e.rows > 0 {
				v.absent = append(v.absent, absentRow{e.Key, e.line})
			}
			return nil
		case err != nil:
			v.addUnreadable(e.Key, err)
			return nil
		case o.InFlight:
			v.report.Underway++
			return nil
		}
		e.Object = o
	}
	for _, f := range e.findDifferences() {
		v.reportFinding(f)
	}
	if v.opts.Deep {
		return v.verifyArchive(ctx, e)
	}
	return nil
}

// findDifferences returns the findings about a file and its last row.
func (e *walkEntry) findDifferences() []Finding {
	f := Finding{Host: e.Key.Host, Episode: e.Key.Name, Line: e.line}
	if e.rows == 0 {
		f.Kind, f.Detail = FileWithoutRow, "`receiver index backfill` makes its row"
		return []Finding{f}
	}
	if e.digest.IsZero() {
		return nil // its row was reported as a bad line
	}
	var all []Finding
	if e.Size != e.size {
		f.Kind, f.Detail = SizeDiffers, fmt.Sprintf("the file has %d bytes, the row says %d", e.Size, e.size)
		all = append(all, f)
	}
	if !e.Digest.IsZero() && e.Digest != e.digest {
		f.Kind, f.Detail = DigestDiffers, fmt.Sprintf("%s was received, the row says %s", e.Digest, e.digest)
		f.Digests = []digest.Digest{e.Digest, e.digest}
		all = append(all, f)
	}
	return all
}

// verifyArchive reads an archive, a second time if it is corrupt: it may have been repaired
// during the first reading.
func (v *verifier) verifyArchive(ctx context.Context, e *walkEntry) error {
	v.report.Read++
	err := v.verifyBytes(ctx, e)
	if errors.Is(err, errCorrupt) {
		err = v.verifyBytes(ctx, e)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errCorrupt):
		f := Finding{Kind: Damaged, Host: e.Key.Host, Episode: e.Key.Name, Line: e.line, Detail: err.Error()}
		if differ, ok := errors.AsType[*DigestError](err); ok {
			f.Digests = []digest.Digest{differ.Got, differ.Want}
		}
		v.reportFinding(f)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		v.addUnreadable(e.Key, err)
	}
	return nil
}

func (v *verifier) verifyBytes(ctx context.Context, e *walkEntry) error {
	got, err := v.readArchive(ctx, e.Object)
	want := e.digest
	if want.IsZero() {
		want = e.Digest
	}
	if err == nil && !want.IsZero() && got.Digest != want {
		return &DigestError{got.Digest, want, fmt.Sprintf("its sha256 is %s, not %s", got.Digest, want)}
	}
	return err
}

// reportWalkError reports a name in the store that is not an archive or cannot be read.
func (v *verifier) reportWalkError(err error) {
	if stray, ok := errors.AsType[*store.StrayError](err); ok {
		v.reportFinding(Finding{Kind: Stray, Detail: stray.Error()})
		return
	}
	v.reportFinding(Finding{Kind: Unreadable, Detail: printable.Text(err.Error())})
}

func (v *verifier) addUnreadable(key episode.Key, err error) {
	v.reportFinding(Finding{Kind: Unreadable, Host: key.Host, Episode: key.Name, Detail: err.Error()})
}

func (v *verifier) reportFinding(f Finding) {
	v.report.Findings++
	v.onFinding(f)
}
