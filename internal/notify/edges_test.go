package notify_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/notify"
)

// edgeTest drives edges with its own clock.
type edgeTest struct {
	*testing.T
	dir   string
	edges *notify.Edges
	now   time.Time
}

func newEdgeTest(t *testing.T) *edgeTest {
	e := &edgeTest{T: t, dir: t.TempDir(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	e.restart()
	return e
}

func (e *edgeTest) restart() { e.edges = notify.OpenEdges(e.dir, silent) }

// expect updates a minute later, and compares the hosts that were reported.
func (e *edgeTest) expect(why string, list []notify.HostState, complete bool, want ...episode.Name) {
	e.Helper()
	e.now = e.now.Add(time.Minute)
	var got []episode.Name
	for _, event := range e.edges.Update(list, complete, nil, e.now) {
		if event.Type != notify.HostSilent {
			e.Errorf("%s: got %+v", why, event)
		}
		got = append(got, event.Data.Host)
	}
	if len(got) != len(want) {
		e.Errorf("%s: reported %v, want %v", why, got, want)
		return
	}
	for i := range want {
		if got[i] != want[i] {
			e.Errorf("%s: reported %v, want %v", why, got, want)
		}
	}
}

func TestSilenceIsReportedOnce(t *testing.T) {
	e := newEdgeTest(t)
	at := e.now.Add(-time.Hour)
	talks := func(contact time.Time) []notify.HostState {
		return []notify.HostState{{Host: "lab-01", Contact: contact, Heard: contact}}
	}
	silence := []notify.HostState{{Host: "lab-01", Silent: true, Contact: at, Heard: at}}
	e.expect("at first", talks(at), true)
	e.expect("it becomes silent", silence, true, "lab-01")
	e.expect("it stays silent", silence, true)
	e.restart()
	e.expect("after a restart no host is silent yet", talks(at), true)
	e.expect("it is silent since before the restart", silence, true)
	e.expect("the list cannot be read", nil, false)
	e.expect("it can be read again", silence, true)
	e.expect("it reports", talks(e.now), true)
	e.expect("it becomes silent again", silence, true, "lab-01")
	e.expect("it is disabled", nil, true)
	e.expect("it is enabled, and silent", silence, true, "lab-01")
}

// TestSilenceOfAHostThatConnectsIsReportedOnce: it does not report, and is not silent for a while after a
// restart.
func TestSilenceOfAHostThatConnectsIsReportedOnce(t *testing.T) {
	e := newEdgeTest(t)
	heard := e.now.Add(-time.Hour)
	host := func(silent bool, heard time.Time) []notify.HostState {
		return []notify.HostState{{Host: "lab-01", Silent: silent, Contact: e.now, Heard: heard}}
	}
	e.expect("it stops reporting", host(true, heard), true, "lab-01")
	e.restart()
	e.expect("after a restart it connects", host(false, heard), true)
	e.expect("it still does not report", host(true, heard), true)
	e.expect("it reports", host(false, e.now), true)
	e.expect("it stops again", host(true, e.now), true, "lab-01")
}

func TestLowSpaceIsReportedOnce(t *testing.T) {
	e := newEdgeTest(t)
	free := int64(7)
	update := func(low bool, after time.Duration) int {
		e.now = e.now.Add(after)
		events := e.edges.Update(nil, true, &notify.SpaceState{Low: low, Data: notify.Data{Free: &free}}, e.now)
		for _, event := range events {
			if event.Type != notify.LowSpace || *event.Data.Free != 7 {
				t.Errorf("got %+v", event)
			}
		}
		return len(events)
	}
	for i, step := range []struct {
		low   bool
		after time.Duration
		want  int
	}{
		{false, 0, 0},
		{true, time.Minute, 1},
		{true, time.Hour, 0},
		{false, time.Minute, 0},
		{true, time.Minute, 0}, // it was low a moment ago
		{false, notify.SpaceSettled, 0},
		{true, time.Minute, 1},
	} {
		if got := update(step.low, step.after); got != step.want {
			t.Errorf("step %d: %d events, want %d", i, got, step.want)
		}
	}
	e.restart()
	if update(true, time.Minute) != 0 {
		t.Error("reported again after a restart")
	}
}

// TestDamagedStateIsReplaced: nothing depends on it.
func TestDamagedStateIsReplaced(t *testing.T) {
	e := newEdgeTest(t)
	fixture.Must(t, os.WriteFile(filepath.Join(e.dir, ".edges"), []byte(`{"silent":{"../x":1}}`), 0o600))
	silence := []notify.HostState{{Host: "lab-01", Silent: true}}
	e.expect("with a damaged file", silence, true, "lab-01")
	e.restart()
	e.expect("with a new one", silence, true)
}
