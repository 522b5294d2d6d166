package ca_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/revocation"
)

// runWriteCommands runs every command that writes to a CA's directory.
func runWriteCommands(t *testing.T, dir, out string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil {
		fixture.Must(t, ca.Init(dir, ca.InitOptions{Names: []string{"localhost"}}))
	}
	for range 2 { // the second replaces
		_, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{Force: true})
		fixture.Must(t, err)
	}
	_, err := revocation.RevokeHost(dir, "lab-01", time.Now())
	fixture.Must(t, err)
	_, err = ca.RenewServer(dir, ca.RenewOptions{})
	fixture.Must(t, err)
}

// eachFile calls do with each file below dir and its owner, as in "0:0".
func eachFile(t *testing.T, dir string, do func(path string, info fs.FileInfo, owner string)) {
	t.Helper()
	fixture.Must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		fixture.Must(t, err)
		info, err := os.Lstat(path)
		fixture.Must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		do(path, info, fmt.Sprintf("%d:%d", st.Uid, st.Gid))
		return nil
	}))
}

// TestModesInTheFolderDoNotDependOnTheUmask: if the receiver cannot read the list, a revoked
// host keeps its access.
func TestModesInTheFolderDoNotDependOnTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o027, 0o077} {
		old := syscall.Umask(mask)
		dir, out := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "out")
		runWriteCommands(t, dir, out)
		syscall.Umask(old)
		for _, folder := range []string{dir, out} {
			eachFile(t, folder, func(path string, info fs.FileInfo, _ string) {
				want := fs.FileMode(0o644)
				switch {
				case info.IsDir():
					want = fs.ModeDir | 0o755
				case strings.HasSuffix(path, ".key"), strings.HasSuffix(path, "lock"):
					want = 0o600
				}
				if info.Mode() != want {
					t.Errorf("umask %03o: %s has mode %v, want %v", mask, path, info.Mode(), want)
				}
			})
		}
	}
}

// TestKeyKeepsTheGroupThatReadsIt: the installers give keys to the daemon's group.
func TestKeyKeepsTheGroupThatReadsIt(t *testing.T) {
	dir, out := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "out")
	runWriteCommands(t, dir, out)
	key := filepath.Join(out, "lab-01.key")
	fixture.Must(t, os.Chmod(key, 0o640))
	runWriteCommands(t, dir, out)
	if info, err := os.Stat(key); err != nil || info.Mode() != 0o640 {
		t.Errorf("got %v, %v, want Mode %v", info.Mode(), err, os.FileMode(0o640))
	}
}

// TestFolderStaysItsOwners: root may use the CA of another user.
func TestFolderStaysItsOwners(t *testing.T) {
	fixture.RequireRoot(t)
	dir, out := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "out")
	runWriteCommands(t, dir, out)
	for _, folder := range []string{dir, out} {
		eachFile(t, folder, func(path string, _ fs.FileInfo, _ string) { fixture.Must(t, os.Chown(path, 4242, 4243)) })
	}
	fixture.Must(t, os.RemoveAll(filepath.Join(dir, "issued")))
	runWriteCommands(t, dir, out)
	for _, folder := range []string{dir, out} {
		eachFile(t, folder, func(path string, _ fs.FileInfo, owner string) {
			if owner != "4242:4243" {
				t.Errorf("%s belongs to %s", path, owner)
			}
		})
	}
}
