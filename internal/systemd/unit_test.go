package systemd_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cis490/internal/fixture"
	"cis490/internal/systemd"
)

// TestUnitHasWhatSystemctlPrints: several lines of one property, and nothing but printable
// ASCII.
func TestUnitHasWhatSystemctlPrints(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	script := `#!/bin/sh
[ "$*" = "show --no-pager --property=Listen,LoadState -- a.socket" ] || exit 3
printf 'LoadState=loaded\nListen=[::]:8443 (Stream)\nListen=/run/\033x=y (Stream)\n'
`
	fixture.Must(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o700))
	u, err := systemd.ShowUnit(t.Context(), "a.socket", "Listen", "LoadState")
	want := systemd.UnitState{"LoadState": {"loaded"}, "Listen": {"[::]:8443 (Stream)", `/run/\x1bx=y (Stream)`}}
	if diff := cmp.Diff(want, u); diff != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	if u.FirstValue("Listen") != "[::]:8443 (Stream)" || u.FirstValue("None") != "" {
		t.Errorf("first: %q, %q", u.FirstValue("Listen"), u.FirstValue("None"))
	}
	if _, err := systemd.ShowUnit(t.Context(), "b.socket", "Listen", "LoadState"); err == nil {
		t.Error("a systemctl that fails is no error")
	}
}
