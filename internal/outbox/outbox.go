// Package outbox keeps packed episodes on the lab host until they are delivered.
//
//	<episode>.tar.zst.partial   being packed; removed at the start
//	<episode>.tar.zst           packed: what every attempt sends, never packed again
//	<episode>.seal              digest and fingerprint, if the file system has no attributes
//	<episode>.held              why it is not sent: JSON, for an operator
//	<episode>.accepted          an operator accepted that the held episode is retired
//	.store.json                 the receiver's store that has the episodes
//	.status.json                what a shipper knows and the directory does not say
//	.trash/                     retired episodes that are being deleted
//	.shipper.lock               which process has the lock; .lock for older programs
//
// Invariant: while an [Entry] exists, its bytes are the bytes of that episode. They are never
// packed again: a changed tree or another version of the program could give other bytes, which
// would conflict with what the receiver may have stored already.
package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Suffixes of the files of one episode.
const (
	sealedEnd   = ".tar.zst"
	partialEnd  = ".tar.zst.partial"
	sealEnd     = ".seal"
	heldEnd     = ".held"
	acceptedEnd = ".accepted"
)

// The lock files. That of older programs is locked as well.
const (
	lockName       = ".shipper.lock"
	formerLockName = ".lock"
)

// sealAttr is the name of the attribute with a [Seal].
const sealAttr = "seal"

// Outbox is the directory. Its methods are safe for concurrent use on different episodes. The
// caller of a method that changes it must hold the lock. Exceptions are [Outbox.Release],
// [Outbox.Accept], [Outbox.OpenTrash] and, for held episodes, [Outbox.Hold] and [Outbox.Remove]: an
// operator may call these beside a running shipper.
type Outbox struct {
	dir     *durable.Dir
	bytes   atomic.Int64 // of the entries at the last Measure and since, and of pending
	pending atomic.Int64 // bytes of drafts that are counted and not yet entries
}

// New returns the outbox in an open directory, and takes ownership of it.
func New(dir *durable.Dir) *Outbox { return &Outbox{dir: dir} }

// Close closes the directory.
func (o *Outbox) Close() error { return o.dir.Close() }

// Dir returns the directory. It belongs to o.
func (o *Outbox) Dir() *durable.Dir { return o.dir }

// Lock locks the outbox, or returns a [*durable.LockedError].
func (o *Outbox) Lock(holder string) (*durable.Lock, error) {
	return o.dir.Lock(lockName, holder, formerLockName)
}

// Holder returns which process has the lock, if any.
func (o *Outbox) Holder() (string, durable.LockState, error) {
	return o.dir.Holder(lockName, formerLockName)
}

// RemovePartials removes what a crash left of packing: the episodes are still there. The caller
// must hold the lock.
func (o *Outbox) RemovePartials() error {
	for e, err := range o.dir.Names() {
		if err != nil {
			return err
		}
		if strings.HasSuffix(e.Name(), partialEnd) && !e.IsDir() { // a directory is not the shipper's
			if err := o.dir.Unlink(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// MeasureSize sets [Outbox.Bytes] to the size of the entries that are not held: an operator may
// have released or removed some.
func (o *Outbox) MeasureSize() error {
	sum := int64(0)
	for e, err := range o.dir.Names() {
		if err != nil {
			return err
		}
		stem, sealed, held := cutSuffix(e.Name())
		if !sealed && !held {
			continue
		}
		st, err := o.dir.Lstat(stem + sealedEnd)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case held: // it was counted, or will be
			sum -= st.Size()
		default:
			sum += st.Size()
		}
	}
	o.bytes.Store(sum + o.pending.Load())
	return nil
}

// cutSuffix returns the name of a file without the suffix of an entry or a hold.
func cutSuffix(file string) (stem string, sealed, held bool) {
	stem, sealed = strings.CutSuffix(file, sealedEnd)
	if !sealed {
		stem, held = strings.CutSuffix(file, heldEnd)
	}
	return stem, sealed, held
}

// CutHeld returns the name of the held episode that a file of the directory describes, or false.
func CutHeld(file string) (episode.Name, bool) {
	stem, held := strings.CutSuffix(file, heldEnd)
	name, err := episode.ParseName(stem)
	return name, held && err == nil
}

// Bytes returns the number of bytes that wait to be delivered.
func (o *Outbox) Bytes() int64 { return o.bytes.Load() }

// State is the state of an episode in the outbox directory.
type State struct {
	Sealed bool
	Size   int64 // of what is packed
	Held   bool
}

// ReadState returns the state of an episode.
func (o *Outbox) ReadState(name episode.Name) (State, error) {
	sealed, err := o.dir.Lstat(string(name) + sealedEnd)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return State{}, err
	}
	s := State{Sealed: err == nil, Size: sealed.Size()}
	s.Held, err = o.fileExists(string(name) + heldEnd)
	return s, err
}

func (o *Outbox) fileExists(file string) (bool, error) {
	_, err := o.dir.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Names yields every episode that has an entry or a hold, in no order. One that has both comes
// twice.
func (o *Outbox) Names() iter.Seq2[episode.Name, error] {
	return func(yield func(episode.Name, error) bool) {
		for e, err := range o.dir.Names() {
			if err != nil {
				yield("", err)
				return
			}
			stem, sealed, held := cutSuffix(e.Name())
			name, err := episode.ParseName(stem)
			if !sealed && !held || err != nil {
				continue // not the shipper's
			}
			if !yield(name, nil) {
				return
			}
		}
	}
}

// Seal describes an entry, so that it need not be read.
type Seal struct {
	Digest      digest.Digest
	Fingerprint digest.Short // of the tree that was packed; zero if lost
	Skipped     int          // files left out
}

func (s Seal) encode() []byte {
	b := append(s.Digest[:], s.Fingerprint[:]...)
	return binary.BigEndian.AppendUint32(b, uint32(s.Skipped))
}

func parseSeal(b []byte) (Seal, bool) {
	var s Seal
	if len(b) != len(s.Digest)+len(s.Fingerprint)+4 {
		return s, false
	}
	n := copy(s.Digest[:], b)
	n += copy(s.Fingerprint[:], b[n:])
	s.Skipped = int(binary.BigEndian.Uint32(b[n:]))
	return s, true
}

// Draft is an entry that is being packed. It must end with [Draft.Seal] or [Draft.Discard].
type Draft struct {
	*durable.File
	outbox  *Outbox
	name    episode.Name
	counted int64 // in pending
}

// CreateDraft starts an entry. It replaces what an earlier attempt left.
func (o *Outbox) CreateDraft(name episode.Name) (*Draft, error) {
	partial := string(name) + partialEnd
	f, err := o.dir.Create(partial, 0o640)
	if errors.Is(err, fs.ErrExist) { // left by a crash
		if err := o.dir.Unlink(partial); err != nil {
			return nil, err
		}
		f, err = o.dir.Create(partial, 0o640)
	}
	if err != nil {
		return nil, err
	}
	return &Draft{File: f, outbox: o, name: name}, nil
}

// AddToTotal adds the packed draft to [Outbox.Bytes]: many may wait for fsync at once.
func (d *Draft) AddToTotal(size int64) {
	d.counted += size
	d.outbox.pending.Add(size)
	d.outbox.bytes.Add(size)
}

// Discard removes the draft.
func (d *Draft) Discard() error {
	d.outbox.pending.Add(-d.counted)
	d.outbox.bytes.Add(-d.counted)
	return d.File.Discard()
}

// Seal makes the draft an entry, durably. Nothing is packed for this episode from then on.
func (d *Draft) Seal(s Seal) error {
	err := d.SetAttr(sealAttr, s.encode())
	if errors.Is(err, durable.ErrNoAttr) {
		err = d.outbox.dir.WriteFile(string(d.name)+sealEnd, s.encode(), 0o640)
	}
	if err != nil {
		return err
	}
	if err := d.Commit(string(d.name) + sealedEnd); err != nil {
		return err
	}
	st, err := d.outbox.dir.Lstat(string(d.name) + sealedEnd)
	d.outbox.pending.Add(-d.counted)
	d.outbox.bytes.Add(st.Size() - d.counted)
	return err
}

// Entry is a packed episode, open for reading. It must be closed.
type Entry struct {
	Seal
	Name   episode.Name
	Size   int64
	OnRead func() // called at each read, unless nil, as a sign of progress

	f       *os.File
	readErr atomic.Pointer[error]
}

// ReadAt reads the archive.
func (e *Entry) ReadAt(p []byte, off int64) (int, error) {
	if e.OnRead != nil {
		e.OnRead()
	}
	n, err := e.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		e.readErr.Store(&err)
	}
	return n, err
}

// ReadError returns the error of a read. The reader may have taken it for an error of its own.
func (e *Entry) ReadError() error {
	if err := e.readErr.Load(); err != nil {
		return *err
	}
	return nil
}

// Reader returns a reader of the archive from its beginning.
func (e *Entry) Reader() io.Reader { return io.NewSectionReader(e, 0, e.Size) }

// Close closes the entry.
func (e *Entry) Close() error { return e.f.Close() }

// OpenEntry opens the entry of an episode, or returns an error wrapping [fs.ErrNotExist]. If the
// seal is lost, the archive is hashed again.
func (o *Outbox) OpenEntry(name episode.Name) (*Entry, error) {
	f, err := o.dir.Open(string(name) + sealedEnd)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.Name())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	e := &Entry{f: f, Name: name, Size: info.Size()}
	if e.Seal, err = o.readSeal(f, name); err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

func (o *Outbox) readSeal(f *os.File, name episode.Name) (Seal, error) {
	b, err := durable.ReadAttr(f, sealAttr)
	if errors.Is(err, durable.ErrNoAttr) {
		b, err = o.readFile(string(name) + sealEnd)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Seal{}, err
	}
	if s, ok := parseSeal(b); ok {
		return s, nil
	}
	var s Seal
	s.Digest, _, err = digest.Of(f)
	return s, err
}

// IsIntact reports whether the archive still has its digest.
func (e *Entry) IsIntact() (bool, error) {
	d, _, err := digest.Of(e.Reader())
	return d == e.Digest, err
}

// Remove removes an entry that is delivered, or whose archive is corrupt while the episode exists.
// The caller must hold the lock.
//
// The removal is not synced: an entry that a power loss brings back is sent once more, and the
// receiver answers the same. But one that an operator has accepted must not come back, because it
// would apply to a later run of the same name.
func (o *Outbox) Remove(name episode.Name) error {
	if st, err := o.dir.Lstat(string(name) + sealedEnd); err == nil {
		o.bytes.Add(-st.Size())
	}
	// The seal may outlive its entry, but not the reverse.
	for _, end := range []string{sealedEnd, sealEnd, acceptedEnd} {
		there, err := o.fileExists(string(name) + end) // unlike an unlink of nothing, this does not wait for the file system
		if there {
			err = o.dir.Unlink(string(name) + end)
		}
		if err != nil {
			return err
		}
		if there && end == acceptedEnd {
			return o.dir.Sync()
		}
	}
	return nil
}

// Layout lists the names that the shipper and its commands create in the outbox. A new name must be
// added here, or a file that root created under it stays root's. The trash holds directories of the
// experiments, whose owners stay.
func Layout() durable.Layout {
	return durable.Layout{
		{Match: durable.MatchNames(lockName, formerLockName, trashLock), Perm: 0o600},
		{Match: durable.MatchNames(trashName), Perm: 0o750, Dir: true},
		{Match: durable.MatchNames(storeFile, durable.TempName(storeFile)), Perm: 0o640},
		{Match: durable.MatchNames(reportName, durable.TempName(reportName)), Perm: 0o640},
		{Match: isEpisodeFile, Perm: 0o640},
		{Match: durable.IsProbe, Perm: 0o600},
	}
}

// isEpisodeFile reports whether name is a file of one episode, or its temporary file.
func isEpisodeFile(name string) bool {
	if temp, isTemp := strings.CutPrefix(name, "."); isTemp {
		name, isTemp = strings.CutSuffix(temp, ".tmp")
		if !isTemp {
			return false
		}
	}
	return slices.ContainsFunc([]string{sealedEnd, partialEnd, sealEnd, heldEnd, acceptedEnd}, func(end string) bool {
		stem, ours := strings.CutSuffix(name, end)
		_, err := episode.ParseName(stem)
		return ours && err == nil
	})
}
