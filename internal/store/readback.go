package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/device"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// verifiedAttr names the attribute that [verified] packs.
const verifiedAttr = "verified"

// verified says when a file was last read from the disk, had its digest, and
// passed the reader's check. Of a copy that took the attribute along, and of the same
// file on a copy of the disk, it says nothing.
type verified struct {
	digest   digest.Digest
	at       time.Time
	file     device.ID // [device.Identity.OnDisk]
	contents digest.Digest
}

// verifiedVersion ends the attribute. Receivers before 2026-11-28 did not decode and
// wrote none; those before 2026-11-29 knew a file by its inode number and wrote 1. What
// they noted counts for nothing, and they ignore what is noted now.
const verifiedVersion = 2

func (v verified) encode() []byte {
	b := binary.BigEndian.AppendUint64(v.digest[:], uint64(v.at.UnixNano()))
	b = append(append(b, v.file[:]...), v.contents[:]...)
	return append(b, verifiedVersion)
}

func parseVerified(b []byte) (verified, bool) {
	const size = digest.Size + 8 + len(device.ID{}) + digest.Size + 1
	if len(b) != size || b[size-1] != verifiedVersion {
		return verified{}, false
	}
	rest := b[digest.Size:]
	return verified{
		digest:   digest.Digest(b[:digest.Size]),
		at:       time.Unix(0, int64(binary.BigEndian.Uint64(rest))).UTC(),
		file:     device.ID(rest[8:]),
		contents: digest.Digest(rest[8+len(device.ID{}):]),
	}, true
}

// readVerified returns when the open file, which carries d, was last verified, and the
// digest of its contents, or zero if that is not known.
func readVerified(f *os.File, d digest.Digest, id device.Identity) (time.Time, digest.Digest, error) {
	b, err := durable.Attr(f, verifiedAttr)
	if errors.Is(err, durable.ErrNoAttr) {
		return time.Time{}, digest.Digest{}, nil
	}
	if err != nil {
		return time.Time{}, digest.Digest{}, err
	}
	v, ok := parseVerified(b)
	if !ok || d.IsZero() || v.digest != d || v.file != id.OnDisk {
		return time.Time{}, digest.Digest{}, nil
	}
	return v.at, v.contents, nil
}

// ErrUnreadable says that the disk does not give the bytes of a stored file.
var ErrUnreadable = errors.New("the disk does not give the stored bytes")

// ErrDamaged says that the bytes of a stored file are not those of its digest.
var ErrDamaged = errors.New("the stored bytes do not have their sha256")

// ErrUndecodable says that a stored file has the bytes that came, and that they are not
// what they should be all the same.
var ErrUndecodable = errors.New("its bytes are those that came, and are no good")

// ErrUndecided says that a check stopped before it knew whether the bytes are good.
var ErrUndecided = errors.New("not decoded to the end")

// A Reading says how a stored archive is read.
type Reading struct {
	// Pace may slow it down; nil does not.
	Pace func(io.Reader) io.Reader
	// Check looks at the bytes while they are read, and need not read them all. It
	// returns the digest of what they contain, or zero if it does not compute one.
	// Its error makes the bytes unfit, unless it wraps [ErrUndecided]. Nil lets all pass.
	Check func(io.Reader) (digest.Digest, error)
	// Remember, unless nil, is called after Check with its error. It returns how many
	// bytes were decoded, and whether the outcome shall be noted at the file, so that
	// Check is not called for these bytes again. See [Decoded].
	Remember func(unfit error) (decoded int64, ok bool)
	// Progress, unless nil, is called with the number of bytes of each read.
	Progress func(bytes int)

	resume   bool           // go on where an earlier recovery was interrupted
	position *resumableRead // nil unless recover is set
}

// Content is what [Reader.Read] found in a file.
type Content struct {
	Digest   digest.Digest // of its bytes
	Size     int64
	Contents digest.Digest // as [Reading.Check] returned it
	CheckErr error         // as [Reading.Check] returned it
}

// errReplaced says that another file took the name while one was read.
var errReplaced = fmt.Errorf("it was put in another's place meanwhile: %w", fs.ErrNotExist)

// ReadBack reads the archive under key from the disk and compares its digest with
// d, or with the digest that it carries if d is zero. If it is the same, and the
// bytes pass the check, the time is noted at the file and returned with the object.
// Without a check nothing is noted: the bytes may be what was sent, and no archive.
//
// Bytes whose check is expensive are checked once ([Reading.Remember]). If the check
// leaves open whether they are good ([ErrUndecided]), what was noted before stays.
//
// ReadBack returns [ErrDamaged] if the bytes are others, [ErrUnreadable] if the disk
// does not give them, [ErrUndecodable] if the check has something against them, and an
// error wrapping [fs.ErrNotExist] if there is no such archive any more. What was
// noted of an earlier time is then taken back. One wrong reading is no proof: cables
// and memory make mistakes too.
func (r *Reader) ReadBack(ctx context.Context, key episode.Key, d digest.Digest, how Reading) (Object, error) {
	dir, err := r.episodes.OpenDir(string(key.Host))
	if err != nil {
		return Object{}, readError(err)
	}
	defer dir.Close()
	f, err := dir.Open(fileName(key.Name))
	if err != nil {
		return Object{}, readError(err)
	}
	defer f.Close()
	o, err := r.stat(dir, key)
	if err != nil {
		return o, readError(err)
	}
	before, err := durable.StatFile(f)
	if err != nil {
		return o, readError(err)
	}
	if d.IsZero() {
		d = o.Digest
	}
	if how.Check != nil {
		if o.Decoded, err = readDecoded(f, d); err != nil {
			return o, readError(err)
		}
		if !o.Decoded.Digest.IsZero() {
			how.Check, how.Remember = o.Decoded.check, nil
		}
	}
	if how.resume {
		if how.position, err = r.newResumableRead(f, o); err != nil {
			return o, readError(err)
		}
	}
	got, err := r.read(ctx, dir, fileName(key.Name), how)
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	// The open file keeps its inode's number: a name that still has it had it
	// all along.
	if now, serr := dir.Lstat(fileName(key.Name)); serr != nil || !now.Same(before) {
		return o, errors.Join(errReplaced, readError(serr))
	}
	return r.recordResult(f, o, d, how, got, err)
}

// recordResult judges what was read of the open file of o, which should have the digest d if
// that is not zero, and notes the outcome at the file. Unreadable is the disk's error, or
// nil.
func (r *Reader) recordResult(f *os.File, o Object, d digest.Digest, how Reading, got Content, unreadable error) (Object, error) {
	err := unreadable
	if err == nil || errors.Is(err, ErrUnreadable) {
		err = r.compare(o, d, got, err)
	}
	if err != nil && how.position != nil {
		err = errors.Join(err, how.position.discard())
	}
	if (err == nil || errors.Is(err, ErrUndecodable)) && how.Remember != nil && !d.IsZero() {
		if rerr := storeDecoded(f, got, how); rerr != nil {
			return o, rerr
		}
	}
	switch {
	case errors.Is(err, ErrUndecided):
		o.Digest = got.Digest
		return o, nil
	case errors.Is(err, ErrUndecodable):
		o.Digest, o.VerifiedAt, o.Contents = got.Digest, time.Time{}, digest.Digest{}
		return o, errors.Join(err, clearVerified(f))
	case errors.Is(err, ErrUnreadable) || errors.Is(err, ErrDamaged):
		return o, errors.Join(err, clearVerified(f))
	case err != nil:
		return o, err
	}
	o.Digest = got.Digest
	if how.Check == nil {
		return o, nil
	}
	o.VerifiedAt, o.Contents = time.Now().UTC(), got.Contents
	if d.IsZero() {
		return o, nil // nobody has said what it should be
	}
	return o, r.markVerified(f, o)
}

// compare returns what is wrong with an archive that was read, and should have the
// digest d if that is not zero. The disk's error, if there was one, comes first.
func (r *Reader) compare(o Object, d digest.Digest, got Content, unreadable error) error {
	switch {
	case unreadable != nil:
		return fmt.Errorf("%s: %w", r.Path(o.Key), unreadable)
	case got.Size != o.Size || !d.IsZero() && got.Digest != d:
		return fmt.Errorf("%s: %w", r.Path(o.Key), ErrDamaged)
	case errors.Is(got.CheckErr, ErrUndecided):
		return fmt.Errorf("%s: %w", r.Path(o.Key), got.CheckErr)
	case got.CheckErr != nil:
		return fmt.Errorf("%s: %w: %w", r.Path(o.Key), ErrUndecodable, got.CheckErr)
	}
	return nil
}

// markVerified notes at the open file of o that it was read back.
func (r *Reader) markVerified(f *os.File, o Object) error {
	id, err := r.Volumes.Identify(f)
	if err != nil {
		return err
	}
	return setAttrBestEffort(f, verifiedAttr, verified{o.Digest, o.VerifiedAt, id.OnDisk, o.Contents}.encode())
}

// storeDecoded notes at an open file what its check came to, if how wants that.
func storeDecoded(f *os.File, got Content, how Reading) error {
	n, ok := how.Remember(got.CheckErr)
	if !ok {
		return nil
	}
	return setAttrBestEffort(f, decodedAttr, Decoded{got.Digest, got.Contents, n, got.CheckErr != nil}.encode())
}

// Read reads the archive under key from the disk and returns what its bytes are
// now, whatever its attributes say. It notes nothing. The error wraps
// [ErrUnreadable] if the disk does not give them.
func (r *Reader) Read(ctx context.Context, key episode.Key, how Reading) (Content, error) {
	d, err := r.episodes.OpenDir(string(key.Host))
	if err != nil {
		return Content{}, err
	}
	defer d.Close()
	return r.read(ctx, d, fileName(key.Name), how)
}

// read is the one way in which the bytes of an archive are read back: past the page
// cache, hashed, and checked on the way.
func (r *Reader) read(ctx context.Context, dir *durable.Dir, name string, how Reading) (Content, error) {
	open := dir.OpenUncached
	if r.Uncached != nil {
		open = func(name string) (io.ReadCloser, error) { return r.Uncached(dir, name) }
	}
	f, err := open(name)
	if err != nil {
		return Content{}, asUnreadable(err)
	}
	defer f.Close()
	src := &contextReader{ctx: ctx, r: f, progress: how.Progress}
	if how.Pace != nil {
		src.r = how.Pace(f)
	}
	w := digest.NewWriter(io.Discard)
	if how.position != nil {
		w = how.position.startHash(f)
	}
	hashed := io.TeeReader(src, w)
	if how.position != nil {
		hashed = how.position.saving(hashed, w)
	}
	got := Content{}
	if how.Check != nil {
		got.Contents, got.CheckErr = how.Check(hashed)
	}
	if src.err == nil {
		io.Copy(io.Discard, hashed) // what the check has not asked for
	}
	got.Digest, got.Size = w.Sum()
	switch {
	case ctx.Err() != nil:
		return got, ctx.Err()
	case how.position != nil && how.position.err != nil:
		return got, how.position.err
	case src.err != nil:
		return got, asUnreadable(src.err)
	}
	return got, nil
}

// contextReader is a file that is read until a context ends. It remembers the error that
// ended it, which a decoder may report as its own.
type contextReader struct {
	ctx      context.Context
	r        io.Reader
	progress func(int)
	err      error
}

func (s *contextReader) Read(p []byte) (int, error) {
	if s.err = s.ctx.Err(); s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	if s.progress != nil && n > 0 {
		s.progress(n)
	}
	return n, err
}

// unreadableError is a disk's error about one file. It is no [durable.ErrFault],
// though the file system may have reported one: a lost sector of one archive is what
// a reading looks for.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string { return fmt.Sprintf("%v: %v", ErrUnreadable, e.err) }

// Is reports whether e is [ErrUnreadable] or what the disk reported.
func (e *unreadableError) Is(target error) bool {
	return target == ErrUnreadable || target != durable.ErrFault && errors.Is(e.err, target)
}

// asUnreadable returns err as an [ErrUnreadable], unless it says nothing of the disk.
func asUnreadable(err error) error {
	if durable.IsShortage(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ELOOP) {
		return err
	}
	return &unreadableError{err}
}

// readError returns an error that was met while nothing was written. A bad sector below one
// file or directory is no [durable.ErrFault]: it must not end the process for the others.
func readError(err error) error {
	if errors.Is(err, durable.ErrFault) {
		return &unreadableError{err}
	}
	return err
}

// clearVerified takes back that a file was verified.
func clearVerified(f *os.File) error {
	if _, err := durable.Attr(f, verifiedAttr); errors.Is(err, durable.ErrNoAttr) {
		return nil
	}
	return setAttrBestEffort(f, verifiedAttr, nil)
}

// setAttrBestEffort sets an attribute that may as well be missing. It is not synced: what is
// lost of it is read once more.
func setAttrBestEffort(f *os.File, name string, value []byte) error {
	err := durable.SetAttr(f, name, value)
	if errors.Is(err, durable.ErrNoAttr) || errors.Is(err, fs.ErrPermission) || durable.IsFull(err) {
		return nil
	}
	return err
}

// FailsVerification reports whether err says that a stored archive is corrupt, unreadable
// or undecodable.
func FailsVerification(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, ErrUnreadable) || errors.Is(err, ErrUndecodable)
}
