package labtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
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

// Tree describes the content of a directory: each path below it, and what is there.
type Tree map[string]string

// specialFile describes a socket, a FIFO or a device in a tree.
const specialFile = "special"

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
		if path != dir && errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed meanwhile, as a temporary file of a daemon
		}
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		entry, err := entryOf(path, e)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		tree[rel] = entry
		return err
	})
	return tree, err
}

// DataTree reads the receiver's data directory without what its scrub writes there at any time.
func (l *Lab) DataTree(t testing.TB) Tree {
	t.Helper()
	tree := ReadTree(t, l.Path("data"))
	maps.DeleteFunc(tree, func(path, _ string) bool { return strings.HasPrefix(path, ".scrub.json") })
	return tree
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
	return specialFile, nil
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

// packablePart returns the part of a tree that an archive holds.
func (t Tree) packablePart() Tree {
	p := maps.Clone(t)
	maps.DeleteFunc(p, func(_, what string) bool { return what == specialFile })
	return p
}

// String formats a tree, one entry per line.
func (t Tree) String() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&b, "%q %s\n", path, t[path])
	}
	return b.String()
}

// diffTrees returns the first paths in which two trees differ, or "".
func diffTrees(got, want Tree) string {
	const most = 5
	var all []string
	for path := range mergeTrees(got, want) {
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

func mergeTrees(a, b Tree) Tree {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// Unpack unpacks an archive with the system's zstd and tar. It returns the directory, which the
// caller may remove.
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
