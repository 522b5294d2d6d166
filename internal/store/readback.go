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

// verifiedAttr is the attribute that has a [verifiedRecord].
const verifiedAttr = "verified"

// verifiedRecord says when a file was last read from the disk, had its digest, and passed the
// check. It does not count for a copy that has the attribute too, nor on a copy of the disk.
type verifiedRecord struct {
	Digest     digest.Digest
	VerifiedAt int64     // Unix time in nanoseconds
	File       device.ID // [device.Identity.OnDisk]
	Contents   digest.Digest
	Version    uint8 // verifiedVersion
}

// verifiedVersion is the version of now. Receivers before 2026-11-28 did not decode
// and wrote none. Those before 2026-11-29 identified a file by its inode number and wrote 1.
// Their attributes do not count, and they ignore those of now.
const verifiedVersion = 2

// readVerified returns when the open file with the digest d was last verified, and the digest
// of its contents, or zero if that is not known.
func readVerified(f *os.File, d digest.Digest, id device.Identity) (time.Time, digest.Digest, error) {
	b, err := readAttr(f, verifiedAttr)
	v, ok := parseRecord[verifiedRecord](b)
	if err != nil || !ok || v.Version != verifiedVersion || d.IsZero() || v.Digest != d || v.File != id.OnDisk {
		return time.Time{}, digest.Digest{}, err
	}
	return time.Unix(0, v.VerifiedAt).UTC(), v.Contents, nil
}

// ErrUnreadable says that the disk does not return the bytes of a stored file.
var ErrUnreadable = errors.New("the disk does not give the stored bytes")

// ErrCorrupt says that a stored file is corrupt: its bytes do not have its digest.
var ErrCorrupt = errors.New("the stored bytes do not have their sha256")

// ErrUndecodable says that a stored file has its digest, and that its check failed.
var ErrUndecodable = errors.New("archive matches its digest but cannot be decoded")

// ErrUndecided says that a check stopped before its result was known.
var ErrUndecided = errors.New("not decoded to the end")

// A Reading says how a stored archive is read.
type Reading struct {
	// Pace, unless nil, wraps the file to slow down the reading.
	Pace func(io.Reader) io.Reader
	// Check, unless nil, checks the bytes while they are read, and need not read all. It
	// returns the digest of what they contain, or zero if it does not compute one. The
	// archive is undecodable if it returns an error that does not wrap [ErrUndecided].
	Check func(io.Reader) (digest.Digest, error)
	// Remember, unless nil, is called after Check with its error. It returns the number of
	// decoded bytes, and whether the result is to be recorded at the file, so that Check is
	// not called for these bytes again. See [Decoded].
	Remember func(checkErr error) (decoded int64, ok bool)
	// Progress, unless nil, is called with the number of bytes of each read.
	Progress func(bytes int)

	resume   bool           // continue where an earlier recovery was interrupted
	position *resumableRead // nil unless resume is set
}

// Content is what [Reader.Read] found in a file.
type Content struct {
	Digest   digest.Digest // of its bytes
	Size     int64
	Contents digest.Digest // as [Reading.Check] returned it
	CheckErr error         // as [Reading.Check] returned it
}

// errReplaced says that another file got the name during a reading.
var errReplaced = fmt.Errorf("it was put in another's place meanwhile: %w", fs.ErrNotExist)

// ReadBack reads the archive under key from the disk and compares its digest with d, or with
// that of its receipt attribute if d is zero. If it is the same, and the check passes, the
// time is recorded at the file and returned with the object. Without a check nothing is
// recorded: the bytes may be undecodable.
//
// Bytes whose check is expensive are checked once ([Reading.Remember]). If the check returns
// [ErrUndecided], the earlier record stays.
//
// ReadBack returns [ErrCorrupt] if the digest differs, [ErrUnreadable] if the disk does not
// return the bytes, and [ErrUndecodable] if the check fails. Then the earlier record is
// removed. It returns an error wrapping [fs.ErrNotExist] if the archive no longer exists.
// The caller should read twice before it believes an error: cables and memory fail too.
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
	o, err := r.statIn(dir, key)
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
			how.Check, how.Remember = o.Decoded.checkRemembered, nil
		}
	}
	if how.resume {
		if how.position, err = r.newResumableRead(f, o); err != nil {
			return o, readError(err)
		}
	}
	got, err := r.readArchive(ctx, dir, fileName(key.Name), how)
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	// The open file keeps its inode number: a name that has it now had it during all of
	// the reading.
	if now, serr := dir.Lstat(fileName(key.Name)); serr != nil || !now.IsSameFile(before) {
		return o, errors.Join(errReplaced, readError(serr))
	}
	return r.recordResult(f, o, d, how, got, err)
}

// recordResult compares what was read of the open file of o with the digest d, unless that is
// zero, and records the result at the file. readErr is the error of the disk, or nil.
func (r *Reader) recordResult(f *os.File, o Object, d digest.Digest, how Reading, got Content, readErr error) (Object, error) {
	err := readErr
	if err == nil || errors.Is(err, ErrUnreadable) {
		err = r.comparisonError(o, d, got, err)
	}
	if err != nil && how.position != nil {
		err = errors.Join(err, how.position.removePosition())
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
	case errors.Is(err, ErrUnreadable) || errors.Is(err, ErrCorrupt):
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
		return o, nil // its digest was not known
	}
	return o, r.markVerified(f, o)
}

// comparisonError returns the error of an archive that was read. Its digest must be d, unless that
// is zero. readErr is the error of the disk, or nil.
func (r *Reader) comparisonError(o Object, d digest.Digest, got Content, readErr error) error {
	switch {
	case readErr != nil:
		return fmt.Errorf("%s: %w", r.Path(o.Key), readErr)
	case got.Size != o.Size || !d.IsZero() && got.Digest != d:
		return fmt.Errorf("%s: %w", r.Path(o.Key), ErrCorrupt)
	case errors.Is(got.CheckErr, ErrUndecided):
		return fmt.Errorf("%s: %w", r.Path(o.Key), got.CheckErr)
	case got.CheckErr != nil:
		return fmt.Errorf("%s: %w: %w", r.Path(o.Key), ErrUndecodable, got.CheckErr)
	}
	return nil
}

// markVerified records at the open file of o that it was verified.
func (r *Reader) markVerified(f *os.File, o Object) error {
	id, err := r.Volumes.Identify(f)
	if err != nil {
		return err
	}
	return setAttrBestEffort(f, verifiedAttr, encodeRecord(verifiedRecord{o.Digest, o.VerifiedAt.UnixNano(), id.OnDisk, o.Contents, verifiedVersion}))
}

// storeDecoded records the result of the check at an open file, if how.Remember says so.
func storeDecoded(f *os.File, got Content, how Reading) error {
	n, ok := how.Remember(got.CheckErr)
	if !ok {
		return nil
	}
	return setAttrBestEffort(f, decodedAttr, encodeRecord(decodedRecord{Decoded{got.Digest, got.Contents, n, got.CheckErr != nil}, decodedVersion}))
}

// Read reads the archive under key from the disk, and returns the digest that its bytes have
// now. It ignores and changes no attributes. The error wraps [ErrUnreadable] if the disk does
// not return the bytes.
func (r *Reader) Read(ctx context.Context, key episode.Key, how Reading) (Content, error) {
	d, err := r.episodes.OpenDir(string(key.Host))
	if err != nil {
		return Content{}, err
	}
	defer d.Close()
	return r.readArchive(ctx, d, fileName(key.Name), how)
}

// readArchive reads the bytes of an archive past the page cache, hashes and checks them.
func (r *Reader) readArchive(ctx context.Context, dir *durable.Dir, name string, how Reading) (Content, error) {
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
		hashed = how.position.savePositions(hashed, w)
	}
	got := Content{}
	if how.Check != nil {
		got.Contents, got.CheckErr = how.Check(hashed)
	}
	if src.err == nil {
		io.Copy(io.Discard, hashed) // what the check has not read
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

// contextReader reads until a context ends. It remembers the error that ended it, because a
// decoder may return its own instead.
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

// unreadableError is an error of the disk about one file. It is not a [durable.ErrFault], even
// if the file system returned one: a bad sector of one archive is what a reading looks for.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string { return fmt.Sprintf("%v: %v", ErrUnreadable, e.err) }

// Is reports whether e is [ErrUnreadable] or what the disk reported.
func (e *unreadableError) Is(target error) bool {
	return target == ErrUnreadable || target != durable.ErrFault && errors.Is(e.err, target)
}

// asUnreadable returns err as an [ErrUnreadable], unless it is not an error of the disk.
func asUnreadable(err error) error {
	if durable.IsShortage(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ELOOP) {
		return err
	}
	return &unreadableError{err}
}

// readError translates an error of an operation that wrote nothing. A bad sector below one file
// or directory is not a [durable.ErrFault]: it must not end the process.
func readError(err error) error {
	if errors.Is(err, durable.ErrFault) {
		return &unreadableError{err}
	}
	return err
}

// readAttr returns an attribute of an open file, or nothing, which is no valid value of any, if the
// file does not have it.
func readAttr(f *os.File, name string) ([]byte, error) {
	b, err := durable.ReadAttr(f, name)
	if errors.Is(err, durable.ErrNoAttr) {
		return nil, nil
	}
	return b, err
}

// encodeRecord returns the attribute with a record, a struct of a fixed size.
func encodeRecord(record any) []byte {
	b, err := binary.Append(nil, binary.BigEndian, record)
	if err != nil {
		panic(err) // record is always one of our own types
	}
	return b
}

// parseRecord parses an attribute that [encodeRecord] has encoded.
func parseRecord[T any](b []byte) (record T, ok bool) {
	n, err := binary.Decode(b, binary.BigEndian, &record)
	return record, err == nil && n == len(b)
}

// clearVerified removes the record that a file was verified.
func clearVerified(f *os.File) error {
	if b, err := readAttr(f, verifiedAttr); len(b) == 0 && err == nil {
		return nil
	}
	return setAttrBestEffort(f, verifiedAttr, nil)
}

// setAttrBestEffort sets an attribute that is a cache. It is not synced: if it is lost, the
// archive is read once more.
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
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnreadable) || errors.Is(err, ErrUndecodable)
}
