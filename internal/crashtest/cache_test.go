package crashtest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// cacheOf returns one of a disk of n sectors, all of them of zeros, with the
// path of its medium.
func cacheOf(t *testing.T, n, grain int64) (*cache, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "medium")
	check(t, os.WriteFile(path, make([]byte, n*sector), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	c, err := newCache(f, grain)
	check(t, err)
	return c, path
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// of returns n sectors full of b.
func of(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n*sector) }

func TestReadsSeeWhatIsInTheCache(t *testing.T) {
	c, path := cacheOf(t, 4, sector)
	check(t, c.write(sector, of('a', 2)))
	check(t, c.write(2*sector, of('b', 1)))
	got := make([]byte, 3*sector)
	n, err := c.read(sector/2, got)
	check(t, err)
	want := append(append(append(make([]byte, sector/2), of('a', 1)...), of('b', 1)...), make([]byte, sector/2)...)
	if n != len(got) || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %.8q", n, got)
	}
	if n, err := c.read(3*sector, got); n != sector || err != nil {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	if on, _ := os.ReadFile(path); bytes.ContainsAny(on, "ab") {
		t.Error("it is on the medium without a flush")
	}
	if err := c.write(4*sector, of('c', 1)); err == nil {
		t.Error("a write beyond the end is taken")
	}
}

// TestCutKeepsWhatWasFlushed, whatever it does to the rest, and does of it all
// that a disk may do.
func TestCutKeepsWhatWasFlushed(t *testing.T) {
	seen := make(map[string]bool)
	for seed := range uint64(200) {
		c, path := cacheOf(t, 6, sector)
		check(t, c.write(0, of('f', 2)))
		check(t, c.flush())
		check(t, c.write(2*sector, of('1', 2)))
		check(t, c.write(4*sector, of('2', 2)))
		f, err := c.takePower(seed)
		check(t, err)
		if f.Kept+f.Dropped+f.Torn != 2 {
			t.Errorf("seed %d: %+v of two writes", seed, f)
		}
		if c.write(0, of('x', 1)) == nil || c.flush() == nil {
			t.Fatal("it works without power")
		}
		on, err := os.ReadFile(path)
		check(t, err)
		if !bytes.Equal(on[:2*sector], of('f', 2)) {
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
		c, path := cacheOf(t, 12, 4*sector)
		check(t, c.write(2*sector, of('1', 8)))
		_, err := c.takePower(seed)
		check(t, err)
		on, err := os.ReadFile(path)
		check(t, err)
		for i := range 12 {
			if first := max(2, i/4*4); i >= 2 && i < 10 && on[i*sector] != on[first*sector] {
				t.Fatalf("seed %d: sectors %d and %d of one grain differ", seed, first, i)
			}
		}
	}
}
