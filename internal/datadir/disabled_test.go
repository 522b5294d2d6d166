package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// newDataDir returns a data directory in which host lab-01 has stored something.
func newDataDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	fixture.Must(t, os.MkdirAll(filepath.Join(dir, "episodes", "lab-01"), 0o750))
	return dir
}

func TestDisablingIsIdempotentAndSurvivesARestart(t *testing.T) {
	dir := newDataDir(t)
	first := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	for i, at := range []time.Time{first, first.Add(time.Hour)} {
		changes, err := datadir.HostList{Dir: dir, Holder: "the test"}.Disable(t.Context(), []episode.Name{"lab-01", "lab-09"}, at)
		fixture.Must(t, err)
		for j, c := range changes {
			if c.Changed != (i == 0) || !c.Since.Equal(first) || c.Known != (j == 0) || c.State != datadir.HostDisabled {
				t.Errorf("call %d: got %+v", i, c)
			}
		}
	}
	hosts, err := datadir.ListHosts(dir)
	fixture.Must(t, err)
	if len(hosts) != 2 || hosts[0].State != datadir.HostDisabled || !hosts[0].Stored || hosts[1].State != datadir.HostDisabled || hosts[1].Stored {
		t.Errorf("got %+v, want both disabled, and only the first stored", hosts)
	}
	for i := range 2 {
		changes, err := datadir.HostList{Dir: dir, Holder: "the test"}.Enable(t.Context(), []episode.Name{"lab-09"})
		fixture.Must(t, err)
		if changes[0].Changed != (i == 0) {
			t.Errorf("call %d: got %+v", i, changes)
		}
	}
	if hosts, err = datadir.ListHosts(dir); err != nil || len(hosts) != 1 {
		t.Errorf("got %+v, %v, want one host", hosts, err)
	}
}

func TestSimultaneousDisablingLosesNone(t *testing.T) {
	dir := newDataDir(t)
	done := make(chan error)
	const commands = 8
	for i := range commands {
		go func() {
			name := episode.Name("lab-" + string(rune('a'+i)))
			_, err := datadir.HostList{Dir: dir, Holder: "the test"}.Disable(t.Context(), []episode.Name{name}, time.Now())
			done <- err
		}()
	}
	for range commands {
		fixture.Must(t, <-done)
	}
	if n, err := datadir.CountDisabled(dir); err != nil || n != commands {
		t.Errorf("got %d disabled hosts, %v, want %d", n, err, commands)
	}
}

// TestDamagedListIsNeverReplaced: commands report it, and it does not count as empty.
func TestDamagedListIsNeverReplaced(t *testing.T) {
	entry := `{"host_id":"x","since":"2026-11-29T10:00:00Z"}`
	for name, content := range map[string]string{
		"empty":           "",
		"torn":            `{"schema_version":1,`,
		"newer":           `{"schema_version":2,"disabled":[]}`,
		"without members": `{"schema_version":1}`,
		"a host twice":    `{"schema_version":1,"disabled":[` + entry + "," + entry + `]}`,
	} {
		dir := newDataDir(t)
		path := filepath.Join(dir, "disabled-hosts.json")
		fixture.WriteFile(t, path, content)
		fixture.Must(t, os.Chmod(path, 0o640))
		if _, err := (datadir.HostList{Dir: dir, Holder: "the test"}).Enable(t.Context(), []episode.Name{"x"}); !errors.Is(err, datadir.ErrDisabledList) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Enable returned %v", name, err)
		}
		if _, err := datadir.ListHosts(dir); !errors.Is(err, datadir.ErrDisabledList) {
			t.Errorf("%s: ListHosts returned %v", name, err)
		}
		if got := fixture.ReadFile(t, path); got != content {
			t.Errorf("%s: the file is now %q", name, got)
		}
	}
}
