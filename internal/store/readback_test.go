package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

// flipByte changes one byte of a file and keeps its times, as a failing disk does.
func flipByte(tb testing.TB, path string) {
	tb.Helper()
	info, err := os.Stat(path)
	fixture.Must(tb, err)
	b, err := os.ReadFile(path)
	fixture.Must(tb, err)
	b[len(b)/2] ^= 1
	fixture.Must(tb, os.Chmod(path, 0o640))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	fixture.Must(tb, err)
	_, err = f.Write(b)
	fixture.Must(tb, errors.Join(err, f.Sync(), f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())))
}

func (l *lab) readBack(k episode.Key) (store.Object, error) {
	return l.ReadBack(l.Context(), k, digest.Digest{}, passing)
}

// passing is a reading whose check accepts any bytes.
var passing = store.Reading{Check: func(io.Reader) (digest.Digest, error) { return digest.Digest{}, nil }}

// Hosts must not delete their copies because of archives that were hashed and not decoded.
func TestAReadingWithoutACheckVerifiesNothing(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	o, err := l.ReadBack(t.Context(), k, digest.Digest{}, store.Reading{})
	if err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("Stat says %+v, %v", o, err)
	}
}

// A disk's error about one file is not an error of the whole storage, and a resource shortage
// of the process is not the disk's error.
func TestReadingTellsTheDisksErrorsFromOthers(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	for _, c := range []struct {
		err        error
		unreadable bool
	}{
		{fmt.Errorf("open: %w: %w", durable.ErrFault, unix.EIO), true},
		{unix.EMFILE, false},
		{unix.ENOMEM, false},
		{fs.ErrPermission, false},
	} {
		l.Uncached = func(*durable.Dir, string) (io.ReadCloser, error) { return nil, c.err }
		_, err := l.readBack(k)
		if errors.Is(err, store.ErrUnreadable) != c.unreadable || errors.Is(err, durable.ErrFault) || c.unreadable != errors.Is(err, unix.EIO) {
			t.Errorf("of %v: got %v", c.err, err)
		}
	}
}

func TestReadBackIsRememberedAtTheFile(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("verified at %v before anybody read it, %v", o.VerifiedAt, err)
	}
	begun := time.Now()
	o, err := l.readBack(k)
	fixture.Must(t, err)
	if o.Digest != sum("bytes") || o.VerifiedAt.Before(begun) {
		t.Errorf("got %+v", o)
	}
	again, err := l.Stat(k)
	if err != nil || !again.VerifiedAt.Equal(o.VerifiedAt) {
		t.Errorf("Stat says %v, %v, want %v", again.VerifiedAt, err, o.VerifiedAt)
	}
}

func TestReadBackFindsAFlippedByteAndTakesItsWordBack(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	if _, err := l.readBack(k); err != nil {
		t.Fatal(err)
	}
	flipByte(t, l.storedPath(k))
	if _, err := l.readBack(k); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("a damaged copy counts as verified at %v, %v", o.VerifiedAt, err)
	}
}

func TestReadBackOfWhatTheDiskDoesNotGive(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	_, err := l.readBack(k)
	fixture.Must(t, err)
	l.Uncached = func(*durable.Dir, string) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader([]byte("by")), brokenReader{})), nil
	}
	if _, err := l.readBack(k); !errors.Is(err, store.ErrUnreadable) || errors.Is(err, durable.ErrFault) {
		t.Errorf("got %v, want ErrUnreadable and no fault of the whole storage", err)
	}
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("verified at %v, %v", o.VerifiedAt, err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, unix.EIO }

// The page cache may differ from the disk: nothing is read from it, and nothing is left in it.
func TestReadBackGoesPastThePageCache(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, string(bytes.Repeat([]byte("bytes"), 1<<18)))
	f, err := os.Open(l.storedPath(k))
	fixture.Must(t, err)
	defer f.Close()
	info, err := f.Stat()
	fixture.Must(t, err)
	if direct, err := unix.Open(l.storedPath(k), unix.O_DIRECT, 0); err != nil {
		t.Skipf("no direct reads on the file system of the tests: %v", err)
	} else {
		unix.Close(direct)
	}
	fixture.Must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	_, err = l.readBack(k)
	fixture.Must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	fixture.Must(t, err)
	defer unix.Munmap(m)
	in := make([]byte, (len(m)+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&in[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	if cached := bytes.Count(in, []byte{1}); cached > 0 {
		t.Errorf("%d of %d pages are in the cache: it was read through there", cached, len(in))
	}
}

// A digest that the caller knows from elsewhere counts if the file has none, and a file without
// any known digest never counts as verified.
func TestReadBackWithoutAReceipt(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	fixture.Must(t, os.MkdirAll(filepath.Dir(l.storedPath(k)), 0o755))
	fixture.Must(t, os.WriteFile(l.storedPath(k), []byte("by hand"), 0o640))
	if o, err := l.readBack(k); err != nil || o.Digest != sum("by hand") {
		t.Errorf("got %+v, %v", o, err)
	}
	if _, err := l.ReadBack(t.Context(), k, sum("other"), passing); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("verified at %v, %v", o.VerifiedAt, err)
	}
}

// The check's error about the right bytes is returned, however much of them it read, and the
// file counts as unread.
func TestReadBackHasTheBytesChecked(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes of run-7")
	_, err := l.readBack(k)
	fixture.Must(t, err)
	first := func(want error) store.Reading {
		return store.Reading{Check: func(r io.Reader) (digest.Digest, error) {
			if _, err := r.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			return digest.Digest{}, want
		}}
	}
	no := errors.New("no")
	o, err := l.ReadBack(t.Context(), k, digest.Digest{}, first(no))
	if !errors.Is(err, store.ErrUndecodable) || !errors.Is(err, no) || o.Digest != sum("bytes of run-7") || !o.VerifiedAt.IsZero() {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("what is unfit counts as verified at %v, %v", o.VerifiedAt, err)
	}
	if o, err := l.ReadBack(t.Context(), k, digest.Digest{}, first(nil)); err != nil || o.VerifiedAt.IsZero() {
		t.Errorf("got %+v, %v", o, err)
	}
	flipByte(t, l.storedPath(k))
	if _, err := l.ReadBack(t.Context(), k, digest.Digest{}, first(no)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("of other bytes: %v, want ErrCorrupt", err)
	}
}

// A receiver that did not decode what it read has verified nothing.
func TestWhatWasNotCheckedCountsAsUnread(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	_, err := l.readBack(k)
	fixture.Must(t, err)
	b := make([]byte, 256)
	n, err := unix.Getxattr(l.storedPath(k), "user.cis490.verified", b)
	fixture.Must(t, err)
	fixture.Must(t, unix.Setxattr(l.storedPath(k), "user.cis490.verified", b[:n-1], 0)) // as it was written before
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("got %+v, %v", o, err)
	}
}

// A copy that includes the attributes was never read.
func TestACopyWasNotVerified(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	_, err := l.readBack(k)
	fixture.Must(t, err)
	other := key("lab-01", "copy")
	fixture.Must(t, os.WriteFile(l.storedPath(other), []byte("bytes"), 0o640))
	for _, name := range []string{"user.cis490.receipt", "user.cis490.verified"} {
		b := make([]byte, 256)
		n, err := unix.Getxattr(l.storedPath(k), name, b)
		fixture.Must(t, err)
		fixture.Must(t, unix.Setxattr(l.storedPath(other), name, b[:n], 0))
	}
	if o, err := l.Stat(other); err != nil || o.Digest != sum("bytes") || !o.VerifiedAt.IsZero() {
		t.Errorf("got %+v, %v", o, err)
	}
}

// A read during the replacement of a file has read neither file.
func TestReadBackOfWhatIsReplacedMeanwhile(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	l.Uncached = func(d *durable.Dir, name string) (io.ReadCloser, error) {
		f, err := d.OpenUncached(name)
		fixture.Must(t, errors.Join(err, l.Quarantine(k)))
		l.put(k, "bytes")
		return f, nil
	}
	if _, err := l.readBack(k); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	if o, err := l.Stat(k); err != nil || !o.VerifiedAt.IsZero() {
		t.Errorf("the file that was not read counts as verified: %+v, %v", o, err)
	}
}

func TestNamesComeInOrderAPageAtATime(t *testing.T) {
	l := newLab(t)
	const n = 9000
	dir := filepath.Join(l.data, "episodes", "lab-01")
	fixture.Must(t, os.MkdirAll(dir, 0o755))
	for i := range n {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("run-%05d%s", (i*7919)%n, store.Suffix)))
		fixture.Must(t, errors.Join(err, f.Close()))
	}
	fixture.Must(t, os.WriteFile(filepath.Join(dir, "stray"), nil, 0o640))
	fixture.Must(t, os.Mkdir(filepath.Join(dir, "folder"+store.Suffix), 0o755))
	after, seen := episode.Name(""), 0
	for last := false; !last; {
		p, err := l.ListNames("lab-01", after, "", 4096)
		fixture.Must(t, err)
		last = p.Last
		if len(p.Names) > 4096 || p.Seen != n+2 || p.Max != "run-08999" {
			t.Fatalf("%d names of %d entries, up to %s", len(p.Names), p.Seen, p.Max)
		}
		for _, name := range p.Names {
			if want := episode.Name(fmt.Sprintf("run-%05d", seen)); name != want {
				t.Fatalf("got %s, want %s", name, want)
			}
			seen++
			after = name
		}
	}
	if seen != n {
		t.Errorf("%d names, want %d", seen, n)
	}
	if p, err := l.ListNames("lab-01", "", "run-00001", 4096); err != nil || !p.Last || len(p.Names) != 2 {
		t.Errorf("up to a name: %+v, %v", p, err)
	}
	if p, err := l.ListNames("nobody", "", "", 4096); err != nil || !p.Last || len(p.Names) != 0 {
		t.Errorf("a host without a folder: %+v, %v", p, err)
	}
}

// checkReturning returns a check with the same result for any bytes.
func checkReturning(contents string, err error) func(io.Reader) (digest.Digest, error) {
	return func(io.Reader) (digest.Digest, error) { return sum(contents), err }
}
