package durable_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

func TestLogGrows(t *testing.T) {
	d, path := openTemp(t)
	for _, line := range []string{"one\n", "two\n"} {
		l, err := d.OpenLog("log", 0o600)
		fixture.Must(t, err)
		fixture.Must(t, l.Lock())
		fixture.Must(t, l.Append([]byte(line)))
		fixture.Must(t, l.Unlock())
		fixture.Must(t, l.Close())
	}
	if got := fixture.ReadFile(t, filepath.Join(path, "log")); got != "one\ntwo\n" {
		t.Errorf("the log holds %q", got)
	}
}

func TestLogIsCut(t *testing.T) {
	d, path := openTemp(t)
	writeFile(t, filepath.Join(path, "log"), "whole\ntorn")
	l, err := d.OpenLog("log", 0o600)
	fixture.Must(t, err)
	defer l.Close()
	fixture.Must(t, l.Truncate(6))
	fixture.Must(t, l.Append([]byte("next\n")))
	if got := fixture.ReadFile(t, filepath.Join(path, "log")); got != "whole\nnext\n" {
		t.Errorf("the log holds %q", got)
	}
}

// TestFullDiskLeavesTheLogAsItWas appends more than fits: part of it is written, and must be
// removed again.
func TestFullDiskLeavesTheLogAsItWas(t *testing.T) {
	path := fixture.MountTmpfs(t, "size=1m")
	d := openAt(t, path)
	l, err := d.OpenLog("log", 0o600)
	fixture.Must(t, err)
	defer l.Close()
	fixture.Must(t, l.Append([]byte("first\n")))
	err = l.Append(bytes.Repeat([]byte("x"), 2<<20))
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, durable.ErrFault) {
		t.Errorf("a full disk gives %v, want ENOSPC and no fault", err)
	}
	if size, err := l.Size(); size != 6 || err != nil {
		t.Errorf("the log has %d bytes, want 6; %v", size, err)
	}
	fixture.Must(t, l.Append([]byte("second\n")))
	if got := fixture.ReadFile(t, filepath.Join(path, "log")); got != "first\nsecond\n" {
		t.Errorf("the log holds %.40q", got)
	}
}

func TestFullDiskIsNoFault(t *testing.T) {
	path := fixture.MountTmpfs(t, "size=1m")
	d := openAt(t, path)
	fixture.FillDisk(t, filepath.Join(path, "filler"))
	f, err := d.Create("f", 0o600)
	fixture.Must(t, err)
	_, err = f.Write(make([]byte, 64<<10))
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, durable.ErrFault) {
		t.Errorf("a full disk gives %v, want ENOSPC and no fault", err)
	}
	fixture.Must(t, f.Discard())
	if err := d.WriteFile("g", make([]byte, 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk gives %v", err)
	}
	wantEntries(t, path, "filler")
}

// TestFailedSyncIsAFault uses a file system whose disk lacks the space that it promised, like a
// thin volume or a broken card: the write succeeds, and fsync fails with ENOSPC or EIO.
func TestFailedSyncIsAFault(t *testing.T) {
	content := strings.Repeat("x", 4<<20)
	for what, begin := range map[string]func(t *testing.T, d *durable.Dir) func() error{
		"Commit": func(t *testing.T, d *durable.Dir) func() error {
			f := createFile(t, d, "f", "")
			return func() error { f.Write([]byte(content)); return f.Commit("g") }
		},
		"CommitTo": func(t *testing.T, d *durable.Dir) func() error {
			f := createFile(t, d, "f", "")
			return func() error { f.Write([]byte(content)); return f.CommitTo(d, "g") }
		},
		"WriteFile": func(_ *testing.T, d *durable.Dir) func() error {
			return func() error { return d.WriteFile("g", []byte(content), 0o600) }
		},
		"Append": func(t *testing.T, d *durable.Dir) func() error {
			l, err := d.OpenLog("log", 0o600)
			fixture.Must(t, err)
			t.Cleanup(func() { l.Close() })
			return func() error { return l.Append([]byte(content)) }
		},
	} {
		t.Run(what, func(t *testing.T) {
			backing := fixture.MountTmpfs(t, "size=12m")
			d := openAt(t, mountExt4(t, backing, 64<<20))
			do := begin(t, d)
			fixture.FillDisk(t, filepath.Join(backing, "filler"))
			if err := do(); !errors.Is(err, durable.ErrFault) {
				t.Errorf("a failed fsync gives %v, want a fault", err)
			}
			if _, err := d.Lstat("g"); err == nil {
				t.Error("bytes that are not on the disk are shown")
			}
		})
	}
}

func TestReadOnlyIsAFault(t *testing.T) {
	path := mountExt4(t, t.TempDir(), 32<<20)
	d := openAt(t, path)
	l, err := d.OpenLog("log", 0o600)
	fixture.Must(t, err)
	writeFile(t, filepath.Join(path, "old"), "x")
	fixture.Must(t, l.Close())
	fixture.Must(t, runCommand("mount", "-o", "remount,ro", path))
	_, created := d.Create("f", 0o600)
	_, made := d.MakeDir("dir")
	_, logged := d.OpenLog("log", 0o600)
	for what, err := range map[string]error{
		"Create": created, "MakeDir": made, "OpenLog": logged,
		"Unlink": d.Unlink("old"), "Rename": d.Rename("old", d, "new"), "Link": d.Link("old", d, "new"),
		"WriteFile": d.WriteFile("old", nil, 0o600),
	} {
		if !errors.Is(err, durable.ErrFault) {
			t.Errorf("%s on a read-only file system: %v, want a fault", what, err)
		}
	}
}

// TestDeadDiskIsAFault shuts the file system down, after which everything that
// needs the disk gives EIO.
func TestDeadDiskIsAFault(t *testing.T) {
	path := mountExt4(t, t.TempDir(), 32<<20)
	d := openAt(t, path)
	fixture.Must(t, d.WriteFile("old", bytes.Repeat([]byte("x"), 64<<10), 0o600))
	f := createFile(t, d, "f", strings.Repeat("x", 4096))
	l, err := d.OpenLog("log", 0o600)
	fixture.Must(t, err)
	defer l.Close()
	fixture.ShutDownFS(t, path)
	_, created := d.Create("new", 0o600)
	for what, err := range map[string]error{
		"Create": created, "Commit": f.Commit("g"), "Sync": d.Sync(), "Append": l.Append([]byte("row\n")),
	} {
		if !errors.Is(err, durable.ErrFault) {
			t.Errorf("%s on a dead disk: %v, want a fault", what, err)
		}
	}
}

// TestSyncedIsWhatIsOnTheDisk: the length that is reported to others must survive a power cut.
func TestSyncedIsWhatIsOnTheDisk(t *testing.T) {
	d := openAt(t, t.TempDir())
	other, err := d.OpenLog("log", 0o640)
	fixture.Must(t, err)
	defer other.Close()
	l, err := d.OpenLog("log", 0o640)
	fixture.Must(t, err)
	defer l.Close()
	want := func(what string, n int64) {
		t.Helper()
		if got := l.SyncedSize(); got != n {
			t.Errorf("%s: %d bytes are on the disk, want %d", what, got, n)
		}
	}
	appendTo := func(l *durable.Log, s string) {
		t.Helper()
		fixture.Must(t, l.Lock())
		fixture.Must(t, l.Append([]byte(s)))
		fixture.Must(t, l.Unlock())
	}
	want("new", 0)
	appendTo(l, "one\n")
	want("one append", 4)
	appendTo(other, "two\n")
	want("another process has appended", 4)
	appendTo(l, "three\n")
	want("all of them", 14)
	fixture.Must(t, l.Lock())
	fixture.Must(t, l.Truncate(8))
	fixture.Must(t, l.Unlock())
	want("cut", 8)
	again, err := d.OpenLog("log", 0o640)
	fixture.Must(t, err)
	defer again.Close()
	if got := again.SyncedSize(); got != 8 {
		t.Errorf("opened again: %d bytes, want 8", got)
	}
}
