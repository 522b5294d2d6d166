package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// verifiedAttr names the attribute that [verified] packs.
const verifiedAttr = "verified"

// verified says when a file was last read from the disk, had its digest, and
// passed the reader's check. Of a copy that took the attribute along it says nothing.
type verified receipt

// checked ends the attribute: receivers before 2026-11-28 looked at the digest
// alone, and what they noted counts for nothing.
const checked = 1

func (v verified) encode() []byte { return append(receipt(v).encode(), checked) }

func parseVerified(b []byte) (verified, bool) {
	if len(b) == 0 || b[len(b)-1] != checked {
		return verified{}, false
	}
	r, ok := parseReceipt(b[:len(b)-1])
	return verified(r), ok
}

// verifiedAt returns when the open file, which carries d, was last verified, or
// zero if that is not known.
func verifiedAt(f *os.File, d digest.Digest, inode uint64) (time.Time, error) {
	b, err := durable.Attr(f, verifiedAttr)
	if errors.Is(err, durable.ErrNoAttr) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	v, ok := parseVerified(b)
	if !ok || d.IsZero() || v.digest != d || v.inode != inode {
		return time.Time{}, nil
	}
	return v.arrived, nil
}

// ErrUnreadable says that the disk does not give the bytes of a stored file.
var ErrUnreadable = errors.New("the disk does not give the stored bytes")

// ErrUnfit says that a stored file has the bytes that came, and that they are not
// what they should be all the same.
var ErrUnfit = errors.New("its bytes are those that came, and are no good")

// A Reading says how [Reader.ReadBack] reads.
type Reading struct {
	// Pace may slow it down; nil does not.
	Pace func(io.Reader) io.Reader
	// Check looks at the bytes while they are read, and need not read them all.
	// What it has against them makes them unfit. Nil lets all pass.
	Check func(io.Reader) error
}

// errMoved says that another file took the name while one was read.
var errMoved = fmt.Errorf("it was put in another's place meanwhile: %w", fs.ErrNotExist)

// ReadBack reads the archive under key from the disk, past the page cache, and
// sees whether its bytes are the ones of d, or of the digest that it carries if
// d is zero, and whether they pass the check. If they do, their time is noted at
// the file and returned with the object.
//
// ReadBack returns [ErrDamaged] if they are others, [ErrUnreadable] if there are
// none, [ErrUnfit] if the check has something against them, and an error wrapping
// [fs.ErrNotExist] if there is no such archive any more. What was noted of an
// earlier time is then taken back. One wrong reading is no proof: cables and memory
// make mistakes too.
func (r *Reader) ReadBack(ctx context.Context, key episode.Key, d digest.Digest, how Reading) (Object, error) {
	dir, err := r.episodes.OpenDir(string(key.Host))
	if err != nil {
		return Object{}, err
	}
	defer dir.Close()
	f, err := dir.Open(file(key.Name))
	if err != nil {
		return Object{}, err
	}
	defer f.Close()
	o, err := r.stat(dir, key)
	if err != nil {
		return o, err
	}
	inode, err := durable.Inode(f)
	if err != nil {
		return o, err
	}
	if d.IsZero() {
		d = o.Digest
	}
	got, n, unfit, err := r.read(ctx, dir, file(key.Name), how)
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	// The open file keeps its inode's number: a name that still has it had it
	// all along.
	if now, serr := dir.Lstat(file(key.Name)); serr != nil || now.Inode() != inode {
		return o, errors.Join(errMoved, serr)
	}
	if err != nil {
		return o, errors.Join(fmt.Errorf("%s: %w: %w", r.Path(key), ErrUnreadable, err), unverify(f))
	}
	if n != o.Size || !d.IsZero() && got != d {
		return o, errors.Join(fmt.Errorf("%s: %w", r.Path(key), ErrDamaged), unverify(f))
	}
	if unfit != nil {
		o.Digest, o.VerifiedAt = got, time.Time{}
		return o, errors.Join(fmt.Errorf("%s: %w: %w", r.Path(key), ErrUnfit, unfit), unverify(f))
	}
	o.Digest, o.VerifiedAt = got, time.Now().UTC()
	if d.IsZero() {
		return o, nil // nobody has said what it should be
	}
	return o, mark(f, verifiedAttr, verified{got, o.VerifiedAt, inode}.encode())
}

// read hashes a file and has it checked. Errors of the disk are not faults here: a
// sector that is lost is what is looked for.
func (r *Reader) read(ctx context.Context, dir *durable.Dir, name string, how Reading) (d digest.Digest, n int64, unfit, err error) {
	open := dir.OpenUncached
	if r.Uncached != nil {
		open = func(name string) (io.ReadCloser, error) { return r.Uncached(dir, name) }
	}
	f, err := open(name)
	if err != nil {
		return d, 0, nil, err
	}
	defer f.Close()
	var from io.Reader = &cancelled{ctx, f}
	if how.Pace != nil {
		from = how.Pace(from)
	}
	w := digest.NewWriter(io.Discard)
	seen := &watched{r: io.TeeReader(from, w)}
	if how.Check != nil {
		unfit = how.Check(seen)
	}
	if seen.err == nil {
		io.Copy(io.Discard, seen) // what the check has not asked for
	}
	d, n = w.Sum()
	return d, n, unfit, seen.err
}

// watched remembers an error of its source, which who reads from it may report as
// his own.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// unverify takes back that a file was verified.
func unverify(f *os.File) error {
	if _, err := durable.Attr(f, verifiedAttr); errors.Is(err, durable.ErrNoAttr) {
		return nil
	}
	return mark(f, verifiedAttr, nil)
}

// mark sets an attribute that may as well be missing. It is not synced: what is
// lost of it is read once more.
func mark(f *os.File, name string, value []byte) error {
	err := durable.SetAttr(f, name, value)
	if errors.Is(err, durable.ErrNoAttr) || errors.Is(err, fs.ErrPermission) || isFull(err) {
		return nil
	}
	return err
}
