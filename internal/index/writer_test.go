package index_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/indextest"

	"cis490/internal/fixture"
	"cis490/internal/index"
)

// reopenWith writes b as an index, opens it, and returns its content after that.
func reopenWith(tb testing.TB, b []byte) (after []byte, saved []string, err error) {
	tb.Helper()
	dir := fixture.MemoryDir(tb)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, indextest.IndexName)
	fixture.Must(tb, os.WriteFile(path, b, 0o644))
	l, err := index.Open(indextest.OpenDir(tb, dir), indextest.IndexName, nil)
	if err == nil {
		fixture.Must(tb, l.Close())
	}
	after, readErr := os.ReadFile(path)
	fixture.Must(tb, readErr)
	return after, indextest.SavedTails(tb, dir), err
}

func TestTornTailIsCutWhereverItTears(t *testing.T) {
	good := indextest.EncodeRows(indextest.Row(0), indextest.Row(1))
	whole := indextest.EncodeRows(indextest.Row(0), indextest.Row(1), indextest.Row(2), indextest.Row(3))
	for cut := len(good); cut < len(whole); cut++ {
		for name, torn := range map[string][]byte{
			"nothing":       nil,
			"NULs":          make([]byte, 5000),
			"garbage":       []byte("\xff\xfe{\x00\n\nabc"),
			"garbage lines": []byte("\x00\x00\n{]}\nnull\n"),
		} {
			b := append(bytes.Clone(whole[:cut]), torn...)
			want := bytes.LastIndexByte(whole[:cut], '\n') + 1
			if name == "nothing" && whole[cut] == '\n' {
				continue // only the newline is missing: see TestLastRowGetsItsNewline
			}
			after, saved, err := reopenWith(t, b)
			fixture.Must(t, err)
			if !bytes.Equal(after, whole[:want]) {
				t.Fatalf("cut at %d, then %s: %d bytes left, want %d", cut, name, len(after), want)
			}
			if all := string(after) + strings.Join(saved, ""); all != string(b) {
				t.Fatalf("cut at %d, then %s: saved %q", cut, name, saved)
			}
		}
	}
}

func TestOpenLeavesAGoodIndexAlone(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":        nil,
		"rows":         indextest.EncodeRows(indextest.Row(0), indextest.Row(1)),
		"newer schema": append(indextest.EncodeRows(indextest.Row(0)), `{"schema_version": 2, "sha512": "x"}`+"\n"...),
		"a bad line":   append([]byte("garbage\n"), indextest.EncodeRows(indextest.Row(0))...),
		"odd name":     append(indextest.EncodeRows(indextest.Row(0)), `{"host_id": "a b", "schema_version": 1}`+"\n"...),
	} {
		after, saved, err := reopenWith(t, b)
		if err != nil || !bytes.Equal(after, b) || len(saved) > 0 {
			t.Errorf("%s: %v, saved %q", name, err, saved)
		}
	}
}

func TestOpenAsksBeforeALargeCut(t *testing.T) {
	const most = 4 << 20
	good := indextest.EncodeRows(indextest.Row(0))
	for name, c := range map[string]struct {
		tail    []byte
		refused bool
	}{
		"the most":       {make([]byte, most), false},
		"one more":       {make([]byte, most+1), true},
		"far more":       {make([]byte, 3*most), true},
		"lines":          {bytes.Repeat([]byte("garbage\n"), most/8), false},
		"too many lines": {bytes.Repeat([]byte("garbage\n"), most/8+1), true},
	} {
		for _, head := range [][]byte{good, nil} {
			b := append(bytes.Clone(head), c.tail...)
			after, saved, err := reopenWith(t, b)
			want := head
			if c.refused {
				want = b
			}
			if (err != nil) != c.refused || !bytes.Equal(after, want) || c.refused == (len(saved) > 0) {
				t.Errorf("%s after %d bytes: %v, %d bytes left, %d saved", name, len(head), err, len(after), len(saved))
			}
			if err != nil && !strings.Contains(err.Error(), "move the file aside") {
				t.Errorf("%s: %v does not say what to do", name, err)
			}
		}
	}
}

func TestUnfinishedSaveIsNoObstacle(t *testing.T) {
	dir := fixture.MemoryDir(t)
	fixture.Must(t, os.WriteFile(filepath.Join(dir, ".index.torn-tmp"), []byte("half"), 0o644))
	fixture.Must(t, os.WriteFile(filepath.Join(dir, indextest.IndexName), []byte("torn"), 0o644))
	indextest.OpenLog(t, dir)
	if saved := indextest.SavedTails(t, dir); len(saved) != 1 || saved[0] != "torn" {
		t.Errorf("saved %q", saved)
	}
}

func TestTailIsNotCutUnlessSaved(t *testing.T) {
	dir := fixture.MemoryDir(t)
	fixture.Must(t, os.Mkdir(filepath.Join(dir, ".index.torn-tmp"), 0o755)) // in the way
	path := filepath.Join(dir, indextest.IndexName)
	fixture.Must(t, os.WriteFile(path, []byte("torn"), 0o644))
	if l, err := index.Open(indextest.OpenDir(t, dir), indextest.IndexName, nil); err == nil {
		l.Close()
		t.Error("opened")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "torn" {
		t.Errorf("left %q, %v", b, err)
	}
}

// readChars returns how many bytes this process has read so far.
func readChars(tb testing.TB) int64 {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		tb.Skip(err)
	}
	var n int64
	if _, err := fmt.Sscanf(string(b), "rchar: %d", &n); err != nil {
		tb.Skip(err)
	}
	return n
}

func TestMillionRowsCostNothingAtStart(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	dir := fixture.MemoryDir(t)
	const n = 1_000_000
	f, err := os.Create(filepath.Join(dir, indextest.IndexName))
	fixture.Must(t, err)
	one := indextest.EncodeRows(indextest.Row(0))
	chunk := bytes.Repeat(one, n/100-1)
	for i := range 100 {
		_, err := f.Write(append(bytes.Clone(chunk), indextest.Row(i+1).Append(nil)...))
		fixture.Must(t, err)
	}
	fixture.Must(t, f.Close())

	before := readChars(t)
	l := indextest.OpenLog(t, dir)
	_, err = l.Append(t.Context(), indextest.Row(1000))
	fixture.Must(t, err)
	for _, k := range []int{100, 1000} {
		if _, found, err := l.FindRow(t.Context(), indextest.Row(k).Key); !found || err != nil {
			t.Fatalf("row %d: %v %v", k, found, err)
		}
	}
	if got := readChars(t) - before; got > 1<<20 {
		t.Errorf("read %d bytes", got)
	}
}

func TestRefusalReadsTheTailOnly(t *testing.T) {
	dir := fixture.MemoryDir(t)
	path := filepath.Join(dir, indextest.IndexName)
	fixture.Must(t, os.WriteFile(path, indextest.EncodeRows(indextest.Row(0)), 0o644))
	fixture.Must(t, os.Truncate(path, 1<<30))
	before := readChars(t)
	if _, err := index.Open(indextest.OpenDir(t, dir), indextest.IndexName, nil); err == nil {
		t.Fatal("opened")
	}
	if got := readChars(t) - before; got > 8<<20 {
		t.Errorf("read %d bytes", got)
	}
}

func FuzzTail(f *testing.F) {
	f.Add(indextest.EncodeRows(indextest.Row(0), indextest.Row(1)), []byte("\x00\x00"))
	f.Add(indextest.EncodeRows(indextest.Row(0)), indextest.Row(1).Append(nil)[:60])
	f.Add([]byte("garbage\n"), []byte("{}\n{\n"))
	f.Add([]byte{}, []byte(`{"a":1}`+"\n\n"))
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		whole := append(append(bytes.Clone(head), indextest.EncodeRows(indextest.Row(7))...), tail...)
		keep := len(whole) - len(tail)
		if len(head) > 0 && head[len(head)-1] != '\n' {
			keep = 0 // the row is joined to what is before it
		}
		after, saved, err := reopenWith(t, whole)
		if err != nil {
			t.Skip(err) // too large a cut
		}
		if len(after) < keep {
			t.Errorf("%q: %d bytes left, at least %d are good", whole, len(after), keep)
		}
		kept := string(after) + strings.Join(saved, "")
		if kept != string(whole) && kept != string(whole)+"\n" {
			t.Errorf("%q became %q and %q", whole, after, saved)
		}
		again, saved, err := reopenWith(t, after)
		if err != nil || !bytes.Equal(again, after) || len(saved) > 0 {
			t.Errorf("%q is not valid: %v, saved %q", after, err, saved)
		}
		if len(after) > 0 && after[len(after)-1] != '\n' {
			t.Errorf("ends with %q", after)
		}
	})
}
