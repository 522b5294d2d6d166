package sharedhosts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// damageCopy makes the copy of a machine one that cannot be used.
func (m *machine) damageCopy() (path string) {
	m.t.Helper()
	path = filepath.Join(m.dir, "disabled-hosts.json")
	fixture.WriteFile(m.t, path, "torn")
	fixture.Must(m.t, os.Chmod(path, 0o640))
	return path
}

// checkCopy checks that the copy of a machine says that a host is disabled.
func (m *machine) checkCopy(when string, host episode.Name) {
	m.t.Helper()
	if hosts, err := datadir.DisabledHosts(m.dir); err != nil || len(hosts) != 1 || hosts[0] != host {
		m.t.Errorf("%s: the copy has %q, %v, want %s", when, hosts, err, host)
	}
}

// A copy that is damaged refuses hosts only for a moment: the bucket has the list.
func TestADamagedCopyIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		m := newMachine(t, in)
		m.disable("lab-01")
		m.damageCopy()
		fixture.WriteFile(t, filepath.Join(m.dir, batchlog.CopyStateName(datadir.IndexFile)), "{}") // as beside any copy
		started := openMachine(t, in, m.dir)
		if !started.refuses("lab-02") {
			t.Error("before the bucket was asked: a host is served")
		}
		mustFollow(started, in)
		read := 0
		check := func(when string) {
			t.Helper()
			said := started.said.String()[read:]
			read += len(said)
			if !started.refuses("lab-01") || started.refuses("lab-02") {
				t.Errorf("%s: got %v and %v, want lab-01 refused", when, started.refuses("lab-01"), started.refuses("lab-02"))
			}
			started.checkCopy(when, "lab-01")
			if n := strings.Count(said, "level=WARN"); n != 1 || strings.Contains(said, "enables all hosts") {
				t.Errorf("%s: got %d warnings, want one: %s", when, n, said)
			}
		}
		check("a start")
		for _, damage := range []func(){func() { m.damageCopy() }, func() { fixture.Must(t, os.Chmod(filepath.Join(m.dir, "disabled-hosts.json"), 0o666)) }} {
			damage()
			time.Sleep(2 * PollInterval)
			synctest.Wait()
			check("while it runs")
		}
		m.damageCopy()
		fixture.Must(t, m.list.Restore(t.Context()))
		m.checkCopy("a command", "lab-01")
	})
}

// A damaged list is the only one if the bucket has none.
func TestADamagedListThatWasNotSharedIsKept(t *testing.T) {
	in := new(buckettest.Memory)
	m := newMachine(t, in)
	path := m.damageCopy()
	if _, err := openMachine(t, in, m.dir).follow(in); !errors.Is(err, datadir.ErrDisabledList) {
		t.Errorf("start: got %v, want %v", err, datadir.ErrDisabledList)
	}
	if _, err := m.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now()); !errors.Is(err, datadir.ErrDisabledList) {
		t.Errorf("disable: got %v, want %v", err, datadir.ErrDisabledList)
	}
	if got := fixture.ReadFile(t, path); got != "torn" || len(in.Names()) > 0 {
		t.Errorf("got the file %q and %q in the bucket, want both as they were", got, in.Names())
	}
}

// The copy of a bucket's list is not the only one, and its error says so.
func TestAdviceAboutADamagedListFitsItsStore(t *testing.T) {
	m := newMachine(t, new(buckettest.Memory))
	m.damageCopy()
	want := func(advice string) {
		t.Helper()
		if _, err := datadir.CountDisabled(m.dir); err == nil || !strings.Contains(err.Error(), advice) {
			t.Errorf("got %v, want %q", err, advice)
		}
	}
	want("which enables all hosts")
	fixture.WriteFile(t, filepath.Join(m.dir, batchlog.CopyStateName(datadir.IndexFile)), "{}")
	want("is read again from the bucket")
}
