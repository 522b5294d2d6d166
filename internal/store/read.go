package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cis490/internal/device"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Object is a stored archive as the file system describes it.
type Object struct {
	Key        episode.Key
	Size       int64
	Digest     digest.Digest // not known (zero) if the file does not carry it
	ReceivedAt time.Time     // of arrival, or the file's own time if it does not carry it
	// Settled reports that the receiver stored the file and that its row is
	// durable: nobody needs to look into the index.
	Indexed bool
	// Underway reports that the file has a second link in staging: an upload
	// whose row is about to be written, or what a crash left of one. Other
	// links, of a backup say, mean nothing.
	InFlight bool
	// VerifiedAt is when [Reader.ReadBack] last found the bytes of this file on
	// this disk to be those of Digest, and decoded them; zero if that is not known.
	VerifiedAt time.Time
	// Contents is the digest of what the archive contains, as that reading computed
	// it; zero if it is not known.
	Contents digest.Digest
	// Decoded is set by [Reader.ReadBack] if it knew what decoding the bytes came to, and
	// did not decode them again.
	Decoded Decoded
}

// Reader reads a tree of stored archives, also one that a live receiver fills.
type Reader struct {
	// Uncached, if it is set, opens what is read past the page cache, in the place
	// of [durable.Dir.OpenUncached]: a test's way to have a disk that fails.
	Uncached func(dir *durable.Dir, name string) (io.ReadCloser, error)
	// Volumes tells the files of the tree from copies of them. A test puts the tree
	// on another disk with it.
	Volumes *device.Volumes

	episodes *durable.Dir
	staging  *durable.Dir // beside episodes; nil if there is none
}

// OpenReader opens the tree at path. It writes nothing.
func OpenReader(path string) (*Reader, error) {
	d, err := durable.Open(path)
	if err != nil {
		return nil, err
	}
	staging, err := durable.Open(filepath.Join(path, "..", "staging"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, errors.Join(err, d.Close())
	}
	r := &Reader{episodes: d, staging: staging}
	if r.Volumes, err = device.Open(d.File()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Volume returns the file system and the disk that the archives are on.
func (r *Reader) Volume() (device.Volume, error) { return r.Volumes.Of(r.episodes.File()) }

// Close closes the tree.
func (r *Reader) Close() error {
	if r.staging == nil {
		return r.episodes.Close()
	}
	return errors.Join(r.staging.Close(), r.episodes.Close())
}

// Path returns where an archive is, for messages.
func (r *Reader) Path(key episode.Key) string {
	return r.episodes.Path(string(key.Host) + "/" + fileName(key.Name))
}

// Stat returns the object stored under key, or an error wrapping [fs.ErrNotExist], or
// [ErrUnreadable] if the disk does not say what there is.
func (r *Reader) Stat(key episode.Key) (Object, error) {
	d, err := r.episodes.OpenDir(string(key.Host))
	if err != nil {
		return Object{}, readError(err)
	}
	defer d.Close()
	o, err := r.stat(d, key)
	return o, readError(err)
}

// hasStagedLink reports whether an upload of key is the stored file.
func (r *Reader) hasStagedLink(key episode.Key, stored durable.Stat) (bool, error) {
	if r.staging == nil {
		return false, nil
	}
	dir, err := r.staging.OpenDir(string(key.Host))
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
		if !strings.HasPrefix(e.Name(), string(key.Name)+"~") {
			continue
		}
		if st, err := dir.Lstat(e.Name()); err == nil && st.Same(stored) {
			return true, nil
		}
	}
	return false, nil
}

// fileTime returns a file's own time, or the nearest that a row and an inventory can
// show: they have the years 1 to 9999, and a file may have any.
func fileTime(st durable.Stat) time.Time {
	at := st.ModTime().UTC()
	// Seconds compare where a time.Time, which counts from another year, has overflowed.
	if first := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC); at.Unix() < first.Unix() {
		return first
	}
	if end := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC); at.Unix() >= end.Unix() {
		return end.Add(-time.Microsecond)
	}
	return at
}

func (r *Reader) stat(d *durable.Dir, key episode.Key) (Object, error) {
	name := fileName(key.Name)
	st, err := d.Lstat(name)
	if err != nil {
		return Object{}, err
	}
	if !st.Regular() {
		return Object{}, &StrayError{d.Path(name), "is no regular file"}
	}
	o := Object{Key: key, Size: st.Size(), ReceivedAt: fileTime(st)}
	if st.Links() > 1 {
		if o.InFlight, err = r.hasStagedLink(key, st); err != nil {
			return Object{}, err
		}
	}
	f, err := d.Open(name)
	if err != nil {
		return Object{}, err
	}
	defer f.Close()
	b, err := durable.Attr(f, receiptAttr)
	if errors.Is(err, durable.ErrNoAttr) {
		return o, nil
	}
	if err != nil {
		return Object{}, err
	}
	receipt, ok := parseReceipt(b)
	if !ok {
		return o, nil
	}
	id, err := r.Volumes.Identify(f)
	if err != nil {
		return Object{}, err
	}
	o.Digest, o.ReceivedAt = receipt.digest, receipt.arrived
	o.Indexed = !o.InFlight && receipt.file == fileID(id.File[:8])
	o.VerifiedAt, o.Contents, err = readVerified(f, o.Digest, id)
	return o, err
}

// Open opens a stored archive for reading.
func (r *Reader) Open(key episode.Key) (*os.File, error) {
	d, err := r.episodes.OpenDir(string(key.Host))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Open(fileName(key.Name))
}

// A StrayError is about a name in the tree that is no stored archive. Walks go
// on after it.
type StrayError struct {
	Path string
	Why  string
}

func (e *StrayError) Error() string { return fmt.Sprintf("%+q %s", e.Path, e.Why) }

// Hosts yields the hosts that have a folder, in no order.
func (r *Reader) Hosts() iter.Seq2[episode.Name, error] {
	return func(yield func(episode.Name, error) bool) {
		for e, err := range r.episodes.Names() {
			if err != nil {
				yield("", err)
				return
			}
			if durable.IsProbe(e.Name()) {
				continue // of a start that goes on, or that was killed
			}
			name, err := episode.ParseName(e.Name())
			switch {
			case err != nil:
				err = &StrayError{r.episodes.Path(e.Name()), "is no host's name"}
			case !e.IsDir():
				err = &StrayError{r.episodes.Path(e.Name()), "is no folder"}
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

// HostObjects yields the objects of one host, in no order. After a [*StrayError] or an
// error of one file it goes on; the walk ends with the directory.
func (r *Reader) HostObjects(name episode.Name) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		unlisted := Object{Key: episode.Key{Host: name}}
		d, err := r.episodes.OpenDir(string(name))
		if err != nil {
			yield(unlisted, readError(err))
			return
		}
		defer d.Close()
		for e, err := range d.Names() {
			if err != nil {
				yield(unlisted, readError(err))
				return
			}
			o, err := r.statEntry(d, name, e)
			err = readError(err)
			if errors.Is(err, fs.ErrNotExist) {
				continue // moved away meanwhile
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (r *Reader) statEntry(d *durable.Dir, host episode.Name, e fs.DirEntry) (Object, error) {
	stem, found := strings.CutSuffix(e.Name(), Suffix)
	if !found {
		return Object{}, &StrayError{d.Path(e.Name()), "is no archive: its name does not end in " + Suffix}
	}
	name, err := episode.ParseName(stem)
	if err != nil {
		return Object{}, &StrayError{d.Path(e.Name()), "is no episode's name"}
	}
	if e.Type() != 0 {
		return Object{}, &StrayError{d.Path(e.Name()), "is no regular file"}
	}
	return r.stat(d, episode.Key{Host: host, Name: name})
}
