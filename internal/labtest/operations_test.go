package labtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
	"cis490/internal/wire"
)

// These tests follow sections of docs/operations.md that no other test follows.
// TestEachSectionOfOperationsIsTried in package internal says which test follows which section.

// TestHostsContinueOnceTheReceiverHasInodes follows "A disk has no free inodes".
func TestHostsContinueOnceTheReceiverHasInodes(t *testing.T) {
	t.Parallel()
	fixture.RequireRoot(t)
	l := labtest.New(t, labtest.Unstarted())
	fixture.Must(t, os.Mkdir(l.Path("data"), 0o755))
	fixture.MountTmpfsAt(t, l.Path("data"), "size=64m,nr_inodes=400")
	l.Start()
	h := l.Host("lab-01")
	others := l.Path("data", "others")
	fixture.Must(t, os.Mkdir(others, 0o700))
	for i := range 370 {
		fixture.WriteFile(t, filepath.Join(others, fmt.Sprint(i)), "")
	}
	h.Episode("run-1")
	pass := h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	mustContain(t, "the pass", pass.Stderr, "no free inodes above min_free_inodes")
	mustContain(t, "the status", l.Receiver("status", "--config", l.Path("receiver.toml")).MustExit(t, 0).Stdout, "inodes")
	l.Set("min_free_inodes", "0")
	l.Restart()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	fixture.Must(t, os.RemoveAll(others))
	l.Settled(t)
}

// TestHostPacksAgainAfterAPrune follows "A disk is full" on a host: what the receiver has can be deleted.
func TestHostPacksAgainAfterAPrune(t *testing.T) {
	t.Parallel()
	fixture.RequireRoot(t)
	l, h := newLab(t)
	fixture.Must(t, os.MkdirAll(h.Path("data"), 0o755))
	fixture.MountTmpfsAt(t, h.Path("data"), "size=64m")
	h.Set("min_free", `"20MiB"`)
	makeLargeEpisode(t, h, "run-1", 12<<20)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	fixture.Must(t, os.WriteFile(h.Path("data", "others"), fixture.Noise(34<<20, 1), 0o600))
	h.Episode("run-2")
	d := h.Daemon()
	d.WaitLine(t, "packing waits for space")
	h.Run("verify").MustExit(t, 0) // the scrub has yet to read the archive back
	pruneUntil(t, h, "deleted=1")
	h.Forget("run-1") // by the lab: it is on the receiver only
	h.WaitShipped("run-2")
	d.Stop(t)
	l.Settled(t)
}

// TestPingShowsAWrongClock follows "A clock is wrong".
func TestPingShowsAWrongClock(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	for ahead, want := range map[time.Duration]string{time.Hour: "behind the receiver: check both clocks", -time.Hour: "ahead of the receiver: check both clocks"} {
		restore := l.Fake(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fixture.Must(t, json.NewEncoder(w).Encode(wire.PingResponse{
				Status: "ok", Host: "lab-01", Time: time.Now().Add(ahead), Storage: wire.Storage{Accepting: true},
			}))
		}))
		mustContain(t, "the ping", h.Run("--ping").MustExit(t, 0).Stdout, want)
		restore()
	}
	mustContain(t, "the ping", h.Run("--ping").MustExit(t, 0).Stdout, "within")
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}
