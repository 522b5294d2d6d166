package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Retired is an episode in the shipped directory.
type Retired struct {
	Dir        string       // its directory, which may have a suffix (see [Source.Retire])
	Name       episode.Name // as the receiver knows it
	HasReceipt bool         // it carries its receipt
	Receipt    Receipt      // if HasReceipt
	HasState   bool         // it has its state, as shippers record it since 2026-11-29
	State      State        // if HasState
	Change     *Change      // that was recorded; nil if none was
	Err        error        // why nothing is known of it, or nil
	// MarkedAt is the ctime of its marker: when it came to this host, or was changed last. It is zero
	// without a marker.
	MarkedAt time.Time
}

// AllRetired yields the retired episodes, in no order. It skips what is not a directory with the
// name of an episode.
func (s *Source) AllRetired() iter.Seq2[Retired, error] {
	return func(yield func(Retired, error) bool) {
		for e, err := range s.shipped.Names() {
			if err != nil {
				yield(Retired{}, err)
				return
			}
			if !e.IsDir() {
				continue
			}
			r, err := s.ReadRetired(e.Name())
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errStray) {
				continue // moved meanwhile, or not an episode
			}
			if err != nil && !errors.Is(err, durable.ErrFault) {
				// What the receiver has of this one is unknown. The others continue.
				r.HasReceipt, r.Err, err = false, err, nil
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// CountRetiredDirs returns the number of directories in the shipped directory, without opening them.
func (s *Source) CountRetiredDirs() (int, error) {
	n := 0
	for e, err := range s.shipped.Names() {
		if err != nil {
			return n, err
		}
		if e.IsDir() {
			n++
		}
	}
	return n, nil
}

// errStray says that a name is not of a retired episode.
var errStray = errors.New("is not a retired episode")

// ReadRetired returns what one directory of the shipped directory holds. It returns an error
// wrapping [fs.ErrNotExist] if there is none, and a [*durable.ReadError] if the disk does not
// return its data.
func (s *Source) ReadRetired(dir string) (Retired, error) {
	r, err := s.parseRetired(dir)
	return r, durable.AsReadError(err)
}

func (s *Source) parseRetired(dir string) (Retired, error) {
	stem, _, _ := strings.Cut(dir, "~")
	name, err := episode.ParseName(stem)
	if err != nil {
		return Retired{}, fmt.Errorf("%+q %w", dir, errStray)
	}
	d, err := s.shipped.OpenDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		return Retired{Dir: dir, Name: name, Err: err}, nil
	}
	if err != nil {
		return Retired{Dir: dir, Name: name}, err
	}
	defer d.Close()
	r := Retired{Dir: dir, Name: name}
	if marker, err := d.Lstat(episode.Marker); err == nil {
		r.MarkedAt = marker.ChangedAt()
	}
	if r.Receipt, r.HasReceipt, err = ReceiptOf(d); err != nil {
		return r, err
	}
	r.State, r.HasState, r.Change, err = readState(d)
	return r, err
}

// Resend moves a retired episode back to the episodes directory, durably, so that it is packed and
// sent again. It returns an error wrapping [fs.ErrExist] if there is an episode of its name.
func (s *Source) Resend(r Retired) error {
	d, err := s.shipped.OpenDir(r.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	marker, err := d.Lstat(episode.Marker)
	if err != nil || !marker.IsRegular() {
		return errors.Join(err, fmt.Errorf("%s has no regular %s: it would never be sent", d.Path(""), episode.Marker))
	}
	return s.shipped.Rename(r.Dir, s.episodes, string(r.Name))
}

// CountRetired returns how many episodes the shipped directory has, each once however often it was
// delivered, and when the directory last changed. If that is when lastChange says, it counts nothing
// and returns false.
func (s *Source) CountRetired(ctx context.Context, lastChange time.Time) (n int64, changedAt time.Time, counted bool, err error) {
	st, err := s.shipped.Stat() // before its names: one that comes meanwhile is counted by the next call
	if err != nil || st.ModTime().Equal(lastChange) {
		return 0, lastChange, false, err
	}
	for e, err := range s.shipped.Names() {
		if err != nil {
			return 0, time.Time{}, false, err
		}
		if err := ctx.Err(); err != nil {
			return 0, time.Time{}, false, err
		}
		if _, err := episode.ParseName(e.Name()); err == nil && e.IsDir() { // a second copy has a suffix
			n++
		}
	}
	return n, st.ModTime(), true, nil
}
