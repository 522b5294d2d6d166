package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
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
	Digest     digest.Digest // zero if the file does not have the attribute
	ReceivedAt time.Time     // time of arrival, or the file's own time without the attribute
	// Indexed reports that the receiver stored the file and that its row is durable: no
	// search of the index is needed.
	Indexed bool
	// InFlight reports that the file has a second link in staging: its row is about to be
	// appended, or a crash came before that. Other links, of a backup for example, do not
	// count.
	InFlight bool
	// VerifiedAt is when [Reader.ReadBack] last read this file from this disk, found that it
	// has the Digest, and decoded it; zero if that is not known.
	VerifiedAt time.Time
	// Contents is the digest of what the archive contains, as that reading computed
	// it; zero if it is not known.
	Contents digest.Digest
	// Decoded is set by [Reader.ReadBack] if it knew the result of decoding, and did not
	// decode the bytes again.
	Decoded Decoded
}

// Reader reads stored archives. It may run beside a live receiver.
type Reader struct {
	// Uncached, if it is set, replaces [durable.Dir.OpenUncached]. Tests simulate a failing
	// disk with it.
	Uncached func(dir *durable.Dir, name string) (io.ReadCloser, error)
	// Volumes distinguishes the files from copies of them. Tests simulate another disk with
	// it.
	Volumes *device.Volumes

	episodes *durable.Dir
	staging  *durable.Dir // nil if there is none
}

// OpenReader opens the episodes directory at path. It writes nothing.
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
func (r *Reader) Volume() (device.Volume, error) { return r.Volumes.FindVolume(r.episodes.File()) }

// Close closes the directories.
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
// [ErrUnreadable] if the disk returns an error.
func (r *Reader) Stat(key episode.Key) (Object, error) {
	d, err := r.episodes.OpenDir(string(key.Host))
	if err != nil {
		return Object{}, readError(err)
	}
	defer d.Close()
	o, err := r.statIn(d, key)
	return o, readError(err)
}

// hasStagedLink reports whether the stored file of key has a link in staging.
func (r *Reader) hasStagedLink(key episode.Key, stored durable.Stat) (bool, error) {
	if r.staging == nil {
		return false, nil
	}
	for a, err := range stagedFilesOf(r.staging, key) {
		if err != nil {
			return false, err
		}
		if st, err := a.dir.Lstat(a.name); err == nil && st.IsSameFile(stored) {
			return true, nil
		}
	}
	return false, nil
}

// fileTime returns a file's own time, or the nearest one within the years 1 to 9999, which a
// row and an inventory can have.
func fileTime(st durable.Stat) time.Time {
	at := st.ModTime().UTC()
	// A comparison of time.Time values would overflow.
	if first := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC); at.Unix() < first.Unix() {
		return first
	}
	if end := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC); at.Unix() >= end.Unix() {
		return end.Add(-time.Microsecond)
	}
	return at
}

func (r *Reader) statIn(d *durable.Dir, key episode.Key) (Object, error) {
	name := fileName(key.Name)
	st, err := d.Lstat(name)
	if err != nil {
		return Object{}, err
	}
	if !st.IsRegular() {
		return Object{}, &StrayError{d.Path(name), "is not a regular file"}
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
	b, err := readAttr(f, receiptAttr)
	if err != nil {
		return Object{}, err
	}
	receipt, ok := parseRecord[receiptRecord](b)
	if !ok {
		return o, nil
	}
	id, err := r.Volumes.Identify(f)
	if err != nil {
		return Object{}, err
	}
	o.Digest, o.ReceivedAt = receipt.Digest, time.Unix(0, receipt.Arrived).UTC()
	o.Indexed = !o.InFlight && receipt.File == fileID(id.File[:8])
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

// A StrayError is about a name in the store that is not an archive. Walks continue after it.
type StrayError struct {
	Path   string
	Reason string
}

func (e *StrayError) Error() string { return fmt.Sprintf("%+q %s", e.Path, e.Reason) }

// AllHosts yields the hosts that have a directory, unsorted.
func (r *Reader) AllHosts() iter.Seq2[episode.Name, error] {
	return func(yield func(episode.Name, error) bool) {
		for e, err := range r.episodes.Names() {
			if err != nil {
				yield("", err)
				return
			}
			if durable.IsProbe(e.Name()) {
				continue // of a start in progress, or one that was killed
			}
			name, err := episode.ParseName(e.Name())
			switch {
			case err != nil:
				err = &StrayError{r.episodes.Path(e.Name()), "is not a valid host name"}
			case !e.IsDir():
				err = &StrayError{r.episodes.Path(e.Name()), "is not a directory"}
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

// HostNames returns the hosts that have a directory, sorted. It skips other names.
func (r *Reader) HostNames() ([]episode.Name, error) {
	var hosts []episode.Name
	for host, err := range r.AllHosts() {
		if _, stray := errors.AsType[*StrayError](err); stray {
			continue
		}
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, host)
	}
	slices.Sort(hosts)
	return hosts, nil
}

// HostObjects yields the objects of one host, unsorted. It continues after a [*StrayError] or
// an error of one file, and ends after an error of the directory.
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
				continue // moved meanwhile
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
		return Object{}, &StrayError{d.Path(e.Name()), "is not an archive: its name does not end in " + Suffix}
	}
	name, err := episode.ParseName(stem)
	if err != nil {
		return Object{}, &StrayError{d.Path(e.Name()), "is not a valid episode name"}
	}
	if e.Type() != 0 {
		return Object{}, &StrayError{d.Path(e.Name()), "is not a regular file"}
	}
	return r.statIn(d, episode.Key{Host: host, Name: name})
}
