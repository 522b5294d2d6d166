package labtest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// runStoreCommand runs "receiver store" with args, and returns its output.
func runStoreCommand(t *testing.T, l *labtest.Lab, args ...string) string {
	t.Helper()
	return l.Receiver(append([]string{"--config", l.Path("receiver.toml"), "store"}, args...)...).MustExit(t, 0).Stdout
}

// storeID returns the id of the receiver's store.
func storeID(t *testing.T, l *labtest.Lab) string {
	t.Helper()
	var is struct{ ID string }
	if err := json.Unmarshal([]byte(runStoreCommand(t, l, "--json")), &is); err != nil || len(is.ID) < 26 {
		t.Fatalf("%q, %v", is.ID, err)
	}
	return is.ID
}

// adoptedStore returns the store that a host has adopted, or "".
func adoptedStore(t *testing.T, h *labtest.Host) string {
	t.Helper()
	var st struct{ Store struct{ ID string } }
	fixture.Must(t, json.Unmarshal([]byte(h.Run("status", "--json").MustExit(t, 0).Stdout), &st))
	return st.Store.ID
}

// swapData replaces the receiver's data directory by another one, or by none, with the same
// certificates. The returned function restores the former. The receiver runs.
func swapData(t *testing.T, l *labtest.Lab, with string) (back func()) {
	t.Helper()
	l.Stop()
	aside := l.Path("data.aside")
	renamePath(t, l.Path("data"), aside)
	if with != "" {
		copyTree(t, with, l.Path("data"))
	}
	l.Start()
	return func() {
		t.Helper()
		l.Stop()
		fixture.Must(t, os.RemoveAll(l.Path("data")))
		renamePath(t, aside, l.Path("data"))
		l.Start()
	}
}

func renamePath(t *testing.T, from, to string) {
	t.Helper()
	fixture.Must(t, os.Rename(from, to))
}

// wantStoreRefused makes a pass, which must retire nothing, exit with 4 and log each of want.
func wantStoreRefused(t *testing.T, h *labtest.Host, waiting int, want ...string) {
	t.Helper()
	p := h.Once()
	if p.Code != 4 || p.Shipped+p.AlreadyPresent+p.Held+p.Conflicts > 0 || p.Transient != waiting {
		t.Errorf("a pass to another store: exit code %d, %+v", p.Code, p.Tally)
	}
	mustContain(t, "the pass", p.Stderr, want...)
	wantNoHolds(t, h)
}

// TestEmptyStoreTakesNothingOfItsHosts is a Raspberry Pi that booted without its disk.
func TestEmptyStoreTakesNothingOfItsHosts(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	idle := l.Host("lab-02")
	for _, x := range []*labtest.Host{h, idle} {
		x.Episode("run-1")
		x.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	h.Set("retention.max_age", `"1s"`)
	adopted := storeID(t, l)
	back := swapData(t, l, "")
	mustContain(t, "the empty store's log", l.Process().Output(), "a new, empty store", l.Path("data"))
	empty := storeID(t, l)
	h.Episode("run-2")
	h.Episode("large", labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "noise", Body: string(fixture.Noise(1<<20, 1))})
	wantStoreRefused(t, h, 2, adopted, empty, "receiver.url", "receiver store replaces "+adopted)
	if rows := l.Rows(t); len(rows) > 0 || len(l.Staged()) > 0 {
		t.Errorf("the empty store has %+v, staged %q", rows, l.Staged())
	}
	for _, args := range [][]string{{"--ping"}, {"verify"}, {"verify", "--heal"}, {"verify", "--quick"}, {"prune", "--max-age", "1ns"}} {
		r := h.Run(args...).MustExit(t, 4)
		mustContain(t, strings.Join(args, " "), r.Stderr, "another store", adopted, empty)
	}
	mustContain(t, "an idle host's ping", idle.Run("--ping").MustExit(t, 4).Stderr, "another store")
	if !h.IsShipped("run-1") || fixture.Exists(h.Episodes("run-1")) || !fixture.Exists(h.Episodes("run-2")) {
		t.Error("something was moved or deleted")
	}
	d := h.Daemon()
	line := d.WaitLine(t, "another store")
	mustContain(t, "the daemon's line", line, "ERROR", adopted, empty)
	back()
	h.WaitShipped("run-2", "large")
	h.WaitEmpty()
	d.Stop(t)
	if n := strings.Count(d.Output(), "ERROR"); n != 1 {
		t.Errorf("%d lines of Error:\n%s", n, d.Output())
	}
	h.Run("--ping").MustExit(t, 0)
	l.Settled(t)
}

// TestRestoredImageIsRefusedUntilAnOperatorDecides: the image lacks what its hosts have retired
// since, which is restored by healing. Another host makes the image's index grow again.
func TestRestoredImageIsRefusedUntilAnOperatorDecides(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("before")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Stop()
	copyTree(t, l.Path("data"), l.Path("image"))
	l.Start()
	h.Episode("lost")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	adopted := storeID(t, l)
	l.Stop()
	renamePath(t, l.Path("data"), l.Path("data.lost"))
	copyTree(t, l.Path("image"), l.Path("data"))
	l.Start()
	h.Episode("later")
	wantStoreRefused(t, h, 1, adopted, "an older image of it was restored", "receiver store replaces --rewound")
	other := l.Host("lab-02") // adopts this one, and makes its index as long as the former
	for _, name := range []string{"run-1", "run-2", "run-3"} {
		other.Episode(name)
	}
	other.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	wantStoreRefused(t, h, 1, adopted, "an older image of it was restored", "receiver store replaces --rewound")
	mustContain(t, "healing", h.Run("verify", "--heal").MustExit(t, 4).Stderr, "another store")

	said := runStoreCommand(t, l, "replaces", "--rewound")
	rewound := storeID(t, l)
	mustContain(t, "the command", said, "store "+rewound+" replaces "+adopted, "hosts of "+adopted+" adopt this store", "shipper verify --heal")
	if rewound == adopted {
		t.Error("it has the same id")
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	other.Episode("run-4")
	other.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	for _, x := range []*labtest.Host{h, other} {
		if got := adoptedStore(t, x); got != rewound {
			t.Errorf("%s has adopted %s, want %s", x.Name, got, rewound)
		}
	}
	mustContain(t, "healing", h.Run("verify", "--heal").MustExit(t, 1).Stdout, "lost: moved back", "missing=1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	h.Run("verify").MustExit(t, 0)
	l.Settled(t)
}

func TestHostAdoptsWithItsFirstReceipt(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Run("--ping").MustExit(t, 0)
	h.Once().Must(t, 0, labtest.Tally{})
	h.Run("--ping").MustExit(t, 0)
	if got := adoptedStore(t, h); got != "" {
		t.Errorf("adopted %s for a ping", got)
	}
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if got := adoptedStore(t, h); got != storeID(t, l) {
		t.Errorf("adopted %s, want %s", got, storeID(t, l))
	}
}

// TestOlderHostAdoptsOnlyAStoreThatKnowsIt is a host after its upgrade: it has retired
// episodes, and no store.
func TestOlderHostAdoptsOnlyAStoreThatKnowsIt(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	for _, name := range []string{"run-1", "run-2"} {
		h.Episode(name)
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	h.ForgetStore()
	back := swapData(t, l, "")
	h.Episode("run-3")
	for range 2 { // the refused upload does not count as known
		wantStoreRefused(t, h, 1, storeID(t, l), "knows none of the episodes", "receiver store replaces unnamed")
	}
	mustContain(t, "healing", h.Run("verify", "--heal").MustExit(t, 4).Stderr, "knows none of the episodes")
	if fixture.Exists(h.Episodes("run-1")) || adoptedStore(t, h) != "" {
		t.Error("it was healed or adopted")
	}
	back()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if got := adoptedStore(t, h); got != storeID(t, l) {
		t.Errorf("adopted %s", got)
	}
	l.Settled(t)
}

// TestStoreThatReplacesAnotherIsFollowed: the disk is lost, and the operator starts a new
// store.
func TestStoreThatReplacesAnotherIsFollowed(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	older := l.Host("lab-02") // upgraded since, with nothing adopted
	for _, x := range []*labtest.Host{h, older} {
		x.Episode("run-1")
		x.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	older.ForgetStore()
	adopted := storeID(t, l)
	swapData(t, l, "")
	for _, x := range []*labtest.Host{h, older} {
		x.Episode("run-2")
		wantStoreRefused(t, x, 1, "another store")
	}
	runStoreCommand(t, l, "replaces", adopted)
	runStoreCommand(t, l, "replaces", "unnamed")
	for _, x := range []*labtest.Host{h, older} {
		if p := x.Once(); p.Code != 0 || p.Shipped+p.AlreadyPresent != 1 {
			t.Errorf("%s: %d %+v\n%s", x.Name, p.Code, p.Tally, p.Stderr)
		}
		x.Run("verify", "--heal").MustExit(t, 1)
		x.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	l.Settled(t)
}

// newOlderReceiver returns a handler that answers as receivers did before stores had ids.
func newOlderReceiver(t *testing.T) http.Handler {
	stored := map[string]string{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/v1/ping" {
			fmt.Fprint(w, `{"status":"ok","host_id":"lab-01","storage":{"accepting":true}}`)
			return
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		sum := sha256.Sum256(b)
		if r.Header.Get("Repr-Digest") != "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":" {
			t.Errorf("another digest of %s", r.URL.Path)
		}
		name := path.Base(r.URL.Path)
		stored[name] = fmt.Sprintf(`{"status":"stored","host_id":"lab-01","episode_id":%q,"sha256":"%x","size_bytes":%d,"received_at_wall":"2026-11-28T07:17:41.000001+00:00"}`, name, sum, len(b))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, stored[name])
	})
}

func TestOlderReceiverIsTakenWithOneWarning(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Set("senders", "1")
	h.Episode("adopts")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	restore := l.Fake(t, newOlderReceiver(t))
	for _, name := range []string{"run-1", "run-2", "run-3"} {
		h.Episode(name)
	}
	p := h.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	if n := strings.Count(p.Stderr, "WARN receiver does not name its store"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, p.Stderr)
	}
	mustContain(t, "its ping", h.Run("--ping").MustExit(t, 0).Stdout, "not reported: upgrade the receiver")
	restore()
	h.Episode("run-4")
	p = h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if strings.Contains(p.Stderr, "WARN") {
		t.Errorf("the new one:\n%s", p.Stderr)
	}
}

func TestStoreIsNamedBehindAProxy(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy) {
		h.Episode("run-1")
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		adopted := storeID(t, l)
		if got := adoptedStore(t, h); got != adopted {
			t.Errorf("adopted %s, want %s", got, adopted)
		}
		back := swapData(t, l, "")
		h.Episode("run-2")
		wantStoreRefused(t, h, 1, "another store", adopted)
		back()
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		l.Settled(t)
	})
}

// TestTruncatedIndexIsAnotherStoreToItsHosts, even before the next row, and the receiver
// reports what happened.
func TestTruncatedIndexIsAnotherStoreToItsHosts(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Episode("run-2")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	fixture.Must(t, os.Truncate(l.Path("data/index.jsonl"), 100))
	ping := h.Run("--ping").MustExit(t, 4)
	mustContain(t, "the ping", ping.Stderr, "another store", "--rewound")
	l.Process().WaitLine(t, "index was truncated")
	h.Episode("run-3")
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	l.Receiver("index", "backfill", "--config", l.Path("receiver.toml")).MustExit(t, 0)
	l.Receiver("store", "replaces", "--rewound", "--config", l.Path("receiver.toml")).MustExit(t, 0)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}
