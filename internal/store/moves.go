package store

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// tryMoves tests the links and renames between the directories of the store.
func (s *Store) tryMoves() error {
	err := s.staging.TryLink(s.episodes)
	if err == nil {
		err = s.staging.TryMove(s.quarantine)
	}
	return asUnsuitableMove(err)
}

// asUnsuitableMove returns err as an [ErrUnsuitable] if it says that files cannot be linked or
// moved between two directories.
func asUnsuitableMove(err error) error {
	_, separate := errors.AsType[*durable.SeparateError](err)
	switch {
	case separate, errors.Is(err, durable.ErrNoRename):
		return asUnsuitable(err)
	case errors.Is(err, durable.ErrNoLinks):
		return asUnsuitable(fmt.Errorf("%w: use a disk with ext4 or xfs", err))
	}
	return err
}

// CheckHost returns a [*durable.SeparateError] if the directory of a host is a separate mount
// or file system: an upload could be received, and not stored.
func (s *Store) CheckHost(host episode.Name) error { return checkHost(s.staging, s.episodes, host) }

// checkHost returns nil for a directory that is missing: it will be created in the right place.
// It also does for one that cannot be opened: the next operation in it returns the error.
func checkHost(staging, episodes *durable.Dir, host episode.Name) error {
	to, err := episodes.OpenDir(string(host))
	if err != nil {
		return nil
	}
	defer to.Close()
	from, err := staging.OpenDir(string(host))
	if err != nil {
		return staging.CheckSeparate(to)
	}
	defer from.Close()
	return from.CheckSeparate(to)
}

// SeparateHosts yields the error of each host whose directory is a separate mount or file
// system: its archives cannot be stored. It skips other errors.
func (s *Store) SeparateHosts() iter.Seq2[episode.Name, error] {
	return separateHosts(s.staging, s.episodes)
}

func separateHosts(staging, episodes *durable.Dir) iter.Seq2[episode.Name, error] {
	return func(yield func(episode.Name, error) bool) {
		for e, err := range episodes.Names() {
			if err != nil {
				return
			}
			host, err := episode.ParseName(e.Name())
			if err != nil || !e.IsDir() {
				continue
			}
			err = checkHost(staging, episodes, host)
			if _, separate := errors.AsType[*durable.SeparateError](err); separate && !yield(host, err) {
				return
			}
		}
	}
}

// CheckMoves returns an [ErrUnsuitable] for the directories of a data directory, as far as they
// exist, and an error for each host whose directory is separate. It changes nothing.
func CheckMoves(data *durable.Dir) error {
	var dirs []*durable.Dir
	for _, name := range []string{"staging", "episodes", "quarantine"} {
		d, err := data.OpenDir(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil // the start creates them, or reports the error
		}
		if err != nil {
			return err
		}
		defer d.Close()
		dirs = append(dirs, d)
	}
	staging, episodes, quarantine := dirs[0], dirs[1], dirs[2]
	err := staging.CheckSeparate(episodes)
	if err == nil {
		err = staging.CheckSeparate(quarantine)
	}
	if err != nil {
		return asUnsuitableMove(err)
	}
	var errs []error
	for host, err := range separateHosts(staging, episodes) {
		errs = append(errs, hostError(host, err))
	}
	return errors.Join(errs...)
}

func hostError(host episode.Name, err error) error {
	return asUnsuitable(fmt.Errorf("nothing of host %s can be stored: %w", host, err))
}
