// Package store keeps archives on the receiver's disk, one folder a host.
//
//	episodes/<host>/<episode>.tar.zst     what is stored, never replaced
//	staging/<host>/<episode>~<nonce>      what is on its way, or will go on
//	quarantine/<host>/<episode>~<nonce>   what was set aside, for a person
//
// An upload is written in staging, made durable and then linked to its name in
// episodes. The staging name stays until the row in the index is durable: it is
// the record of the intent. Hence the law of this package: a stored file with
// one link has a durable row; a file with two is to be looked after by [Store.Staged]
// after a crash, or by the next upload of the same key. What recovery costs is
// what was on its way, whatever is stored.
//
// An upload that is left unfinished stays in staging with one link, and carries
// how far it has come ([Progress]). Nobody was told more than that.
//
// A stored file carries two extended attributes. Both name the file that they were
// written for ([device.Identity]), so that they count for no copy of it:
//
//	receipt     digest, time of arrival; written for a file whose row is durable
//	verified    when all of it was last read from this disk and decoded
//
// A third one follows from the bytes, and counts for each copy that has them:
//
//	decoded     what decoding it came to; written for an archive that is expensive to decode
//
// They are a cache: without them the digest is found again by reading, the row by
// searching the index, and an archive counts as not read back.
package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
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

// receiptAttr names the attribute that [receipt] packs.
const receiptAttr = "receipt"

// ErrUnsuitable says that a data directory is on a file system, or on several, that cannot
// keep a store.
var ErrUnsuitable = errors.New("cannot keep a store")

// asUnsuitable returns err as an [ErrUnsuitable], with the same text.
func asUnsuitable(err error) error { return &unsuitableError{err} }

type unsuitableError struct{ error }

func (e *unsuitableError) Unwrap() error        { return e.error }
func (e *unsuitableError) Is(target error) bool { return target == ErrUnsuitable }

// Store takes archives in. Its methods are safe for concurrent use, but two
// uploads of one key must not be committed at once: the receiver keeps a lock a
// key from [Upload.Commit] to [Upload.MarkIndexed].
type Store struct {
	*Reader
	quarantine *durable.Dir

	mu           sync.Mutex
	hostDirs     map[*durable.Dir]map[episode.Name]*durable.Dir // guarded by mu; folders that are durable in their parent
	replacedDirs []*durable.Dir                                 // guarded by mu; somebody put others in their places

	probeMu sync.Mutex
	probed  bool // guarded by probing
}

// Open opens the store below data and makes its folders, durably, if they are
// missing. It refuses a file system on which the protocol of this package
// cannot work.
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
	// A full disk must not keep what is stored from being read, counted and acknowledged.
	if err := s.probeOnce(); err != nil && !durable.IsFull(err) {
		return nil, errors.Join(err, s.Close())
	}
	// A host's folder that a killed process made, and did not live to sync.
	return s, errors.Join(episodes.Sync(), staging.Sync())
}

// Dirs returns the folders of the store. They belong to s.
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

// probeOnce probes until that has succeeded once: a full disk may put it off until the
// first upload.
func (s *Store) probeOnce() error {
	s.probeMu.Lock()
	defer s.probeMu.Unlock()
	if s.probed {
		return nil
	}
	err := s.probe()
	s.probed = err == nil
	return err
}

// probe tries what the protocol needs: links and renames from folder to folder, a link
// that does not replace, attributes. A file system without attributes works,
// at the price of a search in the index for each upload of what is there
// already.
func (s *Store) probe() error {
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
	err = f.Publish(s.staging, b)
	if durable.IsFull(err) {
		return errors.Join(err, f.Close(), clean())
	}
	if err != nil {
		return asUnsuitable(fmt.Errorf("this file system cannot keep the store (hard links or directory syncs fail): %w", err))
	}
	err = f.Publish(s.staging, b)
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	if !errors.Is(err, fs.ErrExist) {
		return asUnsuitable(fmt.Errorf("this file system cannot keep the store: a link over an existing name gave %v, not an error", err))
	}
	return errors.Join(f.Close(), clean())
}

// An Upload is an archive on its way into the store. It must end with
// [Upload.MarkIndexed], [Upload.Abandon] or [Upload.Discard].
type Upload struct {
	*durable.File
	key          episode.Key
	store        *Store
	dir          *durable.Dir // staging/<host>, which belongs to store
	nameUnsynced bool         // the name there may not be durable

	hasProgress bool      // it may carry its progress
	arrivedAt   time.Time // as it is noted
}

// Create begins an upload.
func (s *Store) Create(key episode.Key) (*Upload, error) { return s.create(key, rand.Text()) }

func (s *Store) create(key episode.Key, nonce string) (*Upload, error) {
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
	f, err := dir.Create(stagedName(key.Name, nonce), 0o640)
	if err != nil {
		return nil, err
	}
	return &Upload{File: f, key: key, store: s, dir: dir, nameUnsynced: true}, nil
}

// Commit stores what was written under the upload's key, with its digest and
// its time of arrival. When it returns the archive is durable and stands under
// its name; its row in the index is the caller's next step. It returns an error
// wrapping [fs.ErrExist] if the key is taken.
func (u *Upload) Commit(d digest.Digest, arrived time.Time) error {
	if err := u.writeReceipt(d, arrived); err != nil {
		return err
	}
	to, err := u.store.hostDir(u.store.episodes, u.key.Host)
	if err != nil {
		return err
	}
	err = u.Publish(to, fileName(u.key.Name))
	if errors.Is(err, unix.EXDEV) { // the folder of a host that came to be a mount meanwhile
		err = &durable.SeparateError{From: u.dir.Path(""), To: to.Path(""), Err: err}
	}
	return err
}

// MarkIndexed ends a committed upload whose row is durable. The row may say a later
// time of arrival than [Upload.Commit] was told; the file then says the same.
func (u *Upload) MarkIndexed(d digest.Digest, arrived time.Time) error {
	// Not synced: if it is lost, a receipt shows the time of the commit.
	if !arrived.Equal(u.arrivedAt) {
		if err := u.writeReceipt(d, arrived); err != nil {
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

func (u *Upload) writeReceipt(d digest.Digest, arrived time.Time) error {
	id, err := u.store.Volumes.Identify(u.File.File())
	if err != nil {
		return err
	}
	u.arrivedAt = arrived
	err = u.SetAttr(receiptAttr, receipt{d, arrived, fileID(id.File[:8])}.encode())
	if errors.Is(err, durable.ErrNoAttr) {
		return nil
	}
	return err
}

// Abandon ends an upload and leaves its staging name: of a committed one whose row
// could not be written, to say so; of an unfinished one, to go on with.
func (u *Upload) Abandon() error { return u.Close() }

// Discard ends an upload that is not to be stored.
func (u *Upload) Discard() error { return u.File.Discard() }

// hostDir returns a host's folder in parent and makes it first if it is missing. It
// returns only when the folder is durable there, also if another upload has made
// it and is about to sync. The folder stays open, and belongs to s: uploads that
// end at one time share its syncs.
func (s *Store) hostDir(parent *durable.Dir, name episode.Name) (*durable.Dir, error) {
	s.mu.Lock()
	known := s.hostDirs[parent][name]
	s.mu.Unlock()
	if known != nil {
		stands, err := s.isCurrentDir(parent, name, known)
		if stands || err != nil {
			return known, err
		}
	}
	d, err := parent.MakeDir(string(name)) // syncs the parent, whoever made it
	if err != nil {
		return nil, err
	}
	return s.cacheHostDir(parent, name, known, d), nil
}

// isCurrentDir reports whether an open folder is still the one of its name: somebody may
// have moved it away.
func (s *Store) isCurrentDir(parent *durable.Dir, name episode.Name, known *durable.Dir) (bool, error) {
	st, err := parent.Lstat(string(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ours, err := durable.StatFile(known.File())
	return st.Same(ours), err
}

// cacheHostDir notes d as a host's folder, in the place of old, unless another upload was
// first.
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
		s.replacedDirs = append(s.replacedDirs, old) // in use, perhaps
	}
	s.hostDirs[parent][name] = d
	return d
}

func fileName(name episode.Name) string { return string(name) + Suffix }

// receipt is what a stored file carries. Its 48 bytes stay in the inode on ext4.
type receipt struct {
	digest  digest.Digest
	arrived time.Time
	file    fileID // of the file itself: a copy that took the attribute along has no row yet
}

// fileID is the beginning of [device.Identity.File]. Receivers before 2026-11-29 wrote
// the inode number here, which copies may share: it is no fileID of any file.
type fileID [8]byte

func (r receipt) encode() []byte {
	b := binary.BigEndian.AppendUint64(r.digest[:], uint64(r.arrived.UnixNano()))
	return append(b, r.file[:]...)
}

func parseReceipt(b []byte) (receipt, bool) {
	if len(b) != digest.Size+16 {
		return receipt{}, false
	}
	d, rest := b[:digest.Size], b[digest.Size:]
	at := time.Unix(0, int64(binary.BigEndian.Uint64(rest)))
	return receipt{digest.Digest(d), at.UTC(), fileID(rest[8:])}, true
}
