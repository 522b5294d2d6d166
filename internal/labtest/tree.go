package labtest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// Tree says what a directory holds: for each path below it, what is there.
type Tree map[string]string

// special is what a tree says of a socket, a FIFO or a device.
const special = "special"

// ReadTree reads a directory, without following a link.
func ReadTree(t testing.TB, dir string) Tree {
	t.Helper()
	tree, err := readTree(dir)
	if err != nil {
		t.Fatalf("read the tree %s: %v", dir, err)
	}
	return tree
}

func readTree(dir string) (Tree, error) {
	tree := make(Tree)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil {
			tree[rel], err = entryOf(path, e)
		}
		return err
	})
	return tree, err
}

func entryOf(path string, e fs.DirEntry) (string, error) {
	switch e.Type() {
	case fs.ModeDir:
		return "directory", nil
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		return "link " + target, err
	case 0:
		size, sum, err := sumFile(path)
		return fmt.Sprintf("file %d %s", size, sum), err
	}
	return special, nil
}

// sumFile returns the size and the sha256 of a file.
func sumFile(path string) (int64, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// packable returns the part of a tree that an archive holds.
func (t Tree) packable() Tree {
	p := maps.Clone(t)
	maps.DeleteFunc(p, func(_, what string) bool { return what == special })
	return p
}

// String spells a tree, one entry a line.
func (t Tree) String() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&b, "%q %s\n", path, t[path])
	}
	return b.String()
}

// diff returns the first paths in which two trees differ, or nothing.
func diff(got, want Tree) string {
	const most = 5
	var all []string
	paths := maps.Clone(got)
	maps.Copy(paths, want)
	for path := range paths {
		if got[path] != want[path] {
			all = append(all, fmt.Sprintf("%q: got %q, want %q", path, got[path], want[path]))
		}
	}
	slices.Sort(all)
	if len(all) > most {
		all = append(all[:most], fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(all, "\n")
}

// Unpack unpacks an archive with the system's zstd and tar, and returns the
// folder in which it did, which the caller may remove.
func Unpack(t testing.TB, archive string) string {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "unpacked-*")
	fixture.Must(t, err)
	cmd := exec.Command("tar", "--use-compress-program=zstd", "-xf", archive, "-C", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", archive, err, out)
	}
	return dir
}
