package durable_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// withUmask sets the umask of the process until the test ends.
func withUmask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

// wantOwner checks mode and owner of a path, as in "0640 1:2".
func wantOwner(t *testing.T, path, want string) {
	t.Helper()
	info, err := os.Lstat(path)
	fixture.Must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	if got := fmt.Sprintf("%04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid); got != want {
		t.Errorf("%s: got %s, want %s", filepath.Base(path), got, want)
	}
}

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	masks := []int{0, 0o022, 0o077}
	if os.Getuid() == 0 {
		masks = append(masks, 0o777) // another user cannot open the directories that it makes
	}
	for _, mask := range masks {
		withUmask(t, mask)
		d, path := openTemp(t)
		f, err := d.Create("file", 0o640)
		fixture.Must(t, err)
		fixture.Must(t, f.Commit("committed"))
		fixture.Must(t, d.WriteFile("public", nil, 0o644))
		fixture.Must(t, d.WriteFile("secret", nil, 0o600))
		sub, err := d.MakeDir("dir")
		fixture.Must(t, err)
		fixture.Must(t, sub.Close())
		log, err := d.OpenLog("log", 0o640)
		fixture.Must(t, err)
		fixture.Must(t, log.Close())
		for name, want := range map[string]fs.FileMode{
			"committed": 0o640, "public": 0o644, "secret": 0o600, "dir": fs.ModeDir | 0o750, "log": 0o640,
		} {
			info, err := os.Lstat(filepath.Join(path, name))
			fixture.Must(t, err)
			if info.Mode() != want {
				t.Errorf("umask %03o: %s has mode %v, want %v", mask, name, info.Mode(), want)
			}
		}
	}
}

func TestModeOfAnExistingLogStays(t *testing.T) {
	d, path := openTemp(t)
	writeFile(t, filepath.Join(path, "log"), "")
	fixture.Must(t, os.Chmod(filepath.Join(path, "log"), 0o644))
	log, err := d.OpenLog("log", 0o640)
	fixture.Must(t, err)
	fixture.Must(t, log.Close())
	if info, err := os.Stat(filepath.Join(path, "log")); err != nil || info.Mode() != 0o644 {
		t.Errorf("got %v, %v, want Mode %v", info.Mode(), err, os.FileMode(0o644))
	}
}

func TestSetgidIsPassedOn(t *testing.T) {
	d, path := openTemp(t)
	fixture.Must(t, os.Chmod(path, 0o750|fs.ModeSetgid))
	withUmask(t, 0o077)
	sub, err := d.MakeDir("dir")
	fixture.Must(t, err)
	fixture.Must(t, sub.Close())
	if info, err := os.Stat(filepath.Join(path, "dir")); err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o750 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestRootTakesNoFileFromItsOwner: what root writes in the directory of another user belongs to
// that user, except new secrets.
func TestRootTakesNoFileFromItsOwner(t *testing.T) {
	fixture.RequireRoot(t)
	d, path := openTemp(t)
	fixture.Must(t, os.Chmod(path, 0o755))
	fixture.Must(t, os.Chown(path, 4242, 4243))
	for _, name := range []string{"list", "key"} {
		writeFile(t, filepath.Join(path, name), "old")
		fixture.Must(t, os.Chown(filepath.Join(path, name), 4242, 4244))
	}
	fixture.Must(t, d.WriteFile("list", nil, 0o644))
	fixture.Must(t, d.WriteFile("key", nil, 0o640))
	fixture.Must(t, d.WriteFile("new list", nil, 0o644))
	fixture.Must(t, d.WriteFile("new key", nil, 0o600))
	wantOwner(t, filepath.Join(path, "list"), "0644 4242:4244")
	wantOwner(t, filepath.Join(path, "key"), "0640 4242:4244")
	wantOwner(t, filepath.Join(path, "new list"), "0644 4242:4243")
	wantOwner(t, filepath.Join(path, "new key"), "0600 0:0")

	// A user who may write in a directory could wait there for the next key.
	fixture.Must(t, os.Chmod(path, 0o777))
	writeFile(t, filepath.Join(path, "bait"), "old")
	fixture.Must(t, os.Chown(filepath.Join(path, "bait"), 6666, 6666))
	fixture.Must(t, d.WriteFile("bait", nil, 0o600))
	wantOwner(t, filepath.Join(path, "bait"), "0600 0:0")
}

// TestHandOverGivesOnlyOurOwn: only names of this program that root owns, and nothing that
// another user could have put in their place.
func TestHandOverGivesOnlyOurOwn(t *testing.T) {
	fixture.RequireRoot(t)
	d, path := openTemp(t)
	at := func(elem ...string) string { return filepath.Join(append([]string{path}, elem...)...) }
	outside := filepath.Join(t.TempDir(), "outside")
	writeFile(t, outside, "root's")
	fixture.Must(t, os.MkdirAll(at("hosts", "one"), 0o700))
	for _, name := range []string{"lock", "stranger", "twice", "of-another", "hosts/one/file", "hosts/one/stranger"} {
		writeFile(t, at(name), "")
	}
	fixture.Must(t, os.Link(at("twice"), at("second-name")))
	fixture.Must(t, os.Chown(at("of-another"), 7, 7))
	fixture.Must(t, os.Symlink(outside, at("link")))
	fixture.Must(t, os.Mkdir(at("dir-for-file"), 0o700))
	fixture.Must(t, syscall.Mkfifo(at("fifo"), 0o600))
	fixture.Must(t, os.Mkdir(at("of-another-dir"), 0o700))
	writeFile(t, at("of-another-dir", "file"), "")
	fixture.Must(t, os.Chown(at("of-another-dir"), 4242, 4242))

	file := durable.LayoutEntry{Match: durable.MatchNames("lock", "twice", "second-name", "of-another", "link", "dir-for-file", "fifo"), Perm: 0o640}
	below := durable.Layout{{Match: durable.MatchNames("file"), Perm: 0o640}}
	layout := durable.Layout{
		file,
		{Match: durable.MatchNames("of-another-dir"), Perm: 0o750, Dir: true, Below: below},
		{Match: durable.MatchNames("hosts"), Perm: 0o750, Dir: true, Below: durable.Layout{
			{Match: durable.MatchNames("one"), Perm: 0o750, Dir: true, Below: below},
		}},
	}
	fixture.Must(t, d.HandOver(layout, 4242, 4243))

	for name, want := range map[string]string{
		"lock": "0640 4242:4243", "stranger": "0600 0:0", "twice": "0600 0:0", "of-another": "0600 7:7",
		"dir-for-file": "0700 0:0", "fifo": "0600 0:0",
		"hosts": "0750 4242:4243", "hosts/one": "0750 4242:4243", "hosts/one/file": "0640 4242:4243", "hosts/one/stranger": "0600 0:0",
		"of-another-dir": "0700 4242:4242", "of-another-dir/file": "0640 4242:4243",
	} {
		wantOwner(t, at(name), want)
	}
	wantOwner(t, outside, "0600 0:0")
}
