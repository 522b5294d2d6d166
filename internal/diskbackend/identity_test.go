package diskbackend_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// logBuffer keeps the text of a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *logBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// drain returns what was logged since the last time.
func (s *logBuffer) drain() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.b.String()
	s.b.Reset()
	return text
}

func (l *lab) storeIdentity() wire.Store {
	l.Helper()
	s, err := l.b.Store()
	fixture.Must(l, err)
	return s
}

// TestNewEmptyStoreIsBegunLoudly, and one that has data gets its id quietly.
func TestNewEmptyStoreIsBegunLoudly(t *testing.T) {
	log := &logBuffer{}
	l := newLab(t, func(c *diskbackend.Config) {})
	first := l.storeIdentity()
	l.log = slog.NewTextHandler(log, nil)
	l.restart(func() {})
	if text := log.drain(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "a new, empty store") || !strings.Contains(text, first.ID) || !strings.Contains(text, l.Data) {
		t.Errorf("an empty store is begun with %q", text)
	}
	st, err := diskbackend.InspectStatus(l.cfg, time.Now())
	if err != nil || st.Store == nil || st.Store.ID != first.ID || !st.Store.Empty || st.Store.IndexBytes != 0 {
		t.Errorf("status of an empty store: %+v, %v", st.Store, err)
	}
	l.WantReceipt(key("lab-01", "run-1"), packNoise(1000, 1), wire.Stored)
	l.restart(func() {})
	if text := log.drain(); strings.Contains(text, "empty") {
		t.Errorf("a store with a row is begun with %q", text)
	}
	st, err = diskbackend.InspectStatus(l.cfg, time.Now())
	if err != nil || st.Store == nil || st.Store.Empty || st.Store.IndexBytes == 0 {
		t.Errorf("status of a store with a row: %+v, %v", st.Store, err)
	}
	if got := l.storeIdentity(); got.ID != first.ID {
		t.Errorf("a restart made %s of the store %s", got.ID, first.ID)
	}
	l.restart(func() { fixture.Must(t, os.Remove(filepath.Join(l.Data, "store.json"))) })
	text := log.drain()
	if strings.Contains(text, "WARN") || !strings.Contains(text, "store has an id now") {
		t.Errorf("an older store gets its id with %q", text)
	}
	if got := l.storeIdentity(); got.ID == first.ID || len(got.ID) < 26 {
		t.Errorf("the id of an older store is %q", got.ID)
	}
	// Archives without an index are data as well.
	l.restart(func() {
		fixture.Must(t, os.Remove(filepath.Join(l.Data, "index.jsonl")))
		fixture.Must(t, os.Remove(filepath.Join(l.Data, "store.json")))
	})
	if text := log.drain(); strings.Contains(text, "empty") {
		t.Errorf("a store with archives is begun with %q", text)
	}
}

// TestIndexBytesHaveTheRowOfTheReceipt after each upload, and after a restart, and they
// never decrease.
func TestIndexBytesHaveTheRowOfTheReceipt(t *testing.T) {
	l := newLab(t, nil)
	told := int64(0)
	check := func(what string, grows bool) {
		t.Helper()
		info, err := os.Stat(filepath.Join(l.Data, "index.jsonl"))
		fixture.Must(t, err)
		got := l.storeIdentity().IndexBytes
		if got != info.Size() || got < told || grows && got == told {
			t.Errorf("%s: told %d after %d, and the index has %d", what, got, told, info.Size())
		}
		told = got
	}
	for i := range 5 {
		k := key("lab-01", "run-"+string(rune('a'+i)))
		l.WantReceipt(k, packNoise(100, byte(i)), wire.Stored)
		check("stored", true)
		l.WantReceipt(k, packNoise(100, byte(i)), wire.AlreadyPresent)
		check("already present", false)
	}
	l.restart(func() {})
	check("restarted", false)
	l.restart(func() { // a power loss in the middle of a row
		f, err := os.OpenFile(filepath.Join(l.Data, "index.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
		fixture.Must(t, err)
		_, err = f.WriteString(`{"episode_id": "to`)
		fixture.Must(t, errors.Join(err, f.Close()))
	})
	check("torn", false)
}

func TestDamagedStoreNameIsNeverReplaced(t *testing.T) {
	l := newLab(t, nil)
	path := filepath.Join(l.Data, "store.json")
	good, err := os.ReadFile(path)
	fixture.Must(t, err)
	first := l.storeIdentity()
	for _, content := range []string{
		"", "{}", "null", string(good[:len(good)/2]), string(good) + "x", strings.Repeat(" ", 1<<20),
		strings.Replace(string(good), `"schema_version": 1`, `"schema_version": 2`, 1), strings.Replace(string(good), first.ID, "a/../b", 1),
	} {
		fixture.Must(t, os.WriteFile(path, []byte(content), 0o640))
		if got := l.storeIdentity(); got.ID != first.ID { // the open store is the same
			t.Errorf("a running receiver calls itself %q", got.ID)
		}
		l.stop()
		err := l.open()
		l.stop()
		if !errors.Is(err, datadir.ErrStoreFile) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("a start on %.40q: %v", content, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != content {
			t.Errorf("a start has made %q (%v) of %.40q", now, err, content)
		}
		if _, err := datadir.RewindStore(t.Context(), l.cfg.DataDir, "the test", time.Now()); !errors.Is(err, datadir.ErrStoreFile) {
			t.Errorf("a command on %.40q: %v", content, err)
		}
		fixture.Must(t, os.WriteFile(path, good, 0o640))
		l.start()
	}
	fixture.Must(t, os.Chmod(path, 0o666))
	l.stop()
	if err := l.open(); !errors.Is(err, datadir.ErrStoreFile) {
		t.Errorf("a start with a name that everybody may write: %v", err)
	}
}

// TestLostStoreNameIsSaidForWhatItIs: the next start would not fail, but create another id.
func TestLostStoreNameIsSaidForWhatItIs(t *testing.T) {
	log := &logBuffer{}
	l := newLab(t, nil)
	l.WantReceipt(key("lab-01", "run-1"), packNoise(100, 1), wire.Stored)
	l.log = slog.NewTextHandler(log, nil)
	l.restart(func() {})
	first := l.storeIdentity()
	log.drain()
	fixture.Must(t, os.Remove(filepath.Join(l.Data, "store.json")))
	if got := l.storeIdentity(); got.ID != first.ID {
		t.Errorf("a running receiver calls itself %q", got.ID)
	}
	if text := log.drain(); !strings.Contains(text, "the next start gives this store another id") || !strings.Contains(text, first.ID) {
		t.Errorf("logged %q, want the announcement of a new id and %s", text, first.ID)
	}
	l.restart(func() {})
	if got := l.storeIdentity(); got.ID == first.ID {
		t.Error("the next start knows the id")
	}
	if text := log.drain(); !strings.Contains(text, "receiver store replaces OLD-ID") {
		t.Errorf("the next start says %q", text)
	}
}

// TestReplacesTakesEffectBesideARunningReceiver.
func TestReplacesTakesEffectBesideARunningReceiver(t *testing.T) {
	l := newLab(t, nil)
	l.WantReceipt(key("lab-01", "run-1"), packNoise(1000, 1), wire.Stored)
	first := l.storeIdentity()
	for i, changed := range []bool{true, false} {
		did, err := datadir.ReplaceStore(t.Context(), l.cfg.DataDir, "OLD1", "the test")
		if err != nil || did.Changed != changed || did.Former != "OLD1" || did.ID != first.ID {
			t.Errorf("replacing OLD1, time %d: %+v, %v", i, did, err)
		}
		if got := l.storeIdentity(); got.ID != first.ID || !slices.Equal(got.Replaces, []string{"OLD1"}) {
			t.Errorf("the running receiver is %+v", got)
		}
	}
	if _, err := datadir.ReplaceStore(t.Context(), l.cfg.DataDir, first.ID, "the test"); err == nil {
		t.Error("a store replaces itself")
	}
	// Each time: an image of the same length may have been restored again.
	replaced := []string{first.ID, "OLD1"}
	for i := range 3 {
		did, err := datadir.RewindStore(t.Context(), l.cfg.DataDir, "the test", time.Now())
		if err != nil || !did.Changed || did.Former != replaced[0] || did.ID == replaced[0] {
			t.Errorf("rewinding, time %d: %+v, %v", i, did, err)
		}
		if got := l.storeIdentity(); got.ID != did.ID || !slices.Equal(got.Replaces, replaced) {
			t.Errorf("the running receiver is %+v, want %s", got, did.ID)
		}
		replaced = slices.Insert(replaced, 0, did.ID)
	}
	l.restart(func() {})
	if got := l.storeIdentity(); got.ID != replaced[0] || !slices.Equal(got.Replaces, replaced[1:]) {
		t.Errorf("after a restart it is %+v", got)
	}
}

// TestStoreThatBeganEmptyIsNewForADay, even with an archive that a refused host has left.
func TestStoreThatBeganEmptyIsNewForADay(t *testing.T) {
	l := newLab(t, nil)
	isNew := func() bool {
		t.Helper()
		is, err := datadir.InspectStore(l.cfg.DataDir)
		fixture.Must(t, err)
		return is.New
	}
	if !isNew() {
		t.Error("an empty store is not new")
	}
	l.WantReceipt(key("lab-01", "run-1"), packNoise(100, 1), wire.Stored)
	if !isNew() {
		t.Error("one archive makes it old")
	}
	_, err := datadir.ReplaceStore(t.Context(), l.cfg.DataDir, "OLD1", "the test")
	fixture.Must(t, err)
	if isNew() {
		t.Error("it is new although a person has said what it replaces")
	}
}

// TestNoCommandNamesAStore: only a start does.
func TestNoCommandNamesAStore(t *testing.T) {
	l := newLab(t, nil)
	l.stop()
	path := filepath.Join(l.Data, "store.json")
	fixture.Must(t, os.Remove(path))
	if st, err := diskbackend.InspectStatus(l.cfg, time.Now()); err != nil || st.Store != nil || len(st.Problems) > 0 {
		t.Errorf("status without a name: %+v %q, %v", st.Store, st.Problems, err)
	}
	if _, err := datadir.InspectStore(l.cfg.DataDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("store without a name: %v", err)
	}
	if _, err := datadir.ReplaceStore(t.Context(), l.cfg.DataDir, "OLD1", "the test"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("replaces without a name: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a command made a name: %v", err)
	}
}

// TestRestoredImageIsNotWhatItsHostsKnew, however long its index grows again.
func TestRestoredImageIsNotWhatItsHostsKnew(t *testing.T) {
	l := newLab(t, nil)
	stores := func(names ...string) {
		t.Helper()
		for _, n := range names {
			l.WantReceipt(key("lab-01", n), packNoise(100, n[0]), wire.Stored)
		}
	}
	has := func(what string, known wire.Store, want bool) {
		t.Helper()
		if got, err := l.b.HasStore(known); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	empty := l.storeIdentity()
	stores("a", "b")
	atImage := l.storeIdentity()
	image, err := os.ReadFile(filepath.Join(l.Data, "index.jsonl"))
	fixture.Must(t, err)
	stores("c", "d")
	before := l.storeIdentity()
	for what, known := range map[string]wire.Store{"empty": empty, "two rows": atImage, "four rows": before, "without a tail": {ID: before.ID, IndexBytes: 5}} {
		has(what, known, true)
	}
	has("a tail that never was", wire.Store{ID: before.ID, IndexBytes: atImage.IndexBytes, IndexTail: before.IndexTail}, false)
	has("another", wire.Store{ID: "OTHER"}, false)
	l.restart(func() {
		fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "index.jsonl"), image, 0o640))
		for _, n := range []string{"c", "d"} {
			fixture.Must(t, os.Remove(l.StoredPath(key("lab-01", n))))
		}
	})
	has("restored, what was before the image", atImage, true)
	has("restored, what was after it", before, false)
	stores("e", "f", "g", "h")
	if l.storeIdentity().IndexBytes <= before.IndexBytes {
		t.Fatal("it has not grown")
	}
	has("restored and grown, what was before the image", atImage, true)
	has("restored and grown, what was after it", before, false)
	if _, err := datadir.RewindStore(t.Context(), l.cfg.DataDir, "the test", time.Now()); err != nil {
		t.Fatal(err)
	}
	has("after it was said", before, true)
}
