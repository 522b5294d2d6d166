package hostdir

import (
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/config"
	"cis490/internal/durable"
)

// ConfigError says that the configured directories cannot be used as they are.
type ConfigError struct {
	Err error
}

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// asConfigError returns err as a [*ConfigError] if its cause is the place of a directory.
func asConfigError(err error) error {
	_, separate := errors.AsType[*durable.SeparateError](err)
	_, dangling := errors.AsType[*durable.DanglingError](err)
	if separate || dangling || errors.Is(err, durable.ErrNoRename) {
		return &ConfigError{err}
	}
	return err
}

// CheckKernel returns an error if this kernel, or a seccomp filter, refuses a system call
// that the shipper needs. Without it, each episode would be held or retried forever.
func CheckKernel() error {
	return durable.CheckCalls(append(durable.RefusedCalls(), durable.BeneathCall())...)
}

// CheckMoves returns a [*ConfigError] if two of the directories are one, if they are not on
// one mount and file system, or if one is a dangling link. It skips what does not exist or
// cannot be opened by this process. It changes nothing, because root runs it and others can
// write to the episodes directory. [Acquire] checks more.
func CheckMoves(c Config) error {
	if err := checkDangling(c.Episodes, c.Shipped, c.Outbox); err != nil {
		return err
	}
	d, err := Open(c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // the start creates them, or reports what is wrong
	}
	if err != nil {
		return err
	}
	if err = d.checkDistinct(); err == nil {
		_, err = d.probeMoves(c, (*durable.Dir).CheckSeparate)
	}
	return errors.Join(err, d.Close())
}

// checkDangling returns a [*ConfigError] if one of the paths is a dangling link, whether or
// not the others exist.
func checkDangling(paths ...config.Path) error {
	for _, path := range paths {
		dir, err := durable.Open(string(path))
		if err == nil {
			dir.Close()
		} else if _, dangling := errors.AsType[*durable.DanglingError](err); dangling {
			return &ConfigError{err}
		}
	}
	return nil
}

// checkDistinct returns a [*ConfigError] if two of the directories are one, or one is within
// another. It follows links, which a comparison of the configured paths does not.
func (d *Dirs) checkDistinct() error {
	episodes, shipped := d.Source.Dirs()
	dirs := []*durable.Dir{episodes, d.Outbox.Dir(), shipped}
	for _, a := range dirs {
		for _, b := range dirs {
			if a == b {
				continue
			}
			inside, err := a.Contains(b)
			if err != nil {
				return err
			}
			if inside {
				return &ConfigError{fmt.Errorf("%s is the same folder as %s, or within it, by a link: "+
					"episodes_dir, outbox_dir and shipped_dir must be three folders, none within another", b.Path(""), a.Path(""))}
			}
		}
	}
	return nil
}

// probeMoves probes the move that retires an episode and the one that deletes it. If the
// configuration does not prune and all directories are on one file system, a failure of the
// second is only a warning: such configurations have always worked.
func (d *Dirs) probeMoves(c Config, probe func(from, to *durable.Dir) error) (warning, err error) {
	episodes, shipped := d.Source.Dirs()
	if err := probe(episodes, shipped); err != nil {
		return nil, asConfigError(err)
	}
	err = d.Outbox.ProbeTrash(shipped, probe)
	if _, separate := errors.AsType[*durable.SeparateError](err); separate && !c.Prunes && onOneDevice(shipped, d.Outbox.Dir()) {
		return err, nil
	}
	return nil, asConfigError(err)
}

func onOneDevice(a, b *durable.Dir) bool {
	x, xerr := a.Device()
	y, yerr := b.Device()
	return xerr == nil && yerr == nil && x == y
}
