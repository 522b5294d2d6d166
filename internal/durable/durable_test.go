package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

func TestNothingIsReplaced(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(d, to *durable.Dir) error
	}{
		{"Create", func(d, _ *durable.Dir) error {
			_, err := d.Create("taken", 0o600)
			return err
		}},
		{"Commit", func(d, _ *durable.Dir) error {
			f, err := d.Create("new", 0o600)
			fixture.Must(t, err)
			return f.Commit("taken")
		}},
		{"CommitTo", func(d, to *durable.Dir) error {
			f, err := to.Create("new", 0o600)
			fixture.Must(t, err)
			defer f.Discard()
			return f.CommitTo(d, "taken")
		}},
		{"Link", func(d, to *durable.Dir) error { return to.Link("other", d, "taken") }},
		{"Rename", func(d, to *durable.Dir) error { return to.Rename("other", d, "taken") }},
		{"Rename in place", func(d, _ *durable.Dir) error { return d.Rename("second", d, "taken") }},
	} {
		t.Run(c.what, func(t *testing.T) {
			d, path := openTemp(t)
			to, other := openTemp(t)
			writeFile(t, filepath.Join(path, "taken"), "first")
			writeFile(t, filepath.Join(path, "second"), "second")
			writeFile(t, filepath.Join(other, "other"), "other")
			if err := c.do(d, to); !errors.Is(err, fs.ErrExist) || errors.Is(err, durable.ErrFault) {
				t.Errorf("error %v, want one that is fs.ErrExist and no fault", err)
			}
			if got := fixture.ReadFile(t, filepath.Join(path, "taken")); got != "first" {
				t.Errorf("the file holds %q now", got)
			}
			if got := fixture.ReadFile(t, filepath.Join(other, "other")); got != "other" {
				t.Errorf("the source holds %q now", got)
			}
		})
	}
}

func TestNamesStayInTheDirectory(t *testing.T) {
	d, path := openTemp(t)
	writeFile(t, filepath.Join(path, "file"), "x")
	fixture.Must(t, os.Mkdir(filepath.Join(path, "sub"), 0o700))
	f := createFile(t, d, "open", "x")
	defer f.Discard()
	calls := map[string]func(name string) error{
		"Open":         func(n string) error { _, err := d.Open(n); return err },
		"OpenUncached": func(n string) error { _, err := d.OpenUncached(n); return err },
		"OpenDir":      func(n string) error { _, err := d.OpenDir(n); return err },
		"MakeDir":      func(n string) error { _, err := d.MakeDir(n); return err },
		"Create":       func(n string) error { _, err := d.Create(n, 0o600); return err },
		"OpenLog":      func(n string) error { _, err := d.OpenLog(n, 0o600); return err },
		"Lock":         func(n string) error { _, err := d.Lock(n, ""); return err },
		"Lstat":        func(n string) error { _, err := d.Lstat(n); return err },
		"Remove":       d.Remove,
		"Unlink":       d.Unlink,
		"Link from":    func(n string) error { return d.Link(n, d, "new") },
		"Link to":      func(n string) error { return d.Link("file", d, n) },
		"Rename from":  func(n string) error { return d.Rename(n, d, "new") },
		"Rename to":    func(n string) error { return d.Rename("file", d, n) },
		"Exchange":     func(n string) error { return d.Exchange("file", n) },
		"Exchange of":  func(n string) error { return d.Exchange(n, "file") },
		"CommitTo":     func(n string) error { return f.CommitTo(d, n) },
	}
	for what, call := range calls {
		for _, name := range []string{"", "..", "sub/x", "/etc/hosts", "../x", "sub/", "a\x00b"} {
			if err := call(name); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s(%q): %v, want fs.ErrInvalid", what, name, err)
			}
		}
	}
	for _, name := range []string{"a/b", "a\x00b"} {
		if err := d.WriteFile(name, nil, 0o600); err == nil {
			t.Errorf("WriteFile(%q) wrote", name)
		}
	}
	wantEntries(t, path, "file", "open", "sub")
}

func TestLinksAreNotFollowed(t *testing.T) {
	d, path := openTemp(t)
	outside := t.TempDir()
	writeFile(t, filepath.Join(outside, "secret"), "secret")
	fixture.Must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(path, "file")))
	fixture.Must(t, os.Symlink(filepath.Join(outside, "new"), filepath.Join(path, "dangling")))
	fixture.Must(t, os.Symlink(outside, filepath.Join(path, "dir")))
	for what, call := range map[string]func() error{
		"Open":         func() error { _, err := d.Open("file"); return err },
		"OpenUncached": func() error { _, err := d.OpenUncached("file"); return err },
		"OpenDir":      func() error { _, err := d.OpenDir("dir"); return err },
		"MakeDir":      func() error { _, err := d.MakeDir("dir"); return err },
		"Create":       func() error { _, err := d.Create("dangling", 0o600); return err },
		"OpenLog":      func() error { _, err := d.OpenLog("dangling", 0o600); return err },
		"Lock":         func() error { _, err := d.Lock("dangling", ""); return err },
		"CommitTo": func() error {
			f := createFile(t, d, "f", "")
			defer f.Discard()
			return f.CommitTo(d, "dangling")
		},
	} {
		if err := call(); err == nil {
			t.Errorf("%s followed a link", what)
		}
	}
	wantEntries(t, outside, "secret")
	st, err := d.Lstat("file")
	fixture.Must(t, err)
	if st.IsRegular() || st.IsDir() {
		t.Error("Lstat described what the link leads to")
	}
	fixture.Must(t, d.WriteFile("file", []byte("ours"), 0o600)) // it replaces the link itself
	if got := fixture.ReadFile(t, filepath.Join(outside, "secret")); got != "secret" {
		t.Errorf("WriteFile wrote %q through a link", got)
	}
}

func TestOpeningAPipeDoesNotBlock(t *testing.T) {
	d, path := openTemp(t)
	fixture.Must(t, syscall.Mkfifo(filepath.Join(path, "pipe"), 0o600))
	done := make(chan error, 2)
	go func() { f, err := d.Open("pipe"); done <- err; f.Close() }()
	go func() { _, err := d.OpenUncached("pipe"); done <- err }()
	for range 2 {
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("opening a pipe blocks")
		}
	}
}

func TestPublishedFileKeepsItsFirstNameUntilForget(t *testing.T) {
	d, path := openTemp(t)
	to, other := openTemp(t)
	f := createFile(t, d, "a", "bytes")
	fixture.Must(t, f.CommitTo(to, "b"))
	st, err := to.Lstat("b")
	fixture.Must(t, err)
	if st.Links() != 2 || st.Size() != 5 {
		t.Errorf("%d links and %d bytes, want 2 and 5", st.Links(), st.Size())
	}
	fixture.Must(t, f.UnlinkStaged())
	wantEntries(t, path)
	if got := fixture.ReadFile(t, filepath.Join(other, "b")); got != "bytes" {
		t.Errorf("the committed file holds %q", got)
	}
}

func TestFileEndsUnderOneName(t *testing.T) {
	d, path := openTemp(t)
	fixture.Must(t, createFile(t, d, "a", "committed").Commit("b"))
	fixture.Must(t, createFile(t, d, "c", "unwanted").Discard())
	f := createFile(t, d, "d", "x")
	fixture.Must(t, f.CommitTo(d, "e"))
	fixture.Must(t, f.Close())
	wantEntries(t, path, "b", "d", "e")
	if got := fixture.ReadFile(t, filepath.Join(path, "b")); got != "committed" {
		t.Errorf("the committed file holds %q", got)
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	d, path := openTemp(t)
	fixture.Must(t, d.WriteFile("f", []byte("a long first text"), 0o600))
	writeFile(t, filepath.Join(path, ".f.tmp"), "what a crash left, and longer than the new text")
	fixture.Must(t, d.WriteFile("f", []byte("second"), 0o640))
	if got := fixture.ReadFile(t, filepath.Join(path, "f")); got != "second" {
		t.Errorf("the file holds %q", got)
	}
	wantEntries(t, path, "f")
}

func TestMissingNames(t *testing.T) {
	d, _ := openTemp(t)
	fixture.Must(t, d.Remove("none"))
	fixture.Must(t, d.Unlink("none"))
	_, opened := d.Open("none")
	_, dir := d.OpenDir("none")
	_, lstat := d.Lstat("none")
	_, uncached := d.OpenUncached("none")
	for what, err := range map[string]error{
		"Open": opened, "OpenDir": dir, "Lstat": lstat, "OpenUncached": uncached,
		"Rename": d.Rename("none", d, "b"), "Link": d.Link("none", d, "b"), "Exchange": d.Exchange("none", "b"),
	} {
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrFault) {
			t.Errorf("%s: %v, want fs.ErrNotExist", what, err)
		}
	}
}

func TestCreateMakesParents(t *testing.T) {
	root := t.TempDir()
	for range 2 {
		d, err := durable.Create(filepath.Join(root, "a", "b", "c"))
		fixture.Must(t, err)
		fixture.Must(t, d.Close())
	}
	writeFile(t, filepath.Join(root, "file"), "")
	if _, err := durable.Create(filepath.Join(root, "file", "below")); err == nil {
		t.Error("a directory below a file")
	}
}

func TestAttributesTravelWithTheFile(t *testing.T) {
	d, _ := openTemp(t)
	f := createFile(t, d, "a", "x")
	if err := f.SetAttr("t", []byte("first")); errors.Is(err, durable.ErrNoAttr) {
		t.Skip("no attributes here")
	}
	fixture.Must(t, f.SetAttr("t", []byte("second")))
	fixture.Must(t, f.Commit("b"))
	g, err := d.Open("b")
	fixture.Must(t, err)
	defer g.Close()
	got, err := durable.ReadAttr(g, "t")
	if string(got) != "second" || err != nil {
		t.Errorf("attribute %q, %v", got, err)
	}
	if _, err := durable.ReadAttr(g, "other"); !errors.Is(err, durable.ErrNoAttr) {
		t.Errorf("a missing attribute gives %v", err)
	}
}

func TestNamesAreStreamed(t *testing.T) {
	path := requireMemoryDir(t)
	const files = 50_000
	for n := range files {
		fixture.Must(t, syscall.Mknod(filepath.Join(path, fmt.Sprintf("episode-with-a-long-name-%d", n)), syscall.S_IFREG|0o600, 0))
	}
	d := openAt(t, path)
	before, during := heapInUse(), uint64(0)
	n := 0
	for _, err := range d.Names() {
		fixture.Must(t, err)
		n++
		if n == files/2 {
			during = heapInUse()
		}
	}
	if n != files {
		t.Errorf("%d names, want %d", n, files)
	}
	if grown := int64(during) - int64(before); grown > 2<<20 {
		t.Errorf("the walk holds %d bytes", grown)
	}
	for range d.Names() { // a walk may end early, and starts again
		break
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestExchangeSwapsTwoNames(t *testing.T) {
	d, path := openTemp(t)
	for _, name := range []string{"a", "b"} {
		fixture.Must(t, os.Mkdir(filepath.Join(path, name), 0o700))
		writeFile(t, filepath.Join(path, name, "was"), name)
	}
	fixture.Must(t, d.Exchange("a", "b"))
	for name, want := range map[string]string{"a": "b", "b": "a"} {
		if got := fixture.ReadFile(t, filepath.Join(path, name, "was")); got != want {
			t.Errorf("%s was %s", name, got)
		}
	}
}
