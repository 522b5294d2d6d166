package durable_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// openTemp opens a temporary directory, and returns it with its path.
func openTemp(tb testing.TB) (*durable.Dir, string) {
	tb.Helper()
	path := tb.TempDir()
	return openAt(tb, path), path
}

func openAt(tb testing.TB, path string) *durable.Dir {
	tb.Helper()
	d, err := durable.Open(path)
	fixture.Must(tb, err)
	tb.Cleanup(func() { d.Close() })
	return d
}

// createFile creates a file with content that is not durable yet.
func createFile(tb testing.TB, d *durable.Dir, name, content string) *durable.File {
	tb.Helper()
	f, err := d.Create(name, 0o600)
	fixture.Must(tb, err)
	_, err = f.Write([]byte(content))
	fixture.Must(tb, err)
	return f
}

func writeFile(tb testing.TB, path, content string) {
	tb.Helper()
	fixture.Must(tb, os.WriteFile(path, []byte(content), 0o600))
}

// wantEntries checks that the directory at path holds exactly the names.
func wantEntries(tb testing.TB, path string, names ...string) {
	tb.Helper()
	entries, err := os.ReadDir(path)
	fixture.Must(tb, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		tb.Errorf("%s holds %q, want %q", path, got, names)
	}
}

// mountExt4 mounts a file system of size bytes on a sparse file in the directory.
func mountExt4(tb testing.TB, in string, size int64) string {
	tb.Helper()
	fixture.RequireRoot(tb)
	image, path := filepath.Join(in, "ext4.img"), tb.TempDir()
	fixture.Must(tb, os.WriteFile(image, nil, 0o600))
	fixture.Must(tb, os.Truncate(image, size))
	fixture.RequireMount(tb, runCommand("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-J", "size=4", "-E", "nodiscard", image))
	fixture.RequireMount(tb, runCommand("timeout", "60", "mount", "-o", "loop,nodiscard", image, path))
	tb.Cleanup(func() { runCommand("umount", "-l", path) })
	return path
}

func runCommand(program string, args ...string) error {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return nil
}

func exchangePaths(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// callAsOther calls do in a thread of another user, without the rights of root, and returns its
// result.
func callAsOther(tb testing.TB, do func() (string, error)) string {
	tb.Helper()
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, otherUID, otherUID, otherUID); errno != 0 {
			done <- errno.Error()
			return
		}
		said, err := do()
		if err != nil {
			said = err.Error()
		}
		done <- said
	}()
	return <-done
}
