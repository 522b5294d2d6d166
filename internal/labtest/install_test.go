package labtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// probeScript runs the checks of the lab host's installer in the folders: its functions without
// the last line, which would install.
const probeScript = `
source <(sed '$d' "$0")
from=$1 configuration=$2
the_config() { printf '%s' "$configuration"; }
role_check
if declare -F probe_disk >/dev/null; then probe_disk; fi
`

func runInstallerChecks(l *labtest.Lab, h *labtest.Host) ([]byte, error) {
	return exec.Command("bash", "-euc", probeScript, filepath.Join("..", "..", "scripts", "install-lab-host.sh"),
		filepath.Dir(l.Program("shipper")), h.Path("lab-host.toml")).CombinedOutput()
}

// TestInstallerWritesNothingByNameInTheEpisodesFolder: an experiment's user waits for what root
// creates there, and exchanges it for a directory with a link in it.
func TestInstallerWritesNothingByNameInTheEpisodesFolder(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	fixture.Must(t, os.Chmod(h.Episodes(), 0o2770))
	precious := h.Path("precious")
	fixture.Must(t, os.WriteFile(precious, []byte("precious"), 0o600))
	evil := h.Episodes("evil")
	fixture.Must(t, os.Mkdir(evil, 0o777))
	fixture.Must(t, os.Symlink(precious, filepath.Join(evil, "a")))

	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	fixture.Must(t, err)
	_, err = unix.InotifyAddWatch(watch, h.Episodes(), unix.IN_CREATE)
	fixture.Must(t, err)
	created := make(chan string, 1000)
	go func() {
		defer close(created)
		b := make([]byte, 4096)
		for {
			n, err := unix.Read(watch, b)
			if err != nil {
				return
			}
			for _, name := range inotifyNames(b[:n]) {
				if name == "last" {
					return
				}
				unix.Renameat2(unix.AT_FDCWD, evil, unix.AT_FDCWD, h.Episodes(name), unix.RENAME_EXCHANGE)
				created <- name
			}
		}
	}()
	for n := range 5 {
		if out, err := runInstallerChecks(l, h); err != nil {
			t.Errorf("run %d: %v\n%s", n+1, err, out)
		}
	}
	fixture.Must(t, os.Mkdir(h.Episodes("last"), 0o755))
	for name := range created {
		t.Errorf("%s was created in the episodes folder", name)
	}
	fixture.Must(t, unix.Close(watch))
	if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
		t.Errorf("root's file says %q, %v", b, err)
	}
	if left, _ := filepath.Glob(h.Outbox(".cis490-probe*")); len(left) > 0 {
		t.Errorf("left in the outbox: %q", left)
	}
}

// inotifyNames returns the names in inotify events.
func inotifyNames(b []byte) []string {
	var names []string
	for len(b) >= unix.SizeofInotifyEvent {
		length := int(b[12]) | int(b[13])<<8 // of a name, at most 272
		names = append(names, strings.TrimRight(string(b[16:16+length]), "\x00"))
		b = b[16+length:]
	}
	return names
}

// TestCheckDiskTriesAsTheServiceUser: where others can write too, it creates files as that user
// alone.
func TestCheckDiskTriesAsTheServiceUser(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	for _, r := range []labtest.Result{
		h.Run("check", "--disk"), l.Receiver("check", "--disk", "--config", l.Path("receiver.toml")),
	} {
		r.MustExit(t, 0)
		if r.Stdout+r.Stderr != "" {
			t.Errorf("it said %s%s", r.Stdout, r.Stderr)
		}
	}
	// A directory that the user cannot write in is not probed, not even by root.
	fixture.Must(t, os.Chmod(h.Outbox(), 0o550))
	fixture.Must(t, os.Chmod(h.Shipped(), 0o550))
	fixture.Must(t, os.Chmod(h.Episodes(), 0o550))
	if r := h.Run("check", "--disk").MustExit(t, 0); strings.Count(r.Stderr, "was not tried") != 3 {
		t.Errorf("it said %s", r.Stderr)
	}
	// Nor is root's, if users other than root can change its content.
	fixture.Must(t, os.Chown(h.Outbox(), 0, 0))
	fixture.Must(t, os.Chmod(h.Outbox(), 0o770))
	if r := h.Run("check", "--disk").MustExit(t, 0); !strings.Contains(r.Stderr, fmt.Sprintf("%s can be changed by others than root", h.Outbox())) {
		t.Errorf("it said %s", r.Stderr)
	}
}
