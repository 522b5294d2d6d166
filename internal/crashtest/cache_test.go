package crashtest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/fixture"
)

// openTestCache returns the cache of a disk of n sectors of zeros, and the path of its medium.
func openTestCache(t *testing.T, n, grain int64) (*cache, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "medium")
	fixture.Must(t, os.WriteFile(path, make([]byte, n*sector), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	fixture.Must(t, err)
	t.Cleanup(func() { f.Close() })
	c, err := newCache(f, grain)
	fixture.Must(t, err)
	return c, path
}

// fillSectors returns n sectors full of b.
func fillSectors(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n*sector) }

func TestReadsSeeWhatIsInTheCache(t *testing.T) {
	c, path := openTestCache(t, 4, sector)
	fixture.Must(t, c.write(sector, fillSectors('a', 2)))
	fixture.Must(t, c.write(2*sector, fillSectors('b', 1)))
	got := make([]byte, 3*sector)
	n, err := c.read(sector/2, got)
	fixture.Must(t, err)
	want := append(append(append(make([]byte, sector/2), fillSectors('a', 1)...), fillSectors('b', 1)...), make([]byte, sector/2)...)
	if n != len(got) || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %.8q", n, got)
	}
	if n, err := c.read(3*sector, got); n != sector || err != nil {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	if on, _ := os.ReadFile(path); bytes.ContainsAny(on, "ab") {
		t.Error("it is on the medium without a flush")
	}
	if err := c.write(4*sector, fillSectors('c', 1)); err == nil {
		t.Error("a write beyond the end is taken")
	}
}

// TestCutKeepsWhatWasFlushed: flushed writes always survive. Over many cuts, unflushed ones
// meet everything that a disk may do to them.
func TestCutKeepsWhatWasFlushed(t *testing.T) {
	seen := make(map[string]bool)
	for seed := range uint64(200) {
		c, path := openTestCache(t, 6, sector)
		fixture.Must(t, c.write(0, fillSectors('f', 2)))
		fixture.Must(t, c.flush())
		fixture.Must(t, c.write(2*sector, fillSectors('1', 2)))
		fixture.Must(t, c.write(4*sector, fillSectors('2', 2)))
		f, err := c.takePower(seed)
		fixture.Must(t, err)
		if f.Kept+f.Dropped+f.Torn != 2 {
			t.Errorf("seed %d: %+v of two writes", seed, f)
		}
		if c.write(0, fillSectors('x', 1)) == nil || c.flush() == nil {
			t.Fatal("it works without power")
		}
		on, err := os.ReadFile(path)
		fixture.Must(t, err)
		if !bytes.Equal(on[:2*sector], fillSectors('f', 2)) {
			t.Fatalf("seed %d: what was flushed is gone", seed)
		}
		fate := ""
		for i := range 4 {
			fate += string(on[(2+i)*sector] | '0')
		}
		seen[fate] = true
	}
	for what, fate := range map[string]string{"nothing": "0000", "all": "1122", "the first": "1100", "the second alone": "0022", "a torn one": "1000"} {
		if !seen[fate] {
			t.Errorf("never kept %s: %v", what, seen)
		}
	}
}

func TestAGrainIsNotTorn(t *testing.T) {
	for seed := range uint64(100) {
		c, path := openTestCache(t, 12, 4*sector)
		fixture.Must(t, c.write(2*sector, fillSectors('1', 8)))
		_, err := c.takePower(seed)
		fixture.Must(t, err)
		on, err := os.ReadFile(path)
		fixture.Must(t, err)
		for i := range 12 {
			if first := max(2, i/4*4); i >= 2 && i < 10 && on[i*sector] != on[first*sector] {
				t.Fatalf("seed %d: sectors %d and %d of one grain differ", seed, first, i)
			}
		}
	}
}
