package shipper

import (
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/outbox"
	"cis490/internal/source"
)

// ConfigError says that what the configuration names cannot be used as it is.
type ConfigError struct {
	Err error
}

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Err }

// CheckKernel returns an error if this kernel, or a filter, refuses a system call that the
// shipper cannot do without: each episode would be held, or tried for ever.
func CheckKernel() error {
	return durable.CheckCalls(append(durable.Calls(), durable.BeneathCall())...)
}

// moves probes all moves between the folders: an episode is retired by one, and deleted
// by another. Without a policy of retention that the second is not possible is a warning,
// as long as all are on one file system: such a configuration has always worked.
func moves(c Config, src *source.Source, out *outbox.Outbox, probe func(from, to *durable.Dir) error) (warning, err error) {
	episodes, shipped := src.Dirs()
	if err := probe(episodes, shipped); err != nil {
		return nil, asConfigError(err)
	}
	err = out.TryTrash(shipped, probe)
	if _, separate := errors.AsType[*durable.SeparateError](err); separate && !c.Retention.On() && onOneDevice(shipped, out.Dir()) {
		return err, nil
	}
	return nil, asConfigError(err)
}

// asConfigError returns err as a [*ConfigError] if it is about where the folders are.
func asConfigError(err error) error {
	_, separate := errors.AsType[*durable.SeparateError](err)
	_, dangling := errors.AsType[*durable.DanglingError](err)
	if separate || dangling || errors.Is(err, durable.ErrNoRename) {
		return &ConfigError{err}
	}
	return err
}

func onOneDevice(a, b *durable.Dir) bool {
	x, xerr := a.Device()
	y, yerr := b.Device()
	return xerr == nil && yerr == nil && x == y
}

// threeFolders returns a [*ConfigError] if two of the folders are one, or one is within
// another. [Config.Validate] compares what they are called; here links are followed.
func threeFolders(src *source.Source, out *outbox.Outbox) error {
	episodes, shipped := src.Dirs()
	dirs := []*durable.Dir{episodes, out.Dir(), shipped}
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

// CheckMoves returns a [*ConfigError] if the folders of c are not three, or are not on one
// mount and file system, or one is a link to nothing, as far as they exist and this process may open them. It changes nothing: root
// runs it, and others can write in episodes_dir. A start tries more.
func CheckMoves(c Config) error {
	if err := noDangling(c.EpisodesDir, c.ShippedDir, c.OutboxDir); err != nil {
		return err
	}
	src, out, err := folders(c, durable.Open)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // the start makes them, or says what is wrong
	}
	if err != nil {
		return err
	}
	if err = threeFolders(src, out); err == nil {
		_, err = moves(c, src, out, (*durable.Dir).CheckSeparate)
	}
	return errors.Join(err, src.Close(), out.Close())
}

// noDangling returns a [*ConfigError] if one of the folders is a link to nothing: others
// may be missing before it.
func noDangling(paths ...config.Path) error {
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
