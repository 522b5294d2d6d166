package hostdir_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/archive"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/hostdir"
	"cis490/internal/pathwatch"
)

func newConfig(t *testing.T) hostdir.Config {
	t.Helper()
	dir := t.TempDir()
	return hostdir.Config{
		Episodes: config.Path(filepath.Join(dir, "episodes")),
		Outbox:   config.Path(filepath.Join(dir, "outbox")),
		Shipped:  config.Path(filepath.Join(dir, "shipped")),
		Limits:   archive.DefaultLimits(),
	}
}

func acquire(t *testing.T, c hostdir.Config) *hostdir.Dirs {
	t.Helper()
	dirs, err := hostdir.Acquire(c, "the test", slog.New(slog.DiscardHandler))
	fixture.Must(t, err)
	t.Cleanup(func() { dirs.Close() })
	return dirs
}

// TestOnlyOneProcessHasTheLock, and commands work beside it.
func TestOnlyOneProcessHasTheLock(t *testing.T) {
	c := newConfig(t)
	acquire(t, c)
	_, err := hostdir.Acquire(c, "another", slog.New(slog.DiscardHandler))
	if _, locked := errors.AsType[*durable.LockedError](err); !locked {
		t.Errorf("got %v, want a LockedError", err)
	}
	beside, err := hostdir.Open(c)
	if err != nil {
		t.Fatalf("open beside the process with the lock: %v", err)
	}
	if err := beside.Close(); err != nil {
		t.Error(err)
	}
}

func TestDirectoriesMustBeDistinctAlsoByALink(t *testing.T) {
	c := newConfig(t)
	fixture.Must(t, os.Mkdir(string(c.Episodes), 0o755))
	fixture.Must(t, os.Symlink("episodes", string(c.Shipped)))
	_, err := hostdir.Acquire(c, "the test", slog.New(slog.DiscardHandler))
	if _, refused := errors.AsType[*hostdir.ConfigError](err); !refused {
		t.Errorf("got %v, want a ConfigError", err)
	}
}

func TestMovedDirectoryIsNoticed(t *testing.T) {
	c := newConfig(t)
	dirs := acquire(t, c)
	if err := dirs.CheckPaths(); err != nil {
		t.Fatalf("before: %v", err)
	}
	fixture.Must(t, os.Rename(string(c.Shipped), string(c.Shipped)+".x"))
	err := dirs.CheckPaths()
	if moved, ok := errors.AsType[*pathwatch.MovedError](err); !ok || moved.Path != string(c.Shipped) {
		t.Errorf("got %v, want that %s was moved", err, c.Shipped)
	}
}
