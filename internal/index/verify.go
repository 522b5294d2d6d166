package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/printable"
	"cis490/internal/store"
)

// A Kind says what a [Finding] is.
type Kind string

// Kinds of findings.
const (
	FileWithoutRow Kind = "file-without-row" // mended by Backfill
	RowWithoutFile Kind = "row-without-file"
	SizeDiffers    Kind = "size-differs"   // between the file and its row
	DigestDiffers  Kind = "digest-differs" // between what was received and its row
	DuplicateRow   Kind = "duplicate-row"  // a second row of a key that is no repair
	BadLine        Kind = "bad-line"       // of the index
	TornTail       Kind = "torn-tail"      // mended by the next append
	Stray          Kind = "stray"          // a name in the store that is no archive
	Unreadable     Kind = "unreadable"     // what the file system refused
	Damaged        Kind = "damaged"        // an archive whose bytes are not what its row says, or are no archive
)

// A Finding is one thing that is not as it should be.
type Finding struct {
	Kind    Kind         `json:"finding"`
	Host    episode.Name `json:"host_id,omitempty"`
	Episode episode.Name `json:"episode_id,omitempty"`
	Line    int64        `json:"line,omitempty"` // of the index, counted from 1
	Detail  string       `json:"detail"`
}

// VerifyReport sums up what [Verify] looked at.
type VerifyReport struct {
	Files    int64 `json:"files"`
	Rows     int64 `json:"rows"`
	Underway int64 `json:"underway"` // files that the receiver is about to write the row of
	Read     int64 `json:"read"`     // archives read and decoded
	Findings int64 `json:"findings"`
	// Expanding is how many of those read were decoded in part only, see [Options.Expanding].
	Expanding int64 `json:"expanding,omitzero"`
}

// Verify compares the rows of the index with the files of the store, both
// ways, and hands each difference to found. Beside a live receiver it looks
// twice before it speaks: what was on its way at the first look is no finding.
// It changes nothing. It returns [ErrNoEpisodes] if the store is not there.
func Verify(ctx context.Context, opts Options, found func(Finding)) (VerifyReport, error) {
	t, err := openTree(opts)
	if err != nil {
		return VerifyReport{}, err
	}
	defer t.Close()
	in, err := openSource(opts.Index)
	if err != nil {
		return VerifyReport{}, err
	}
	defer in.close()
	v := &verifier{tree: t, in: in, found: found, first: true}
	for files, err := range t.batches(ctx, v.odd) {
		if err != nil {
			return v.report, err
		}
		if err := v.batch(ctx, files); err != nil {
			return v.report, err
		}
		v.first = false
	}
	v.report.Expanding = v.partly
	return v.report, nil
}

type verifier struct {
	*tree
	in     source
	found  func(Finding)
	report VerifyReport
	files  batch
	first  bool     // the batch during which the rows themselves are looked at
	absent []absent // rows whose file was not there at the first look
}

// absent is a row that is looked at again.
type absent struct {
	key  episode.Key
	line int64
}

// maxAbsent bounds what waits for a second look.
const maxAbsent = 4096

// batch looks at the files of one batch. They were listed before the index is
// read, so every file that had been settled then has its row in it; what the
// index got meanwhile is read behind it.
func (v *verifier) batch(ctx context.Context, files batch) error {
	v.files = files
	c := cursor{}
	if _, err := c.advance(ctx, v.in, v.visit); err != nil {
		return err
	}
	end := c.pos
	if _, err := c.advance(ctx, v.in, v.visit); err != nil {
		return err
	}
	for i := range files {
		if err := v.judge(ctx, &files[i]); err != nil {
			return err
		}
	}
	v.recheck()
	if v.first {
		return v.tail(ctx, c, end)
	}
	return nil
}

// tail looks a second time at the bytes behind the last row: a row that was on
// its way has arrived, a torn one stays.
func (v *verifier) tail(ctx context.Context, c cursor, end int64) error {
	before := c.pos
	torn, err := c.advance(ctx, v.in, func(int64, Row, error) {})
	if err == nil && torn && c.pos == before && end == before {
		v.say(Finding{Kind: TornTail, Line: c.line + 1, Detail: "bytes without a newline follow the last row; the next append or backfill completes a whole row with a newline, and saves and cuts anything else"})
	}
	return err
}

// visit takes a line of the index.
func (v *verifier) visit(n int64, row Row, err error) {
	if v.first {
		v.report.Rows++
	}
	if err != nil && v.first {
		v.say(Finding{Kind: BadLine, Host: row.Host, Episode: row.Episode, Line: n, Detail: err.Error()})
	}
	if v.opts.Host != "" && row.Host != v.opts.Host {
		return
	}
	e := v.files.find(row.Key())
	if e == nil {
		if v.first && err == nil {
			v.expect(row.Key(), n)
		}
		return
	}
	if e.rows++; e.rows > 1 && !row.Repaired && err == nil {
		v.say(Finding{DuplicateRow, row.Host, row.Episode, n, fmt.Sprintf("the key has a row in line %d already", e.line)})
	}
	e.line, e.size, e.digest = n, row.Size, row.SHA256
	if err != nil {
		e.digest = digest.Digest{}
	}
}

// expect looks for the file of a row that is not of the present batch.
func (v *verifier) expect(key episode.Key, n int64) {
	if v.opts.Present {
		return
	}
	_, err := v.Stat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if v.absent = append(v.absent, absent{key, n}); len(v.absent) == maxAbsent {
			v.recheck()
		}
	case err != nil:
		v.expectUnreadable(key, err)
	}
}

// expectUnreadable reports a row whose file cannot be looked at. Of a host whose folder
// cannot be listed there may be many: it is reported once.
func (v *verifier) expectUnreadable(key episode.Key, err error) {
	for o, err := range v.Reader.Host(key.Host) {
		if err != nil && o.Key.Host != "" && v.refuse(key.Host) {
			v.say(Finding{Kind: Unreadable, Host: key.Host, Detail: err.Error()})
		}
		break
	}
	if !v.refused[key.Host] {
		v.unreadable(key, err)
	}
}

func (v *verifier) recheck() {
	for _, a := range v.absent {
		_, err := v.Stat(a.key)
		if errors.Is(err, fs.ErrNotExist) {
			v.say(Finding{RowWithoutFile, a.key.Host, a.key.Name, a.line, v.Path(a.key) + " does not exist"})
		}
	}
	v.absent = v.absent[:0]
}

// judge compares a file with its rows.
func (v *verifier) judge(ctx context.Context, e *entry) error {
	v.report.Files++
	// Settled or not by now: its row may have come after the last look.
	if e.Underway {
		v.report.Underway++
		return nil
	}
	if len(e.differences()) > 0 {
		o, err := v.Stat(e.Key) // it may have been repaired or taken away meanwhile
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if e.rows > 0 {
				v.absent = append(v.absent, absent{e.Key, e.line})
			}
			return nil
		case err != nil:
			v.unreadable(e.Key, err)
			return nil
		case o.Underway:
			v.report.Underway++
			return nil
		}
		e.Object = o
	}
	for _, f := range e.differences() {
		v.say(f)
	}
	if v.opts.Deep {
		return v.deep(ctx, e)
	}
	return nil
}

// differences returns the findings about a file and its last row.
func (e *entry) differences() []Finding {
	f := Finding{Host: e.Key.Host, Episode: e.Key.Name, Line: e.line}
	if e.rows == 0 {
		f.Kind, f.Detail = FileWithoutRow, "`receiver index backfill` makes its row"
		return []Finding{f}
	}
	if e.digest.IsZero() {
		return nil // its row is a bad line, and was named as that
	}
	var all []Finding
	if e.Size != e.size {
		f.Kind, f.Detail = SizeDiffers, fmt.Sprintf("the file has %d bytes, the row says %d", e.Size, e.size)
		all = append(all, f)
	}
	if !e.Digest.IsZero() && e.Digest != e.digest {
		f.Kind, f.Detail = DigestDiffers, fmt.Sprintf("%s was received, the row says %s", e.Digest, e.digest)
		all = append(all, f)
	}
	return all
}

// deep reads an archive. Bad bytes are read twice, as the file may have been
// repaired under the first look.
func (v *verifier) deep(ctx context.Context, e *entry) error {
	v.report.Read++
	err := v.bytes(ctx, e)
	if errors.Is(err, errBytes) {
		err = v.bytes(ctx, e)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errBytes):
		v.say(Finding{Damaged, e.Key.Host, e.Key.Name, e.line, err.Error()})
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		v.unreadable(e.Key, err)
	}
	return nil
}

func (v *verifier) bytes(ctx context.Context, e *entry) error {
	got, err := v.examine(ctx, e.Object)
	want := e.digest
	if want.IsZero() {
		want = e.Digest
	}
	if err == nil && !want.IsZero() && got.Digest != want {
		return fmt.Errorf("%w: its sha256 is %s, not %s", errBytes, got.Digest, want)
	}
	return err
}

func (v *verifier) odd(err error) {
	if stray, ok := errors.AsType[*store.StrayError](err); ok {
		v.say(Finding{Kind: Stray, Detail: stray.Error()})
		return
	}
	v.say(Finding{Kind: Unreadable, Detail: printable.Text(err.Error())})
}

func (v *verifier) unreadable(key episode.Key, err error) {
	v.say(Finding{Kind: Unreadable, Host: key.Host, Episode: key.Name, Detail: err.Error()})
}

func (v *verifier) say(f Finding) {
	v.report.Findings++
	v.found(f)
}
