// Package hostdir opens the three directories of a lab host (episodes, outbox and shipped),
// locks them, and checks that they stay where the configuration says.
//
// Invariant: only the process that holds the result of [Acquire] packs, sends and retires.
// What [Open] returns holds no lock.
package hostdir

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/outbox"
	"cis490/internal/pathwatch"
	"cis490/internal/source"
)

// Config names the directories.
type Config struct {
	Episodes, Outbox, Shipped config.Path
	Limits                    archive.Limits // of one episode
	// Prunes reports that the configuration deletes retired episodes.
	Prunes bool
}

// Dirs are the open directories. They must be closed.
type Dirs struct {
	Source *source.Source
	Outbox *outbox.Outbox

	lock  *durable.Lock    // nil after [Open]
	paths *pathwatch.Watch // nil before [Dirs.WatchPaths]
}

// Open opens directories that exist, without the lock: for commands that work beside a
// running shipper.
func Open(c Config) (*Dirs, error) { return open(c, durable.Open) }

func open(c Config, openDir func(string) (*durable.Dir, error)) (*Dirs, error) {
	var dirs []*durable.Dir
	for _, path := range []config.Path{c.Episodes, c.Shipped, c.Outbox} {
		dir, err := openDir(string(path))
		if err != nil {
			for _, d := range dirs {
				err = errors.Join(err, d.Close())
			}
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return &Dirs{Source: source.New(dirs[0], dirs[1], c.Limits), Outbox: outbox.New(dirs[2])}, nil
}

// Acquire creates the directories that are missing and locks them. It returns a
// [*durable.LockedError] if another process has the lock; holder is the text that such a
// process reads. It removes what a crash left of packing, and checks that episodes can be
// moved between the directories.
func Acquire(c Config, holder string, log *slog.Logger) (*Dirs, error) {
	d, err := open(c, durable.Create)
	if err != nil {
		return nil, asConfigError(err)
	}
	if err := d.acquire(c, holder, log); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Dirs) acquire(c Config, holder string, log *slog.Logger) error {
	if err := d.checkDistinct(); err != nil {
		return err
	}
	var err error
	if d.lock, err = d.Outbox.Lock(holder); err != nil {
		return err
	}
	if err := errors.Join(d.Outbox.RemovePartials(), d.createTrash(holder)); err != nil {
		return err
	}
	warning, err := d.probeMoves(c, (*durable.Dir).TryMove)
	if warning != nil {
		log.Warn("retired episodes cannot be deleted", "err", warning)
	}
	if err != nil {
		return err
	}
	return d.WatchPaths(log)
}

// createTrash creates the directory for deletions while the disk has space for it.
func (d *Dirs) createTrash(holder string) error {
	trash, err := d.Outbox.OpenTrash(holder)
	if _, locked := errors.AsType[*durable.LockedError](err); locked || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil
	}
	if err != nil {
		return err
	}
	return trash.Close()
}

// WatchPaths starts to watch that the configured paths lead to the open directories. Log
// may be nil.
func (d *Dirs) WatchPaths(log *slog.Logger) error {
	episodes, shipped := d.Source.Dirs()
	var err error
	d.paths, err = pathwatch.New(episodes, shipped, d.Outbox.Dir())
	if err == nil && d.paths.MountListErr() != nil && log != nil {
		log.Warn("mounts are not watched", "err", d.paths.MountListErr())
	}
	return err
}

// CheckPaths returns a [*pathwatch.MovedError] if a configured path no longer leads to the open
// directory: experiments would then write to another directory, and what is retired would not be
// found. It must be called before each scan, and before an episode is packed or retired. The caller
// must have called [Dirs.WatchPaths].
func (d *Dirs) CheckPaths() error { return d.paths.Check() }

// Close closes the directories and releases the lock.
func (d *Dirs) Close() error {
	var errs []error
	if d.paths != nil {
		errs = append(errs, d.paths.Close())
	}
	errs = append(errs, d.Source.Close(), d.Outbox.Close())
	if d.lock != nil {
		errs = append(errs, d.lock.Unlock())
	}
	return errors.Join(errs...)
}
