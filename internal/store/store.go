// Package store keeps archives on the receiver's disk, one directory per host.
//
//	episodes/<host>/<episode>.tar.zst     stored archives, never replaced
//	staging/<host>/<episode>~<nonce>      uploads in flight, or to be continued
//	quarantine/<host>/<episode>~<nonce>   corrupt archives, for an operator
//
// An upload is written in staging, made durable and then linked to its name in episodes. The staging
// name is removed when the row in the index is durable: until then it marks a missing row. An
// unfinished upload stays in staging with one link and has its [Progress] in an attribute. No
// response to its sender states more bytes than that.
//
// Invariant: a file in episodes that was stored by an upload and has one link has a durable row. A
// file with two links is completed by [Store.AllStaged] after a crash, or by the next upload of the
// same key. The cost of recovery is proportional to the uploads in flight.
//
// A stored file has two extended attributes. Both name the file for which they were written
// ([device.Identity]), so that they do not count for a copy:
//
//	receipt     digest, time of arrival; written for a file whose row is durable
//	verified    when all of it was last read from this disk and decoded
//
// A third one depends on the bytes only, and counts for each copy:
//
//	decoded     the result of decoding an archive that is expensive to decode
//
// The attributes are a cache. Without them the digest is computed from the bytes, the row is
// searched for in the index, and the archive counts as not verified.
package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/device"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Suffix ends the name of every stored archive.
const Suffix = ".tar.zst"

// receiptAttr is the attribute that has a [receiptRecord].
const receiptAttr = "receipt"

// ErrUnsuitable says that a store cannot work on the file system of a data directory, or on
// several of them.
var ErrUnsuitable = errors.New("cannot keep a store")

// asUnsuitable returns an error with the text of err that is also [ErrUnsuitable].
func asUnsuitable(err error) error { return &unsuitableError{err} }

type unsuitableError struct{ error }

func (e *unsuitableError) Unwrap() error        { return e.error }
func (e *unsuitableError) Is(target error) bool { return target == ErrUnsuitable }

// Store stores archives. Its methods are safe for concurrent use, except that two uploads of
// one key must not be committed at the same time: the receiver holds a lock per key from
// [Upload.Commit] to [Upload.MarkIndexed].
type Store struct {
	*Reader
	quarantine *durable.Dir

	mu           sync.Mutex
	hostDirs     map[*durable.Dir]map[episode.Name]*durable.Dir // guarded by mu; by parent; durable in their parent
	replacedDirs []*durable.Dir                                 // guarded by mu; their names lead to other directories now

	probeMu sync.Mutex
	probed  bool // guarded by probeMu
}

// Open opens the store below data and creates its directories, durably, if they are missing.
// It returns [ErrUnsuitable] for a file system on which this package cannot work.
func Open(data *durable.Dir) (*Store, error) {
	episodes, err := data.MakeDir("episodes")
	if err != nil {
		return nil, err
	}
	staging, err := data.MakeDir("staging")
	if err != nil {
		return nil, err
	}
	quarantine, err := data.MakeDir("quarantine")
	if err != nil {
		return nil, err
	}
	volumes, err := device.Open(episodes.File())
	if err != nil {
		return nil, err
	}
	s := &Store{
		Reader:     &Reader{Volumes: volumes, episodes: episodes, staging: staging},
		quarantine: quarantine,
		hostDirs:   make(map[*durable.Dir]map[episode.Name]*durable.Dir),
	}
	// On a full disk, what is stored can still be read, counted and acknowledged.
	if err := s.probeOnce(); err != nil && !durable.IsFull(err) {
		return nil, errors.Join(err, s.Close())
	}
	// A killed process may have created a host's directory and not synced it.
	return s, errors.Join(episodes.Sync(), staging.Sync())
}

// Dirs returns the directories of the store. They belong to s.
func (s *Store) Dirs() []*durable.Dir { return []*durable.Dir{s.episodes, s.staging, s.quarantine} }

// Close closes the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.quarantine.Close(), s.Reader.Close()}
	for _, dirs := range s.hostDirs {
		for _, d := range dirs {
			errs = append(errs, d.Close())
		}
	}
	for _, d := range s.replacedDirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// probeOnce probes until that has succeeded once: on a full disk, with the first upload.
func (s *Store) probeOnce() error {
	s.probeMu.Lock()
	defer s.probeMu.Unlock()
	if s.probed {
		return nil
	}
	err := s.probeLinks()
	s.probed = err == nil
	return err
}

// probeLinks tests what this package needs: links and renames between directories, and a link that
// does not replace. A file system without attributes works, and costs a search of the index
// for each upload of a stored archive.
func (s *Store) probeLinks() error {
	const a, b = "probe~a", "probe~b"
	clean := func() error { return errors.Join(s.staging.Unlink(a), s.staging.Unlink(b)) }
	if err := clean(); err != nil {
		return err
	}
	if err := s.tryMoves(); err != nil {
		return err
	}
	f, err := s.staging.Create(a, 0o600)
	if err != nil {
		return err
	}
	err = f.CommitTo(s.staging, b)
	if durable.IsFull(err) {
		return errors.Join(err, f.Close(), clean())
	}
	if err != nil {
		return asUnsuitable(fmt.Errorf("this file system cannot keep the store (hard links or directory syncs fail): %w", err))
	}
	err = f.CommitTo(s.staging, b)
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	if !errors.Is(err, fs.ErrExist) {
		return asUnsuitable(fmt.Errorf("this file system cannot keep the store: a link over an existing name gave %v, not an error", err))
	}
	return errors.Join(f.Close(), clean())
}

// An Upload is an archive in staging. It must end with [Upload.MarkIndexed],
// [Upload.Abandon] or, if it is not to be stored, [durable.File.Discard].
type Upload struct {
	*durable.File
	key          episode.Key
	store        *Store
	dir          *durable.Dir // staging/<host>, which belongs to store
	nameUnsynced bool         // the name in dir may not be durable

	hasProgress bool          // it may have a progress attribute
	digest      digest.Digest // in the receipt attribute
	arrivedAt   time.Time     // in the receipt attribute
}

// CreateUpload starts an upload.
func (s *Store) CreateUpload(key episode.Key) (*Upload, error) {
	return s.CreateWithID(key, rand.Text())
}

// CreateWithID is [Store.CreateUpload] for an upload that may be continued, by its id.
func (s *Store) CreateWithID(key episode.Key, id string) (*Upload, error) {
	if err := s.probeOnce(); err != nil {
		return nil, err
	}
	if err := s.CheckHost(key.Host); err != nil {
		return nil, err
	}
	dir, err := s.hostDir(s.staging, key.Host)
	if err != nil {
		return nil, err
	}
	f, err := dir.Create(stagedName(key.Name, id), 0o640)
	if err != nil {
		return nil, err
	}
	return &Upload{File: f, key: key, store: s, dir: dir, nameUnsynced: true}, nil
}

// Commit stores what was written under the upload's key, with its digest and its time of
// arrival. When it returns, the archive and its name are durable. The caller must append its
// row next. Commit returns an error wrapping [fs.ErrExist] if the key is taken.
func (u *Upload) Commit(d digest.Digest, arrived time.Time) error {
	u.digest = d
	if err := u.writeReceipt(arrived); err != nil {
		return err
	}
	to, err := u.store.hostDir(u.store.episodes, u.key.Host)
	if err != nil {
		return err
	}
	err = u.CommitTo(to, fileName(u.key.Name))
	if errors.Is(err, unix.EXDEV) { // a host's directory became a mount meanwhile
		err = &durable.SeparateError{From: u.dir.Path(""), To: to.Path(""), Err: err}
	}
	return err
}

// MarkIndexed ends a committed upload whose row is durable. The time of arrival in the row
// may be later than that of [Upload.Commit]. It is written to the file then.
func (u *Upload) MarkIndexed(arrived time.Time) error {
	// Not synced: if it is lost, a receipt has the time of the commit.
	if !arrived.Equal(u.arrivedAt) {
		if err := u.writeReceipt(arrived); err != nil {
			return err
		}
	}
	if u.hasProgress {
		if err := u.RemoveAttr(progressAttr); err != nil {
			return err
		}
	}
	return u.UnlinkStaged()
}

func (u *Upload) writeReceipt(arrived time.Time) error {
	u.arrivedAt = arrived
	err := u.store.setReceipt(u.File.File(), u.digest, arrived)
	if errors.Is(err, durable.ErrNoAttr) {
		return nil
	}
	return err
}

// setReceipt sets the receipt attribute of an open file.
func (s *Store) setReceipt(f *os.File, d digest.Digest, arrived time.Time) error {
	id, err := s.Volumes.Identify(f)
	if err != nil {
		return err
	}
	return durable.SetAttr(f, receiptAttr, encodeRecord(receiptRecord{d, arrived.UnixNano(), fileID(id.File[:8])}))
}

// Abandon ends an upload and keeps its staging name: for a committed one as a mark of its
// missing row, and for an unfinished one to continue it.
func (u *Upload) Abandon() error { return u.Close() }

// hostDir returns a host's directory in parent, and creates it if it is missing. When it
// returns the directory is durable, even if another upload has created it and not synced it
// yet. The directory stays open and belongs to s: uploads that end together share its syncs.
func (s *Store) hostDir(parent *durable.Dir, name episode.Name) (*durable.Dir, error) {
	s.mu.Lock()
	known := s.hostDirs[parent][name]
	s.mu.Unlock()
	if known != nil {
		current, err := s.isCurrentDir(parent, name, known)
		if current || err != nil {
			return known, err
		}
	}
	d, err := parent.MakeDir(string(name)) // syncs the parent, even if it exists
	if err != nil {
		return nil, err
	}
	return s.cacheHostDir(parent, name, known, d), nil
}

// isCurrentDir reports whether a name still leads to an open directory, which may have been
// moved.
func (s *Store) isCurrentDir(parent *durable.Dir, name episode.Name, known *durable.Dir) (bool, error) {
	st, err := parent.Lstat(string(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ours, err := durable.StatFile(known.File())
	return st.IsSameFile(ours), err
}

// cacheHostDir keeps d as a host's directory in the place of old, unless another upload has
// replaced old. It returns the directory to use.
func (s *Store) cacheHostDir(parent *durable.Dir, name episode.Name, old, d *durable.Dir) *durable.Dir {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hostDirs[parent] == nil {
		s.hostDirs[parent] = make(map[episode.Name]*durable.Dir)
	}
	if first := s.hostDirs[parent][name]; first != old {
		s.replacedDirs = append(s.replacedDirs, d)
		return first
	}
	if old != nil {
		s.replacedDirs = append(s.replacedDirs, old) // may be in use
	}
	s.hostDirs[parent][name] = d
	return d
}

func fileName(name episode.Name) string { return string(name) + Suffix }

// receiptRecord is the content of the receipt attribute. On ext4 its 48 bytes fit in the inode.
type receiptRecord struct {
	Digest  digest.Digest
	Arrived int64  // Unix time in nanoseconds
	File    fileID // that the attribute was written for: a copy may have no row
}

// fileID is the beginning of [device.Identity.File]. Receivers before 2026-11-29 wrote the
// inode number instead, which copies may share: it is not the fileID of any file.
type fileID [8]byte
