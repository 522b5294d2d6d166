package labtest_test

import (
	"errors"
	"os/exec"
	"testing"

	"cis490/internal/fixture"

	"cis490/internal/labtest"
)

// runReadOnly runs a program that sees a directory read-only, as under a unit without
// ReadWritePaths=, and returns its exit code and output.
func runReadOnly(t *testing.T, dir string, argv ...string) (int, string) {
	t.Helper()
	fixture.RequireRoot(t)
	script := `mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"`
	cmd := requireReader(t, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", dir}, argv...)...)
	out, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestReadOnlyDirectoryAtStartIsToConfigure: the cause is the configuration, and not a storage
// fault with advice to check the disk.
func TestReadOnlyDirectoryAtStartIsToConfigure(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Once().Must(t, 0, labtest.Tally{})
	l.Stop()
	for name, c := range map[string]struct {
		dir  string
		argv []string
	}{
		"receiver":       {l.Path("data"), []string{l.Program("receiver"), "--config", l.Path("receiver.toml")}},
		"shipper":        {h.Outbox(), []string{l.Program("shipper"), "--config", h.Path("lab-host.toml")}},
		"shipper --once": {h.Outbox(), []string{l.Program("shipper"), "--once", "--config", h.Path("lab-host.toml")}},
	} {
		code, said := runReadOnly(t, c.dir, c.argv...)
		if code != 2 {
			t.Errorf("%s: exit code %d, want 2", name, code)
		}
		mustContain(t, name, said, "read-only file system", "ReadWritePaths=", c.dir)
	}
}
