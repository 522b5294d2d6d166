package durable_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"cis490/internal/fixture"
)

var sizes = []int{0, 1, 511, 4095, 4096, 4097, 1<<20 - 1, 1 << 20, 1<<20 + 1, 2 << 20, 3<<20 + 7}

// TestUncachedReadsEveryByte reads with direct reads where the temporary
// directory is on a disk, and by the other way on a file system in memory.
func TestUncachedReadsEveryByte(t *testing.T) {
	for where, path := range map[string]string{"disk": t.TempDir(), "memory": requireMemoryDir(t)} {
		d := openAt(t, path)
		for _, size := range sizes {
			want := fixture.Noise(size, byte(size))
			fixture.Must(t, os.WriteFile(filepath.Join(path, "f"), want, 0o600))
			f, err := d.OpenUncached("f")
			fixture.Must(t, err)
			got, err := io.ReadAll(f)
			fixture.Must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("%s: a file of %d bytes is read as %d other ones", where, size, len(got))
			}
			if n, err := f.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%s: after the end of %d: %d, %v", where, size, n, err)
			}
			fixture.Must(t, f.Close())
		}
	}
}

func TestUncachedReadsInSmallSteps(t *testing.T) {
	d, path := openTemp(t)
	want := fixture.Noise(1<<20+9999, 1)
	fixture.Must(t, os.WriteFile(filepath.Join(path, "f"), want, 0o600))
	f, err := d.OpenUncached("f")
	fixture.Must(t, err)
	defer f.Close()
	got, err := io.ReadAll(iotest.HalfReader(f))
	fixture.Must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("other bytes")
	}
}

// TestUncachedSeesTheDisk changes the disk below a cached file: the page cache
// still returns the old bytes, and only a read past it returns the new ones.
func TestUncachedSeesTheDisk(t *testing.T) {
	backing := t.TempDir()
	mount := mountExt4(t, backing, 32<<20)
	d := openAt(t, mount)
	content := bytes.Repeat([]byte("good"), 4096)
	fixture.Must(t, d.WriteFile("f", content, 0o600))
	fixture.Must(t, runCommand("sync", "-f", mount))
	image := filepath.Join(backing, "ext4.img")
	raw, err := os.ReadFile(image)
	fixture.Must(t, err)
	at := bytes.Index(raw, content)
	if at < 0 {
		t.Fatal("the file is not in the image")
	}
	if got := fixture.ReadFile(t, filepath.Join(mount, "f")); got != string(content) {
		t.Fatal("the file was not written")
	}
	img, err := os.OpenFile(image, os.O_WRONLY, 0)
	fixture.Must(t, err)
	_, err = img.WriteAt([]byte("rot!"), int64(at))
	fixture.Must(t, err)
	fixture.Must(t, img.Sync())
	fixture.Must(t, img.Close())
	f, err := d.OpenUncached("f")
	fixture.Must(t, err)
	defer f.Close()
	got, err := io.ReadAll(f)
	fixture.Must(t, err)
	if bytes.Equal(got, content) {
		t.Error("the page cache answered")
	}
}

func requireMemoryDir(tb testing.TB) string {
	tb.Helper()
	path, err := os.MkdirTemp("/dev/shm", "durable")
	if err != nil {
		tb.Skip("needs a file system in memory")
	}
	tb.Cleanup(func() { os.RemoveAll(path) })
	return path
}
