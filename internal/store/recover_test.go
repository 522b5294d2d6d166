package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

// TestRecoveryOfEachCrashPoint creates by hand the state that a crash leaves.
func TestRecoveryOfEachCrashPoint(t *testing.T) {
	k := key("h", "e")
	const kept = "episodes/h/e.tar.zst"
	for _, c := range []struct {
		what               string
		lay                func(l *lab)
		published, damaged bool
		after              string
	}{
		{"in the middle of the body", func(l *lab) {
			l.writeFile(l.stagedPath("h", "e~1"), "half")
		}, false, false, ""},
		{"before the link, host known", func(l *lab) {
			fixture.Must(l, l.upload(k, "whole").Close())
			fixture.Must(l, os.MkdirAll(filepath.Dir(l.storedPath(k)), 0o750))
		}, false, false, ""},
		{"after the link", func(l *lab) { l.commitWithoutRow(k, "whole") }, true, false, kept},
		{"after the link, without attributes", func(l *lab) {
			l.writeFile(l.storedPath(k), "whole")
			fixture.Must(l, os.MkdirAll(filepath.Dir(l.stagedPath("h", "e")), 0o750))
			fixture.Must(l, os.Link(l.storedPath(k), l.stagedPath("h", "e~1")))
		}, true, false, kept},
		{"beside an archive that was first", func(l *lab) {
			l.put(k, "first")
			l.writeFile(l.stagedPath("h", "e~1"), "second")
		}, false, false, kept},
		{"beside the same bytes in another file", func(l *lab) {
			l.put(k, "same")
			l.writeFile(l.stagedPath("h", "e~1"), "same")
		}, false, false, kept},
		{"with bytes that the disk lost", func(l *lab) {
			l.commitWithoutRow(k, "whole")
			flipByteAt(l, l.storedPath(k), 2)
		}, false, true, "quarantine/h/e~"},
		{"with a length that the disk lost", func(l *lab) {
			l.commitWithoutRow(k, "whole")
			fixture.Must(l, os.Truncate(l.storedPath(k), 0))
		}, false, true, "quarantine/h/e~"},
	} {
		t.Run(c.what, func(t *testing.T) {
			l := newLab(t)
			c.lay(l)
			l = openLab(t, l.data)
			published, damaged := l.recoverLeftover()
			if published != c.published || damaged != c.damaged {
				t.Errorf("published %v, damaged %v; want %v, %v", published, damaged, c.published, c.damaged)
			}
			l.wantFiles(c.after)
			if again := l.leftovers(); len(again) != 0 {
				t.Errorf("%d leftovers after recovery", len(again))
			}
			if _, err := os.Stat(l.storedPath(k)); err != nil {
				return
			}
			if o, err := l.Stat(k); err != nil || o.InFlight {
				t.Errorf("after recovery %+v, %v", o, err)
			}
		})
	}
}

func TestPublishedTellsDigestAndTime(t *testing.T) {
	l := newLab(t)
	k := key("h", "e")
	l.commitWithoutRow(k, "whole")
	for _, st := range l.leftovers() {
		if st.Key != k {
			t.Errorf("key %s", st.Key)
		}
	}
	for st, err := range l.AllStaged() {
		fixture.Must(t, err)
		o, ok, err := st.Linked(t.Context(), nil)
		if !ok || err != nil || o.Digest != sum("whole") || !o.ReceivedAt.Equal(arrival) || o.Size != 5 || o.Indexed {
			t.Errorf("%+v, %v, %v", o, ok, err)
		}
	}
}

func TestReadingStopsWithItsContext(t *testing.T) {
	l := newLab(t)
	k := key("h", "e")
	l.put(k, "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.ReadBack(ctx, k, digest.Digest{}, store.Reading{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestStraysInStagingAreReportedAndLeft(t *testing.T) {
	l := newLab(t)
	outside := t.TempDir()
	l.writeFile(filepath.Join(outside, "secret~1"), "x")
	fixture.Must(t, os.Symlink(outside, filepath.Join(l.data, "staging", "linked")))
	l.writeFile(filepath.Join(l.data, "staging", "file"), "x")
	l.writeFile(l.stagedPath("h", ".hidden~1"), "x")
	fixture.Must(t, os.MkdirAll(l.stagedPath("h", "dir~1"), 0o750))
	fixture.Must(t, os.Symlink(filepath.Join(outside, "secret~1"), l.stagedPath("h", "link~1")))
	l.writeFile(l.stagedPath("h", "e~1"), "x")
	strays, uploads := 0, 0
	for st, err := range l.AllStaged() {
		if _, ok := errors.AsType[*store.StrayError](err); ok {
			strays++
			continue
		}
		fixture.Must(t, err)
		uploads++
		if st.Key != key("h", "e") {
			t.Errorf("took %s for an upload", st.Key)
		}
	}
	if strays != 5 || uploads != 1 {
		t.Errorf("%d strays and %d uploads, want 5 and 1", strays, uploads)
	}
	l.wantContent(filepath.Join(outside, "secret~1"), "x")
}

func TestStraysInTheTreeAreReportedAndTheWalkContinues(t *testing.T) {
	l := newLab(t)
	outside := t.TempDir()
	l.writeFile(filepath.Join(outside, "e.tar.zst"), "secret")
	episodes := filepath.Join(l.data, "episodes")
	fixture.Must(t, os.Symlink(outside, filepath.Join(episodes, "linked")))
	l.writeFile(filepath.Join(episodes, "notes.txt"), "x")
	l.writeFile(filepath.Join(episodes, ".hidden", "e.tar.zst"), "x")
	l.put(key("h", "e"), "good")
	l.put(key("h", "f"), "good")
	l.writeFile(filepath.Join(episodes, "h", "e.tar.gz"), "x")
	l.writeFile(filepath.Join(episodes, "h", ".tar.zst"), "x")
	fixture.Must(t, os.Mkdir(filepath.Join(episodes, "h", "dir.tar.zst"), 0o750))
	fixture.Must(t, os.Symlink(filepath.Join(outside, "e.tar.zst"), filepath.Join(episodes, "h", "link.tar.zst")))

	hosts, strays := 0, 0
	for host, err := range l.AllHosts() {
		if isStray(t, err) {
			strays++
			continue
		}
		hosts++
		if host != "h" {
			t.Errorf("took %s for a host", host)
		}
	}
	if hosts != 1 || strays != 3 {
		t.Errorf("%d hosts and %d strays, want 1 and 3", hosts, strays)
	}
	objects, strays := 0, 0
	for o, err := range l.HostObjects("h") {
		if isStray(t, err) {
			strays++
			continue
		}
		objects++
		if o.Digest != sum("good") {
			t.Errorf("took %+v for an archive", o)
		}
	}
	if objects != 2 || strays != 4 {
		t.Errorf("%d objects and %d strays, want 2 and 4", objects, strays)
	}
}

func isStray(tb testing.TB, err error) bool {
	tb.Helper()
	if _, ok := errors.AsType[*store.StrayError](err); ok {
		return true
	}
	fixture.Must(tb, err)
	return false
}

// TestLinkedFolderIsNeverEntered puts links where the store has folders.
func TestLinkedFolderIsNeverEntered(t *testing.T) {
	l := newLab(t)
	outside := t.TempDir()
	l.writeFile(filepath.Join(outside, "e.tar.zst"), "secret")
	fixture.Must(t, os.Symlink(outside, filepath.Join(l.data, "episodes", "h")))
	k := key("h", "e")
	if o, err := l.Stat(k); err == nil {
		t.Errorf("Stat: %+v", o)
	}
	if f, err := l.Store.Open(k); err == nil {
		t.Errorf("Open: %v", f.Name())
	}
	if _, err := l.Read(t.Context(), k, store.Reading{}); err == nil {
		t.Error("Read read it")
	}
	if err := l.Quarantine(k); err == nil {
		t.Error("SetAside moved it")
	}
	u := l.upload(key("h", "new"), "x")
	if err := u.Commit(sum("x"), arrival); err == nil {
		t.Error("Commit wrote there")
	}
	fixture.Must(t, u.Discard())
	// A link as an archive.
	fixture.Must(t, os.Mkdir(filepath.Join(l.data, "episodes", "i"), 0o750))
	fixture.Must(t, os.Symlink(filepath.Join(outside, "e.tar.zst"), l.storedPath(key("i", "e"))))
	if o, err := l.Stat(key("i", "e")); err == nil {
		t.Errorf("Stat: %+v", o)
	}
	fixture.Must(t, os.Symlink(outside, filepath.Join(l.data, "staging", "i")))
	if _, err := l.CreateUpload(key("i", "f")); err == nil {
		t.Error("Create wrote there")
	}
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Errorf("outside has %v", names)
	}
}
