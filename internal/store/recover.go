package store

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"iter"
	"strings"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Staged is a file in staging when the receiver starts.
type Staged struct {
	Key   episode.Key
	store *Store
	dir   *durable.Dir // staging/<host>
	name  string
}

// AllStaged yields the files in staging. It must be called before uploads are received. Each file
// must be ended with [Staged.Unlink], [Staged.Quarantine], [Staged.QuarantineStored] or
// [Store.MarkIndexed], or belong to an upload that continues.
func (s *Store) AllStaged() iter.Seq2[Staged, error] {
	return func(yield func(Staged, error) bool) {
		for e, err := range s.staging.Names() {
			if err != nil {
				yield(Staged{}, err)
				return
			}
			if durable.IsProbe(e.Name()) {
				continue
			}
			if !s.yieldStaged(e, yield) {
				return
			}
		}
	}
}

func (s *Store) yieldStaged(e fs.DirEntry, yield func(Staged, error) bool) bool {
	host, err := episode.ParseName(e.Name())
	if err != nil || !e.IsDir() {
		return yield(Staged{}, &StrayError{s.staging.Path(e.Name()), "is not a directory of a host"})
	}
	dir, err := s.staging.OpenDir(e.Name())
	if err != nil {
		return yield(Staged{Key: episode.Key{Host: host}}, readError(err))
	}
	defer dir.Close()
	for e, err := range dir.Names() {
		if err != nil {
			return yield(Staged{Key: episode.Key{Host: host}}, readError(err))
		}
		stem, _, _ := strings.Cut(e.Name(), "~")
		name, err := episode.ParseName(stem)
		if err != nil || e.Type() != 0 {
			err = &StrayError{dir.Path(e.Name()), "is not an upload"}
		}
		if !yield(Staged{episode.Key{Host: host, Name: name}, s, dir, e.Name()}, err) {
			return false
		}
	}
	return true
}

// Linked returns the stored object that the upload was committed as, with its name durable, or
// false if it was not committed: then it was not acknowledged. It reads the bytes, and returns
// [ErrCorrupt] if they do not have their digest, and [ErrUnreadable] if the disk does not
// return them.
//
// It continues where a call before the last restart was interrupted, unless the machine was
// booted since. progress, unless nil, is called with the number of bytes of each read.
func (st Staged) Linked(ctx context.Context, progress func(bytes int)) (Object, bool, error) {
	to, err := st.store.episodes.OpenDir(string(st.Key.Host))
	if errors.Is(err, fs.ErrNotExist) {
		return Object{}, false, nil
	}
	if err != nil {
		return Object{}, false, readError(err)
	}
	defer to.Close()
	ours, err := st.dir.Lstat(st.name)
	if err != nil {
		return Object{}, false, readError(err)
	}
	stored, err := to.Lstat(fileName(st.Key.Name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !stored.IsSameFile(ours) {
		return Object{}, false, nil
	}
	if err != nil {
		return Object{}, false, readError(err)
	}
	// The crash may have come between the link and its sync.
	if err := to.Sync(); err != nil {
		return Object{}, false, err
	}
	o, err := st.store.ReadBack(ctx, st.Key, digest.Digest{}, Reading{Progress: progress, resume: true})
	return o, err == nil, err
}

// Unlink removes the staging name, which marks a missing row.
func (st Staged) Unlink() error { return st.dir.Unlink(st.name) }

// Exists reports whether the disk returns the inode of the staging name.
func (st Staged) Exists() bool {
	_, err := st.dir.Lstat(st.name)
	return err == nil
}

// Quarantine moves an unreadable file that was not committed to quarantine. It does not access
// the inode: an unlink might fail.
func (st Staged) Quarantine() error {
	to, err := st.store.hostDir(st.store.quarantine, st.Key.Host)
	if err != nil {
		return err
	}
	return st.dir.Rename(st.name, to, st.name)
}

// QuarantineStored moves the stored file of a corrupt upload to quarantine, because a reader
// would trust it, and removes the staging name.
func (st Staged) QuarantineStored() error {
	if err := st.store.Quarantine(st.Key); err != nil {
		return err
	}
	return st.Unlink()
}

// Quarantine moves a corrupt archive from episodes to quarantine. No bytes are removed.
func (s *Store) Quarantine(key episode.Key) error {
	from, err := s.episodes.OpenDir(string(key.Host))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := s.hostDir(s.quarantine, key.Host)
	if err != nil {
		return err
	}
	return from.Rename(fileName(key.Name), to, string(key.Name)+"~"+rand.Text())
}

// IsQuarantined reports whether an archive of this key is in quarantine.
func (s *Store) IsQuarantined(key episode.Key) (bool, error) {
	for _, err := range stagedFilesOf(s.quarantine, key) {
		return err == nil, err
	}
	return false, nil
}

// SyncHostDir makes the name of a stored file durable. It must be called before the row is
// appended of an object that is not [Object.Indexed] although no upload of its key is in
// flight.
func (s *Store) SyncHostDir(key episode.Key) error {
	dir, err := s.episodes.OpenDir(string(key.Host))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// MarkIndexed writes the receipt attribute of o, whose row is durable, and removes the staging
// names that failed uploads have left for it.
func (s *Store) MarkIndexed(o Object) error {
	if err := s.writeReceipt(o); err != nil {
		return err
	}
	return s.unlinkStaged(o.Key)
}

func (s *Store) writeReceipt(o Object) error {
	f, err := s.Open(o.Key)
	if err != nil {
		return err
	}
	defer f.Close()
	err = s.setReceipt(f, o.Digest, o.ReceivedAt)
	for _, name := range []string{progressAttr, readPositionAttr} {
		if err == nil {
			err = durable.RemoveAttr(f, name)
		}
	}
	if errors.Is(err, durable.ErrNoAttr) || errors.Is(err, fs.ErrPermission) {
		return nil // a file of another user: its row is searched for each time
	}
	return err
}

// unlinkStaged removes the staging names of the stored file under key.
func (s *Store) unlinkStaged(key episode.Key) error {
	stored, err := s.lstatKey(key)
	if err != nil {
		return err
	}
	for a, err := range stagedFilesOf(s.staging, key) {
		if err != nil {
			return err
		}
		st, err := a.dir.Lstat(a.name)
		if err == nil && st.IsSameFile(stored) {
			err = a.dir.Unlink(a.name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// stagedFile is a file of a key in staging or quarantine.
type stagedFile struct {
	dir  *durable.Dir
	name string
}

// stagedFilesOf yields the files of a key in staging or quarantine. It ends after an error.
func stagedFilesOf(parent *durable.Dir, key episode.Key) iter.Seq2[stagedFile, error] {
	return func(yield func(stagedFile, error) bool) {
		dir, err := parent.OpenDir(string(key.Host))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(stagedFile{}, err)
			return
		}
		defer dir.Close()
		for e, err := range dir.Names() {
			if err != nil {
				yield(stagedFile{}, err)
				return
			}
			if strings.HasPrefix(e.Name(), string(key.Name)+"~") && !yield(stagedFile{dir, e.Name()}, nil) {
				return
			}
		}
	}
}

func (s *Store) lstatKey(key episode.Key) (durable.Stat, error) {
	dir, err := s.episodes.OpenDir(string(key.Host))
	if err != nil {
		return durable.Stat{}, err
	}
	defer dir.Close()
	return dir.Lstat(fileName(key.Name))
}
