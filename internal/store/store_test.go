package store_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

func TestCommitShowsTheArchiveWhole(t *testing.T) {
	l := newLab(t)
	k := key("lab-01", "run-7")
	u := l.upload(k, "bytes")
	if _, err := l.Stat(k); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an upload is shown before its commit: %v", err)
	}
	fixture.Must(t, u.Commit(sum("bytes"), arrival))
	l.wantFiles("episodes/lab-01/run-7.tar.zst staging/lab-01/run-7~")
	o, err := l.Stat(k)
	fixture.Must(t, err)
	if o.Indexed || !o.InFlight {
		t.Errorf("before its row: settled %v, underway %v", o.Indexed, o.InFlight)
	}
	later := arrival.Add(time.Second)
	fixture.Must(t, u.MarkIndexed(later))
	l.wantFiles("episodes/lab-01/run-7.tar.zst")
	l.wantContent(l.storedPath(k), "bytes")
	o, err = l.Stat(k)
	fixture.Must(t, err)
	want := store.Object{Key: k, Size: 5, Digest: sum("bytes"), ReceivedAt: later, Indexed: true}
	if o != want {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
	f, err := l.Open(k)
	fixture.Must(t, err)
	defer f.Close()
	if b, _ := io.ReadAll(f); string(b) != "bytes" {
		t.Errorf("Open reads %q", b)
	}
	if !strings.HasSuffix(l.Path(k), "episodes/lab-01/run-7.tar.zst") {
		t.Errorf("path %s", l.Path(k))
	}
}

// The state that lets an upload be continued does not stay with the archive.
func TestAStoredArchiveCarriesNoProgress(t *testing.T) {
	l := newLab(t)
	for _, continued := range []bool{false, true} {
		k := key("h", fmt.Sprint("continued-", continued))
		u, err := l.CreateWithID(k, "id")
		fixture.Must(t, err)
		w := digest.NewWriter(u)
		_, err = io.WriteString(w, "bytes")
		fixture.Must(t, err)
		fixture.Must(t, u.Checkpoint(store.Progress{Digest: sum("bytes"), Size: 5, Offset: 5, State: w.HashState()}))
		if continued {
			fixture.Must(t, u.Abandon())
			u, err = l.ContinueUpload(k, "id", 5)
			fixture.Must(t, err)
		}
		fixture.Must(t, errors.Join(u.Commit(sum("bytes"), arrival), u.MarkIndexed(arrival)))
		if n, err := unix.Getxattr(l.storedPath(k), "user.cis490.upload", nil); !errors.Is(err, unix.ENODATA) {
			t.Errorf("%s: %d bytes, %v", k, n, err)
		}
	}
}

func TestFirstArchiveOfAKeyStays(t *testing.T) {
	l := newLab(t)
	k := key("h", "e")
	l.put(k, "first")
	u := l.upload(k, "second")
	if err := u.Commit(sum("second"), arrival); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second commit: %v, want fs.ErrExist", err)
	}
	fixture.Must(t, u.Discard())
	l.wantContent(l.storedPath(k), "first")
	l.wantFiles("episodes/h/e.tar.zst")
	// Another host may use the same name.
	l.put(key("i", "e"), "second")
	l.wantContent(l.storedPath(k), "first")
}

func TestDiscardLeavesNothing(t *testing.T) {
	l := newLab(t)
	fixture.Must(t, l.upload(key("h", "e"), "x").Discard())
	l.wantFiles("")
}

// TestFileWithoutAttributeIsNotSettled is a file that was copied in by hand.
func TestFileWithoutAttributeIsNotSettled(t *testing.T) {
	l := newLab(t)
	k := key("h", "e")
	l.writeFile(l.storedPath(k), "by hand")
	fixture.Must(t, os.Chtimes(l.storedPath(k), arrival, arrival))
	o, err := l.Stat(k)
	fixture.Must(t, err)
	want := store.Object{Key: k, Size: 7, ReceivedAt: arrival}
	if o != want {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
	o, err = l.ReadBack(t.Context(), k, digest.Digest{}, store.Reading{})
	fixture.Must(t, err)
	if o.Digest != sum("by hand") || o.Indexed {
		t.Errorf("got %+v", o)
	}
}

// TestForeignAttributeIsNoReceipt: an attribute with a length that the store never writes.
func TestForeignAttributeIsNoReceipt(t *testing.T) {
	l := newLab(t)
	k := key("h", "e")
	l.writeFile(l.storedPath(k), "x")
	f, err := os.OpenFile(l.storedPath(k), os.O_RDWR, 0)
	fixture.Must(t, err)
	defer f.Close()
	fixture.Must(t, durable.SetAttr(f, "receipt", make([]byte, 39)))
	if o, err := l.Stat(k); err != nil || o.Indexed || !o.Digest.IsZero() {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestReadBackReadsTheBytes(t *testing.T) {
	l := newLab(t)
	k := key("h", "e")
	big := strings.Repeat("0123456789", 200_000)
	l.put(k, big)
	if o, err := l.ReadBack(t.Context(), k, digest.Digest{}, store.Reading{}); err != nil || o.Digest != sum(big) || !o.Indexed {
		t.Fatalf("%+v, %v", o, err)
	}
	flipByteAt(t, l.storedPath(k), 1<<20)
	if _, err := l.ReadBack(t.Context(), k, digest.Digest{}, store.Reading{}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a changed byte: %v", err)
	}
	got, err := l.Read(t.Context(), k, store.Reading{})
	if got.Digest == sum(big) || got.Size != int64(len(big)) || err != nil {
		t.Errorf("Read tells the attribute: %+v, %v", got, err)
	}
	fixture.Must(t, os.Truncate(l.storedPath(k), 100))
	if _, err := l.ReadBack(t.Context(), k, digest.Digest{}, store.Reading{}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a cut file: %v", err)
	}
}

// flipByteAt changes one byte of a file.
func flipByteAt(tb testing.TB, path string, off int64) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	fixture.Must(tb, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	fixture.Must(tb, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, off)
	fixture.Must(tb, err)
	fixture.Must(tb, f.Sync())
}

func TestSettleForgetsOnlyTheFilesOwnNames(t *testing.T) {
	l := newLab(t)
	l.commitWithoutRow(key("h", "a"), "a")
	for _, other := range []string{"a.b", "a-", "ab", "A"} {
		l.commitWithoutRow(key("h", other), other)
	}
	l.commitWithoutRow(key("i", "a"), "other host")
	l.writeFile(l.stagedPath("h", "a~running"), "an upload of the same key that is under way")
	fixture.Must(t, os.Link(l.storedPath(key("h", "a")), l.stagedPath("h", "a.b~same"))) // same file, other key
	o, err := l.Stat(key("h", "a"))
	fixture.Must(t, err)
	fixture.Must(t, l.MarkIndexed(o))
	left := "staging/h/A~ staging/h/a-~ staging/h/a.b~ staging/h/a.b~ staging/h/ab~ staging/h/a~ staging/i/a~"
	if got := l.listFiles(); !strings.HasSuffix(got, left) || strings.Count(got, "staging/") != 7 {
		t.Errorf("the store has %s\nwant at its end %s", got, left)
	}
	l.wantContent(l.stagedPath("h", "a~running"), "an upload of the same key that is under way")
	if o, err = l.Stat(key("h", "a.b")); err != nil || !o.InFlight {
		t.Errorf("another key: %+v, %v", o, err)
	}
}

func TestQuarantineDestroysNothing(t *testing.T) {
	l := newLab(t)
	k := key("h", "e")
	for _, content := range []string{"first", "second"} {
		l.put(k, content)
		fixture.Must(t, l.Quarantine(k))
	}
	l.wantFiles("quarantine/h/e~ quarantine/h/e~")
	if err := l.Quarantine(k); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing to set aside: %v", err)
	}
}

func TestTwoFileSystemsAreRefused(t *testing.T) {
	for _, mounted := range []string{"episodes", "staging"} {
		data := t.TempDir()
		fixture.Must(t, os.MkdirAll(filepath.Join(data, mounted), 0o750))
		fixture.MountTmpfsAt(t, filepath.Join(data, mounted), "size=1m")
		d, err := durable.Open(data)
		fixture.Must(t, err)
		defer d.Close()
		if s, err := store.Open(d); err == nil || !strings.Contains(err.Error(), "file system") {
			t.Errorf("%s on its own: %v, %v", mounted, s, err)
		}
	}
}

func TestOpenLeavesWhatIsThere(t *testing.T) {
	l := newLab(t)
	l.put(key("h", "e"), "x")
	l.commitWithoutRow(key("h", "f"), "y")
	l.writeFile(filepath.Join(l.data, "staging", "probe~a"), "of a start that was killed")
	again := openLab(t, l.data)
	again.wantFiles("episodes/h/e.tar.zst episodes/h/f.tar.zst staging/h/f~")
}

func TestReaderWritesNothing(t *testing.T) {
	data := t.TempDir()
	if r, err := store.OpenReader(filepath.Join(data, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, %v, want %v", r, err, fs.ErrNotExist)
	}
	r, err := store.OpenReader(data)
	fixture.Must(t, err)
	defer r.Close()
	for range r.AllHosts() {
		t.Error("a host in an empty tree")
	}
	if entries, _ := os.ReadDir(data); len(entries) != 0 {
		t.Errorf("reading made %v", entries)
	}
}
