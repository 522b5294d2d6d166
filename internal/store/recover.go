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

// Staged is a file that a crash left in staging.
type Staged struct {
	Key   episode.Key
	store *Store
	dir   *durable.Dir // staging/<host>
	name  string
}

// Staged yields what a crash left in staging. The receiver must call it before
// it takes uploads in; each file must be ended with [Staged.Unlink],
// [Staged.QuarantineStored] or [Store.MarkIndexed].
func (s *Store) Staged() iter.Seq2[Staged, error] {
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
		return yield(Staged{}, &StrayError{s.staging.Path(e.Name()), "is no host's folder"})
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
			err = &StrayError{dir.Path(e.Name()), "is no upload"}
		}
		if !yield(Staged{episode.Key{Host: host, Name: name}, s, dir, e.Name()}, err) {
			return false
		}
	}
	return true
}

// Linked returns the object that the upload had become when the crash came,
// with its name durable, or false if it had not become one: nobody was told of
// it. If the bytes on the disk are not those of its digest, Published returns
// [ErrDamaged], and [ErrUnreadable] if the disk does not give them.
//
// It goes on where a call before the last restart was interrupted, if the machine was not
// booted since. Read, unless nil, is told how many bytes each read gave.
func (st Staged) Linked(ctx context.Context, read func(bytes int)) (Object, bool, error) {
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
	if errors.Is(err, fs.ErrNotExist) || err == nil && !stored.Same(ours) {
		return Object{}, false, nil
	}
	if err != nil {
		return Object{}, false, readError(err)
	}
	// The crash may have come between the link and its sync.
	if err := to.Sync(); err != nil {
		return Object{}, false, err
	}
	o, err := st.store.ReadBack(ctx, st.Key, digest.Digest{}, Reading{Progress: read, resume: true})
	return o, err == nil, err
}

// Unlink unlinks the staging name, which says that no row is owed any more.
func (st Staged) Unlink() error { return st.dir.Unlink(st.name) }

// Exists reports whether the disk says which file the staging name is of.
func (st Staged) Exists() bool {
	_, err := st.dir.Lstat(st.name)
	return err == nil
}

// Quarantine moves a file that was not committed, and that the disk does not give, out of
// staging. Its inode is not touched: to unlink it might fail.
func (st Staged) Quarantine() error {
	to, err := st.store.hostDir(st.store.quarantine, st.Key.Host)
	if err != nil {
		return err
	}
	return st.dir.Rename(st.name, to, st.name)
}

// QuarantineStored moves the stored file of a damaged upload out of episodes, where a
// reader would take it for good, and clears the staging name.
func (st Staged) QuarantineStored() error {
	if err := st.store.Quarantine(st.Key); err != nil {
		return err
	}
	return st.Unlink()
}

// Quarantine moves a damaged archive from episodes to quarantine. Nothing is
// destroyed.
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
	dir, err := s.quarantine.OpenDir(string(key.Host))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	for e, err := range dir.Names() {
		if err != nil {
			return false, err
		}
		if strings.HasPrefix(e.Name(), string(key.Name)+"~") {
			return true, nil
		}
	}
	return false, nil
}

// SyncHostDir makes the name of a stored file durable. It is for an object that is
// not [Object.Indexed] though no upload of its key runs, before its row is made
// durable.
func (s *Store) SyncHostDir(key episode.Key) error {
	dir, err := s.episodes.OpenDir(string(key.Host))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// MarkIndexed notes at the file of o, which has a durable row, what the row says,
// and unlinks the staging names that failed uploads left for it.
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
	id, err := s.Volumes.Identify(f)
	if err != nil {
		return err
	}
	err = durable.SetAttr(f, receiptAttr, receipt{o.Digest, o.ReceivedAt, fileID(id.File[:8])}.encode())
	for _, name := range []string{progressAttr, readPositionAttr} {
		if err == nil {
			err = durable.RemoveAttr(f, name)
		}
	}
	if errors.Is(err, durable.ErrNoAttr) || errors.Is(err, fs.ErrPermission) {
		return nil // somebody else's copy: its row is searched for each time
	}
	return err
}

// unlinkStaged unlinks the staging names of the stored file under key.
func (s *Store) unlinkStaged(key episode.Key) error {
	dir, err := s.staging.OpenDir(string(key.Host))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	stored, err := s.lstat(key)
	if err != nil {
		return err
	}
	for e, err := range dir.Names() {
		if err != nil {
			return err
		}
		if !strings.HasPrefix(e.Name(), string(key.Name)+"~") {
			continue
		}
		st, err := dir.Lstat(e.Name())
		if err == nil && st.Same(stored) {
			err = dir.Unlink(e.Name())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *Store) lstat(key episode.Key) (durable.Stat, error) {
	dir, err := s.episodes.OpenDir(string(key.Host))
	if err != nil {
		return durable.Stat{}, err
	}
	defer dir.Close()
	return dir.Lstat(fileName(key.Name))
}
