package datadir_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// openStore creates the identity of an empty store, and returns its directory.
func openStore(t *testing.T) (dir string, w *datadir.StoreWatch) {
	t.Helper()
	dir = newDataDir(t)
	data, err := durable.Open(dir)
	fixture.Must(t, err)
	t.Cleanup(func() { data.Close() })
	w, created, err := datadir.OpenStore(data, slog.New(slog.DiscardHandler), true, time.Now())
	fixture.Must(t, err)
	if !created {
		t.Error("the store had an id before")
	}
	return dir, w
}

// An operator may have edited the file.
func TestRewoundWithoutAFormerStoreIsRewound(t *testing.T) {
	dir, w := openStore(t)
	fixture.Must(t, os.WriteFile(filepath.Join(dir, "store.json"), []byte(`{"schema_version":1,"id":"A"}`), 0o640))
	did, err := datadir.RewindStore(t.Context(), dir, "the test", time.Now())
	if err != nil || did.Former != "A" || !did.Changed {
		t.Errorf("got %+v, %v, want a change from A", did, err)
	}
	if got := w.Current(); got.ID != did.ID {
		t.Errorf("an open store has the id %q, want %q", got.ID, did.ID)
	}
}

// TestReplacedStoresAreBounded: the oldest ids are dropped, and no command fails.
func TestReplacedStoresAreBounded(t *testing.T) {
	dir, w := openStore(t)
	for i := range wire.MaxReplaced {
		_, err := datadir.ReplaceStore(t.Context(), dir, fmt.Sprintf("OLD%03d", i), "the test")
		fixture.Must(t, err)
	}
	before := w.Current()
	did, err := datadir.RewindStore(t.Context(), dir, "the test", time.Now())
	fixture.Must(t, err)
	if got := w.Current(); got.ID != did.ID || len(got.Replaces) != wire.MaxReplaced || got.Replaces[0] != before.ID || slices.Contains(got.Replaces, "OLD000") {
		t.Errorf("got %+v, want %d former stores beginning with %s", got, wire.MaxReplaced, before.ID)
	}
}

func TestStoreThatBeganEmptyIsNewUntilItReplacesAnother(t *testing.T) {
	dir, _ := openStore(t)
	if is, err := datadir.InspectStore(dir); err != nil || !is.New {
		t.Errorf("got %+v, %v, want a new store", is, err)
	}
	_, err := datadir.ReplaceStore(t.Context(), dir, "OLD1", "the test")
	fixture.Must(t, err)
	if is, err := datadir.InspectStore(dir); err != nil || is.New {
		t.Errorf("got %+v, %v, want a store that is not new", is, err)
	}
}

// TestNoCommandNamesAStore: only a start of the receiver does.
func TestNoCommandNamesAStore(t *testing.T) {
	dir := newDataDir(t)
	if _, err := datadir.InspectStore(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("InspectStore returned %v", err)
	}
	if _, err := datadir.ReplaceStore(t.Context(), dir, "OLD1", "the test"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReplaceStore returned %v", err)
	}
	if fixture.Exists(filepath.Join(dir, "store.json")) {
		t.Error("a command made a name")
	}
}
