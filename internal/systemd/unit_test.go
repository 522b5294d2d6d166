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

// TestServiceDecidesForItsOwnFileOnly: a start by hand with another file is not of the unit.
func TestServiceDecidesForItsOwnFileOnly(t *testing.T) {
	const usual = "/etc/cis490/receiver.toml"
	for _, c := range []struct {
		load, command, file string
		want                bool
	}{
		{"loaded", "{ path=/usr/bin/r ; argv[]=/usr/bin/r }", usual, true},
		{"loaded", "{ path=/usr/bin/r ; argv[]=/usr/bin/r }", "/tmp/r.toml", false},
		{"loaded", "{ argv[]=/usr/bin/r --config /tmp/r.toml }", "/tmp/r.toml", true},
		{"loaded", "{ argv[]=/usr/bin/r --config /tmp/r.toml }", usual, false},
		{"not-found", "", usual, false},
	} {
		u := systemd.UnitState{"LoadState": {c.load}, "ExecStart": {c.command}}
		if got := u.RunsConfig(c.file, usual); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

// TestJournalIsBounded: its end is kept, whatever a program has logged.
func TestJournalIsBounded(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	fixture.Must(t, os.WriteFile(filepath.Join(dir, "journalctl"), []byte(`#!/bin/sh
case "$*" in *--unit=a.service*--lines=7*) ;; *) exit 3 ;; esac
yes 0123456789 | head -c 200000
echo end
`), 0o700))
	text, err := systemd.ReadJournal(t.Context(), "a.service", 7, 1000)
	if err != nil || len(text) != 1000 || string(text[996:]) != "end\n" {
		t.Errorf("got %d bytes, %v", len(text), err)
	}
	if _, err := systemd.ReadJournal(t.Context(), "b.service", 7, 1000); err == nil {
		t.Error("a journalctl that fails is no error")
	}
}
