package labtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// shipperStatus is the output of 'shipper status --json' on a host.
type shipperStatus struct {
	Running string
	Waiting int
	Failing []struct {
		Episode  string `json:"episode_id"`
		Attempts int
		Cause    string
	}
	Total    int `json:"failing_total"`
	Held     []struct{ Reason, Cause string }
	Receiver *struct {
		Since time.Time
		Cause string
		Hint  string
	} `json:"receiver_down"`
	State      string    `json:"receiver_state"`
	AnsweredAt time.Time `json:"receiver_answered_at"`
	ReportedAt time.Time `json:"reported_at"`
	Unfinished int
}

func statusOf(t *testing.T, h *labtest.Host) shipperStatus {
	t.Helper()
	var st shipperStatus
	fixture.Must(t, json.Unmarshal([]byte(h.Run("status", "--json").Stdout), &st))
	return st
}

// wantNarrowLines checks that no line of a text is wider than a terminal.
func wantNarrowLines(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if len(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("a line of %d columns: %s", len(line), line)
		}
	}
}

// A receiver answers 500 for one episode: the pass reports it, status lists the episode, and
// the others are shipped.
func TestAnEpisodeThatFailsIsNamed(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	restore := l.Fake(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/ping" {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"status":"ok","host_id":"lab-01","server_time":"2026-11-29T08:00:00Z","storage":{"accepting":true}}`)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, `{"type":"urn:cis490:problem:internal","status":500,"detail":"no such table"}`)
	}))
	for range 2 {
		pass := h.Once().Must(t, 1, labtest.Tally{Scanned: 1, Transient: 1})
		mustContain(t, "the pass", pass.Stderr, "WARN will try again episode=run-1", "see the log")
	}
	st := statusOf(t, h)
	if len(st.Failing) != 1 || st.Failing[0].Episode != "run-1" || st.Failing[0].Attempts != 2 || !strings.Contains(st.Failing[0].Cause, "no such table") || st.Total != 1 {
		t.Errorf("status says %+v", st)
	}
	text := h.Run("status").MustExit(t, 0).Stdout
	wantNarrowLines(t, text)
	mustContain(t, "status", text, "failing     1, when the last run ended ", "\nrun-1\n  failing, tried 2 times, first ")
	restore()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if st := statusOf(t, h); st.Total != 0 || len(st.Failing) != 0 {
		t.Errorf("at home, status says %+v", st)
	}
	l.Settled(t)
}

// During an outage status says since when, for a daemon as for a pass that has ended, and that
// this is from the last run.
func TestStatusSaysThatTheReceiverIsAway(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	text := h.Run("status").MustExit(t, 0).Stdout
	wantNarrowLines(t, text)
	mustContain(t, "status", text, "when the last run ended", "receiver has not accepted uploads since 20", "  failing, tried once")

	d := h.Daemon()
	labtest.Eventually(t, "status says so beside a daemon", func() bool {
		st := statusOf(t, h)
		return st.Running != "" && st.Receiver != nil && st.Receiver.Cause != "" && time.Since(st.ReportedAt) < time.Minute
	})
	if text := h.Run("status").Stdout; strings.Contains(text, "last run") {
		t.Errorf("beside a daemon status says %s", text)
	}
	l.Proxy.Always(labtest.Fault{})
	h.WaitShipped("run-1")
	labtest.Eventually(t, "status says that the receiver is back", func() bool { return statusOf(t, h).Receiver == nil })
	d.Stop(t)
	l.Settled(t)
}

// A folder that root copied in and gave to the service a moment later is held, and shipped
// moments after.
func TestAFolderThatGetsItsOwnerLaterShips(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	l.Start()
	d := h.Daemon()
	h.Episode("run-1") // root's
	labtest.Eventually(t, "it is held", func() bool {
		held := statusOf(t, h).Held
		return len(held) == 1 && held[0].Reason == "stuck"
	})
	mustContain(t, "status", h.Run("status").MustExit(t, 3).Stdout, "it is retried automatically; to retry now: shipper retry run-1")
	l.OwnTree(h.Episodes("run-1"))
	h.WaitShipped("run-1")
	labtest.Eventually(t, "it is held no more", func() bool { return len(statusOf(t, h).Held) == 0 })
	d.Stop(t)
	l.Settled(t)
}

// An episode that is a mount point is held, with advice.
func TestAMountForAnEpisodeIsHeld(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	dir := h.Episodes("run-1")
	fixture.Must(t, os.Mkdir(dir, 0o755))
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getuid() == 0 && os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	fixture.WriteFile(t, filepath.Join(dir, "meta.json"), "{}")
	h.Once().Must(t, 0, labtest.Tally{})
	if st := statusOf(t, h); st.Unfinished != 1 {
		t.Errorf("status says %+v", st)
	}
	fixture.WriteFile(t, filepath.Join(dir, "done.marker"), "")
	h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Held: 1})
	if reason, cause := readHold(t, h, "run-1"); reason != "unfit" || !strings.Contains(cause, "cp -a") {
		t.Errorf("held as %s: %s", reason, cause)
	}
	l.Check(t)
}
