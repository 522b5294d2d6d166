package durable_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// TestLargeFileLeavesThePageCache while it is being written, and keeps its bytes.
func TestLargeFileLeavesThePageCache(t *testing.T) {
	const size, most = 96 << 20, 48 << 20
	path := mountExt4(t, t.TempDir(), 128<<20)
	d := openAt(t, path)
	f := createFile(t, d, "f", "")
	part := fixture.Noise(1<<20+1, 1)
	var want bytes.Buffer
	for want.Len() < size {
		want.Write(part)
		n, err := f.Write(part)
		fixture.Must(t, err)
		if n != len(part) {
			t.Fatalf("%d of %d were written", n, len(part))
		}
		if there := cachedBytes(t, filepath.Join(path, "f")); there > most {
			t.Fatalf("%d of %d bytes are in the page cache", there, want.Len())
		}
	}
	fixture.Must(t, f.Commit("g"))
	got, err := os.Open(filepath.Join(path, "g"))
	fixture.Must(t, err)
	defer got.Close()
	buf := make([]byte, want.Len()+1)
	if n, err := io.ReadFull(got, buf); err != io.ErrUnexpectedEOF || !bytes.Equal(buf[:n], want.Bytes()) {
		t.Errorf("%d bytes of %d are read, or other ones: %v", n, want.Len(), err)
	}
}

// cachedBytes returns how many bytes of a file are in the page cache.
func cachedBytes(tb testing.TB, path string) int64 {
	tb.Helper()
	f, err := os.Open(path)
	fixture.Must(tb, err)
	defer f.Close()
	var st unix.Cachestat_t
	err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0)
	if errors.Is(err, unix.ENOSYS) {
		tb.Skip("this kernel does not say what is in its page cache")
	}
	fixture.Must(tb, err)
	return int64(st.Cache) * int64(os.Getpagesize())
}

// TestFaultOfTheDiskIsNotForgotten: the kernel reports it once, while the file grows, and the
// syncs that follow succeed.
func TestFaultOfTheDiskIsNotForgotten(t *testing.T) {
	backing := fixture.MountTmpfs(t, "size=100m")
	path := mountExt4(t, backing, 100<<20)
	d := openAt(t, path)
	f := createFile(t, d, "f", "")
	fixture.FillDisk(t, filepath.Join(backing, "filler"))
	part := fixture.Noise(1<<20, 0)
	var err error
	for n := 0; n < 80 && err == nil; n++ {
		_, err = f.Write(part)
	}
	if !errors.Is(err, durable.ErrFault) {
		t.Fatalf("80 MiB on a disk that takes nothing: %v, want a fault", err)
	}
	fixture.Must(t, os.Remove(filepath.Join(backing, "filler"))) // the disk is well again
	for what, err := range map[string]error{"Checkpoint": f.Checkpoint("x", nil), "CommitTo": f.CommitTo(d, "g"), "Commit": f.Commit("g")} {
		if !errors.Is(err, durable.ErrFault) {
			t.Errorf("%s after it: %v, want a fault", what, err)
		}
	}
	if _, err := d.Lstat("g"); err == nil {
		t.Error("bytes that are not on the disk are shown")
	}
}
