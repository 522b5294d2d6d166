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

// verified says when a file was last read from the disk and had its digest. Of
// a copy that took the attribute along it says nothing.
type verified struct {
	digest digest.Digest
	at     time.Time
	inode  uint64
}

func (v verified) encode() []byte {
	return receipt{v.digest, v.at, v.inode}.encode()
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
	v, ok := parseReceipt(b)
	if !ok || d.IsZero() || v.digest != d || v.inode != inode {
		return time.Time{}, nil
	}
	return v.arrived, nil
}

// ErrUnreadable says that the disk does not give the bytes of a stored file.
var ErrUnreadable = errors.New("the disk does not give the stored bytes")

// errMoved says that another file took the name while one was read.
var errMoved = fmt.Errorf("it was put in another's place meanwhile: %w", fs.ErrNotExist)

// ReadBack reads the archive under key from the disk, past the page cache, and
// sees whether its bytes are the ones of d, or of the digest that it carries if
// d is zero. Pace, if it is not nil, may slow the reading down. If the bytes are
// right, their time is noted at the file and returned with the object.
//
// ReadBack returns [ErrDamaged] if they are others, [ErrUnreadable] if there are
// none, and an error wrapping [fs.ErrNotExist] if there is no such archive any
// more. What was noted of an earlier time is then taken back. One wrong reading
// is no proof: cables and memory make mistakes too.
func (r *Reader) ReadBack(ctx context.Context, key episode.Key, d digest.Digest, pace func(io.Reader) io.Reader) (Object, error) {
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
	got, n, err := r.read(ctx, dir, file(key.Name), pace)
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
	o.Digest, o.VerifiedAt = got, time.Now().UTC()
	if d.IsZero() {
		return o, nil // nobody has said what it should be
	}
	return o, mark(f, verifiedAttr, verified{got, o.VerifiedAt, inode}.encode())
}

// read hashes a file. Errors of the disk are not faults here: a sector that is
// lost is what is looked for.
func (r *Reader) read(ctx context.Context, dir *durable.Dir, name string, pace func(io.Reader) io.Reader) (digest.Digest, int64, error) {
	open := dir.OpenUncached
	if r.Uncached != nil {
		open = func(name string) (io.ReadCloser, error) { return r.Uncached(dir, name) }
	}
	f, err := open(name)
	if err != nil {
		return digest.Digest{}, 0, err
	}
	defer f.Close()
	var from io.Reader = &cancelled{ctx, f}
	if pace != nil {
		from = pace(from)
	}
	return digest.Of(from)
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
