package labtest_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// The scan interval of every host here is an hour: what a daemon does at once, it does because
// of inotify.

func TestDaemonShipsAtOnceWhatBecomesFinished(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Draft("before") // in the folder when the daemon starts, without a marker
	h.Episode("waiting")
	d := h.Daemon()
	h.WaitShipped("waiting")
	h.Finish("before")
	h.WaitShipped("before")

	h.Episode("written") // made in place
	h.WaitShipped("written")

	elsewhere := h.Path("data", "moved") // renamed in with its marker
	h.Draft("moved")
	fixture.Must(t, os.Rename(h.Episodes("moved"), elsewhere))
	fixture.WriteFile(t, elsewhere+"/done.marker", "")
	h.Note("moved", elsewhere)
	fixture.Must(t, os.Rename(elsewhere, h.Episodes("moved")))
	h.WaitShipped("moved")

	h.Draft("renamed") // its marker comes by a rename
	fixture.WriteFile(t, h.Path("data", "marker"), "")
	tree := labtest.ReadTree(t, h.Episodes("renamed"))
	fixture.Must(t, os.Rename(h.Path("data", "marker"), h.Episodes("renamed", "done.marker")))
	h.WaitShipped("renamed")
	h.Note("renamed", h.Shipped("renamed"))
	tree["done.marker"] = labtest.ReadTree(t, h.Shipped("renamed"))["done.marker"]
	if got := labtest.ReadTree(t, h.Shipped("renamed")); got.String() != tree.String() {
		t.Errorf("renamed holds\n%swant\n%s", got, tree)
	}
	h.WaitEmpty()
	d.Stop(t)
	l.Settled(t)
}

// TestNoMarkerIsMissed makes episodes as fast as possible: a marker may come between the
// creation of a directory and its watch.
func TestNoMarkerIsMissed(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	d := h.Daemon()
	var names []string
	for i := range 200 {
		name := fmt.Sprintf("run-%03d", i)
		h.Episode(name, labtest.File{Name: "f", Body: name})
		names = append(names, name)
	}
	h.WaitShipped(names...)
	h.WaitEmpty()
	d.Stop(t)
	l.Settled(t)
	if n := len(l.Rows(t)); n != len(names) {
		t.Errorf("%d rows, want %d", n, len(names))
	}
}

// watchDelay delays each inotify_add_watch, so that a test can act before it.
const watchDelay = 300 * time.Millisecond

func TestEpisodeFinishedWhileTheDaemonBeginsToWatchIsSeen(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	d := h.Slowed(labtest.NewTrace(t), "inotify_add_watch", watchDelay)
	d.WaitLine(t, "shipper started")
	<-time.After(watchDelay / 5) // now the folder is scanned, and not yet watched
	h.Episode("run-1")
	h.WaitShipped("run-1")
	h.WaitEmpty()
	d.Stop(t)
	l.Settled(t)
}

// TestMarkerMadeBeforeItsWatchIsSeen makes the marker between the check for it and the watch.
// On a machine that is too slow for that, the test shows nothing. It fails only if a marker is
// missed.
func TestMarkerMadeBeforeItsWatchIsSeen(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	tr := labtest.NewTrace(t)
	d := h.Slowed(tr, "inotify_add_watch", watchDelay)
	labtest.Eventually(t, "the folder is watched", func() bool { return strings.Contains(tr.Text(), "= 1") })
	for _, name := range []string{"run-1", "run-2", "run-3"} {
		h.Draft(name)
		<-time.After(watchDelay / 5) // now the episode was checked, and is not yet watched
		h.Finish(name)
		h.WaitShipped(name)
	}
	h.WaitEmpty()
	d.Stop(t)
	l.Settled(t)
}

func TestRetryWorksBesideTheDaemon(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Set("scan_interval", `"1s"`) // which is how a daemon learns of it
	d := h.Daemon()
	h.Draft("run-1", labtest.File{Name: "meta.json"})
	h.Finish("run-1")
	labtest.Eventually(t, "run-1 is held", func() bool { return fixture.Exists(h.Outbox("run-1.held")) })
	h.Run("status").MustExit(t, 3)
	h.Forget("run-1")
	fixture.WriteFile(t, h.Episodes("run-1", "meta.json"), "{}")
	h.Note("run-1", h.Episodes("run-1"))
	h.Run("retry", "run-1").MustExit(t, 0)
	h.WaitShipped("run-1")
	h.WaitEmpty()
	d.Stop(t)
	l.Settled(t)
}

// makeLargeEpisode makes an episode that does not compress and needs many TLS records.
func makeLargeEpisode(t *testing.T, h *labtest.Host, name string, size int) {
	t.Helper()
	h.Episode(name, labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "blob", Body: string(fixture.Noise(size, 1))})
}

func TestTerminatedShipperEndsInTimeAndLosesNothing(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	makeLargeEpisode(t, h, "run-1", 4<<20)
	l.Proxy.Always(labtest.Fault{StallAfter: 1 << 20})
	d := h.Daemon()
	labtest.Eventually(t, "an upload is under way", func() bool { return len(l.Staged()) > 0 })
	d.Stop(t)
	if !fixture.Exists(h.Episodes("run-1", "done.marker")) {
		t.Error("run-1 was retired")
	}
	l.Check(t)
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestTerminatedReceiverEndsInTimeAndLosesNothing(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	makeLargeEpisode(t, h, "stalled", 4<<20)
	h.Episode("small")
	l.Proxy.Always(labtest.Fault{StallAfter: 1 << 20})
	d := h.Daemon()
	labtest.Eventually(t, "an upload is under way", func() bool { return len(l.Staged()) > 0 })
	h.WaitShipped("small")
	l.Stop() // after the grace period of three seconds
	l.Proxy.Always(labtest.Fault{})
	d.Stop(t)
	wantNoHolds(t, h)
	l.Check(t)
	l.Start()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestIdleDaemonsEndAtOnce(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		d := h.Daemon()
		h.WaitShipped("run-1")
		d.Signal(t, signal)
		if code := d.Wait(t); code != 0 {
			t.Errorf("exit code %d after %v, want 0", code, signal)
		}
	}
	h.Once().Must(t, 0, labtest.Tally{})
	l.Stop()
	l.Settled(t)
}

func TestDaemonComesBackByItselfAfterTheReceiver(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	d := h.Daemon("-v")
	h.Episode("before")
	h.WaitShipped("before")
	l.Kill()
	h.Episode("during")
	labtest.Eventually(t, "during is packed", func() bool { return fixture.Exists(h.Outbox("during.tar.zst")) })
	d.WaitLine(t, "receiver unavailable")
	l.Start()
	h.WaitShipped("during") // with the next probe, seconds later
	h.Episode("after")
	h.WaitShipped("after")
	h.WaitEmpty()
	d.Stop(t)
	if n := strings.Count(d.Output(), "receiver unavailable"); n != 1 {
		t.Errorf("the outage was told %d times, want once", n)
	}
	l.Settled(t)
}
