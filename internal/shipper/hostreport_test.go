package shipper_test

import (
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// TestReportSaysWhatAStatusSays: of each state one episode, and an entry that is none.
func TestReportSaysWhatAStatusSays(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("delivered", "conflict")
	l.receiver.stored["conflict"] = wire.Receipt{Host: host, Episode: "conflict", Digest: digest.Digest{1}}
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Conflicts: 1})
	l.finishEpisodes("waiting", "packed")
	l.packOnly("packed")
	fixture.Must(t, os.Mkdir(l.path("episodes", "unfinished"), 0o750))
	fixture.Must(t, os.Mkdir(l.path("episodes", "-invalid"), 0o750))
	fixture.WriteFile(t, l.path("episodes", "-invalid", "done.marker"), "")
	reporter := backlog.NewReporter(l.cfg.Backlog(), "1.4\x1b[2J")
	ends := time.Now().Add(time.Hour).UTC()
	r, err := reporter.Report(t.Context(), time.Now(), 5*time.Minute, ends)
	fixture.Must(t, err)
	fixture.Must(t, r.Validate())
	st := l.inspectStatus()
	if r.Waiting != int64(st.Waiting+st.Sealed) || r.Waiting != 2 || r.WaitingBytes != st.SealedBytes || !r.OldestWaiting.Equal(st.OldestWaiting) {
		t.Errorf("got %+v, status has %+v", r, st)
	}
	if r.Unfinished != int64(st.Unfinished) || r.Unfinished != 1 || !r.OldestUnfinished.Equal(st.Oldest.ChangedAt) {
		t.Errorf("unfinished: got %d since %v, status has %d since %v", r.Unfinished, r.OldestUnfinished, st.Unfinished, st.Oldest.ChangedAt)
	}
	if want := map[string]int64{"conflict": 1, "invalid": 1}; !maps.Equal(r.Held, want) || r.HeldTotal() != int64(st.HeldTotal) {
		t.Errorf("held: got %v, want %v; status has %d", r.Held, want, st.HeldTotal)
	}
	if r.Shipped != 1 || r.Interval != 300 || !r.CertificateEnds.Equal(ends) || r.Version != `1.4\x1b[2J` || r.Disk.SizeBytes < r.Disk.FreeBytes || r.Disk.FreeBytes == 0 {
		t.Errorf("got %+v", r)
	}

	// What was delivered since is counted, and the machine is the same.
	l.wantOnce(shipper.Tally{Scanned: 4, Shipped: 2, Held: 2})
	again, err := reporter.Report(t.Context(), time.Now(), 0, ends)
	fixture.Must(t, err)
	if again.Shipped != 3 || again.Instance != r.Instance || len(r.Instance) != 24 {
		t.Errorf("got %+v, want 3 shipped and the instance %s", again, r.Instance)
	}
}

func TestReportHasTheLastError(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1", "run-2")
		l.refuseOnly(fmt.Errorf("no \x1b[31mroute"), "run-1")
		_, stop := l.startDaemon()
		time.Sleep(10 * time.Minute)
		fixture.Must(l, stop())
		r, err := backlog.NewReporter(l.cfg.Backlog(), "").Report(l.Context(), time.Now(), 0, time.Time{})
		fixture.Must(l, err)
		if r.Failing != 1 || r.Waiting != 1 || r.LastError != `no \x1b[31mroute` || r.LastErrorAt.IsZero() || !r.FailingSince.Before(r.LastErrorAt) {
			l.Errorf("got %+v", r)
		}
	})
}

// TestChangesAreSignalled: what an operator wants to know at once.
func TestChangesAreSignalled(t *testing.T) {
	inBubble(t, func(l *lab) {
		s, stop := l.startDaemon()
		defer stop()
		time.Sleep(time.Minute)
		signalled := func(what string, want bool) {
			l.Helper()
			time.Sleep(10 * time.Minute)
			select {
			case <-s.StateChanges():
				if !want {
					l.Errorf("%s is signalled", what)
				}
			default:
				if want {
					l.Errorf("%s is not signalled", what)
				}
			}
		}
		select {
		case <-s.StateChanges():
		default:
		}
		signalled("nothing", false)
		l.finishEpisodes("run-1")
		signalled("a delivery", false)
		l.receiver.update(func() {
			l.receiver.stored["run-2"] = wire.Receipt{Host: host, Episode: "run-2", Digest: digest.Digest{1}}
		})
		l.finishEpisodes("run-2")
		signalled("a held episode", true)
		l.receiver.update(func() { l.receiver.down = fmt.Errorf("away") })
		signalled("an outage", true)
		l.receiver.update(func() { l.receiver.down = nil })
		signalled("its end", true)
	})
}
