package shipper_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// swapStore replaces the receiver's store, and returns a function that restores the former.
func (r *receiver) swapStore(to wire.Store) (back func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stored, disk, rows := r.stored, r.disk, r.rows
	r.stored, r.disk, r.rows = map[episode.Name]wire.Receipt{}, to, nil
	return func() { r.update(func() { r.stored, r.disk, r.rows = stored, disk, rows }) }
}

// snapshot returns a function that restores the present state of the receiver.
func (r *receiver) snapshot() (restore func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stored, disk, rows := maps.Clone(r.stored), r.disk, slices.Clone(r.rows)
	return func() { r.update(func() { r.stored, r.disk, r.rows = maps.Clone(stored), disk, slices.Clone(rows) }) }
}

// adoptedStore returns the store that the outbox has adopted.
func (l *lab) adoptedStore() outbox.Store {
	l.Helper()
	st, err := backlog.InspectStatus(l.cfg.Backlog())
	fixture.Must(l, err)
	if st.Store == nil {
		return outbox.Store{}
	}
	return *st.Store
}

// wantStoreRefused makes a pass, which must retire nothing and log each of want.
func (l *lab) wantStoreRefused(want ...string) {
	l.Helper()
	before := l.listFiles("shipped")
	tally, unreachable := l.runOnce()
	if _, other := errors.AsType[*uplink.OtherStoreError](unreachable); !other || tally.Shipped+tally.AlreadyPresent != 0 || tally.Transient == 0 {
		l.Errorf("a pass to another store came to %v, %v", tally, unreachable)
	}
	for _, s := range want {
		if unreachable == nil || !strings.Contains(unreachable.Error(), s) {
			l.Errorf("the sentence has no %q: %v", s, unreachable)
		}
	}
	l.wantFiles("shipped", before...)
}

func TestFirstReceiptAdoptsItsStore(t *testing.T) {
	l := newLab(t)
	l.wantOnce(shipper.Tally{})
	if got := l.adoptedStore(); got.ID != "" {
		t.Errorf("adopted before anything was shipped: %+v", got)
	}
	l.shipEpisodes("run-1", "run-2")
	if got := l.adoptedStore(); got.ID != "STORE1" || got.IndexBytes != 200 || got.IndexTail == "" {
		t.Errorf("adopted %+v, want STORE1 with 200 bytes", got)
	}
	if n := len(l.logs.linesContaining("adopted the receiver's store")); n != 1 {
		t.Errorf("%d lines say so", n)
	}
}

// TestReceiptOfAnotherStoreRetiresNothing, and shipping continues without an operator when the
// adopted store is back.
func TestReceiptOfAnotherStoreRetiresNothing(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("run-1")
	back := l.receiver.swapStore(wire.Store{ID: "STORE2"})
	l.finishEpisodes("run-2", "run-3")
	l.wantStoreRefused("STORE1", "STORE2", "receiver.url", "mounted", "receiver store replaces STORE1")
	l.wantFiles("episodes", "run-2", "run-3")
	if got := l.adoptedStore(); got.ID != "STORE1" {
		t.Errorf("adopted %+v", got)
	}
	if held := l.held(); len(held) > 0 {
		t.Errorf("held: %+v", held)
	}
	if n := len(l.logs.linesContaining(" ERROR ")); n != 1 {
		t.Errorf("%d lines of Error:\n%s", n, l.logs)
	}
	back()
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 2})
}

func TestRestoredImageIsAnotherStore(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("run-1")
	restore := l.receiver.snapshot()
	l.shipEpisodes("run-2", "run-3", "run-4")
	ours := l.receiver.snapshot()
	restore()
	l.finishEpisodes("run-5")
	l.wantStoreRefused("STORE1 has 100 bytes and had 400", "receiver store replaces --rewound")
	ours()
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	restore()
	l.receiver.update(func() { l.receiver.disk.ID, l.receiver.disk.Replaces = "STORE2", []string{"STORE1"} })
	l.finishEpisodes("run-6")
	if tally, unreachable := l.runOnce(); unreachable != nil || tally.Shipped != 1 {
		t.Errorf("%v, %v", tally, unreachable)
	}
	if got := l.adoptedStore(); got.ID != "STORE2" || got.IndexBytes != 200 {
		t.Errorf("adopted %+v", got)
	}
	report, found := l.verifyShipped(shipped.VerifyOptions{Quick: true, Heal: true})
	if report.Healing != 4 { // run-2 to run-5
		t.Errorf("%s", found)
	}
	l.wantOnce(shipper.Tally{Scanned: 4, Shipped: 4})
}

// TestAnswersMayOvertakeOneAnother: a receipt that was written before others, and arrives after
// them, states a shorter index. That does not make it a restored image.
func TestAnswersMayOvertakeOneAnother(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.receiver.after = func(_ context.Context, u wire.Upload) error {
			if u.Key.Name == "slow" {
				time.Sleep(time.Minute)
			}
			return nil
		}
		l.finishEpisodes("first", "slow")
		s, stop := l.startDaemon()
		time.Sleep(5 * time.Second)
		l.finishEpisodes(numberedNames("run", 20)...)
		time.Sleep(5 * time.Minute)
		if got := s.Tally(); got.Shipped != 22 || got.Transient != 0 {
			l.Errorf("got %v, want Shipped 22 and Transient 0\n%s", got, l.logs)
		}
		if loud := l.logs.warnings(); len(loud) > 0 {
			l.Errorf("the log says %q", loud)
		}
		fixture.Must(l, stop())
	})
}

func TestStoreThatKnowsNothingIsNotAdopted(t *testing.T) {
	l := newLab(t)
	l.receiver.disk = wire.Store{} // an older receiver
	l.shipEpisodes("run-1", "run-2")
	l.receiver.update(func() { l.receiver.disk = wire.Store{ID: "STORE1"} })
	back := l.receiver.swapStore(wire.Store{ID: "STORE2"})
	l.finishEpisodes("run-3")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := uplink.Ping(ctx, l.cfg.DirsConfig(), l.receiver, outbox.Store{}); !uplink.IsOtherStore(err) {
		t.Errorf("ping: %v", err)
	}
	l.wantStoreRefused("STORE2 knows none of the episodes", "receiver store replaces unnamed")
	l.wantStoreRefused("STORE2 knows none") // the refused upload does not make it a known store
	// A name alone does not suffice: run-1 is another episode there.
	l.receiver.update(func() { l.receiver.stored["run-1"] = l.receiver.stored["run-3"] })
	l.wantStoreRefused("STORE2 knows none")
	if got := l.adoptedStore(); got.ID != "" {
		t.Errorf("adopted %+v", got)
	}
	back()
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	if got := l.adoptedStore(); got.ID != "STORE1" {
		t.Errorf("adopted %+v", got)
	}
}

// TestEpisodesWithoutReceiptsAreKnownByName: from the original program, or on a file system
// without attributes.
func TestEpisodesWithoutReceiptsAreKnownByName(t *testing.T) {
	l := newLab(t)
	l.receiver.disk = wire.Store{}
	l.shipEpisodes("run-1", "run-2")
	for _, name := range []string{"run-1", "run-2"} {
		fixture.Must(l, unix.Removexattr(l.path("shipped", name), "user.cis490.receipt"))
	}
	l.receiver.update(func() { l.receiver.disk = wire.Store{ID: "STORE1"} })
	back := l.receiver.swapStore(wire.Store{ID: "STORE2"})
	l.finishEpisodes("run-3")
	l.wantStoreRefused("STORE2 knows none of the episodes")
	back()
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
}

func TestStoreForHostsWithoutOneIsAdopted(t *testing.T) {
	l := newLab(t)
	l.receiver.disk = wire.Store{}
	l.shipEpisodes("run-1")
	l.receiver.swapStore(wire.Store{ID: "STORE2", Replaces: []string{wire.Unnamed}})
	l.finishEpisodes("run-2")
	if tally, unreachable := l.runOnce(); unreachable != nil || tally.Shipped != 1 {
		t.Errorf("%v, %v", tally, unreachable)
	}
}

func TestStoreIsAskedAboutAllPages(t *testing.T) {
	l := newLab(t)
	l.receiver.disk = wire.Store{}
	l.shipEpisodes(numberedNames("run", wire.MaxQueries+50)...)
	l.receiver.update(func() {
		l.receiver.disk = wire.Store{ID: "STORE1"}
		for n := range l.receiver.stored { // but one
			if len(l.receiver.stored) > 1 {
				delete(l.receiver.stored, n)
			}
		}
	})
	l.finishEpisodes("more")
	if tally, unreachable := l.runOnce(); unreachable != nil || tally.Shipped != 1 {
		t.Errorf("%v, %v", tally, unreachable)
	}
	if l.receiver.archives.queries > wire.MaxQueries+50 {
		t.Errorf("asked about %d", l.receiver.archives.queries)
	}
}

func TestStoreThatReplacesTheAdoptedOneIsAdopted(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("run-1")
	l.receiver.swapStore(wire.Store{ID: "STORE2", Replaces: []string{"STORE0", "STORE1"}})
	l.finishEpisodes("run-2")
	if tally, unreachable := l.runOnce(); unreachable != nil || tally.Shipped != 1 {
		t.Errorf("%v, %v", tally, unreachable)
	}
	if got := l.adoptedStore(); got.ID != "STORE2" || got.IndexBytes != 100 {
		t.Errorf("adopted %+v", got)
	}
	// From now on the former is a foreign store.
	l.receiver.swapStore(wire.Store{ID: "STORE1", IndexBytes: 1000})
	l.finishEpisodes("run-3")
	l.wantStoreRefused("STORE1", "STORE2")
}

// TestReceiptOfAStoreThatWasReplacedMeanwhileRetiresNothing: the new store may lack that
// archive.
func TestReceiptOfAStoreThatWasReplacedMeanwhileRetiresNothing(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("run-0")
	stored, adopted := make(chan struct{}), make(chan struct{})
	l.logs.on = onMessage("adopted the receiver's store", 1, func() { close(adopted) })
	l.receiver.update(func() {
		l.receiver.before = func(_ context.Context, u wire.Upload) error {
			if u.Key.Name == "run-2" {
				<-stored
				l.receiver.update(func() { l.receiver.disk = wire.Store{ID: "STORE2", Replaces: []string{"STORE1"}} })
			}
			return nil
		}
		l.receiver.after = func(_ context.Context, u wire.Upload) error {
			if u.Key.Name == "run-1" {
				close(stored)
				<-adopted
			}
			return nil
		}
	})
	l.finishEpisodes("run-1", "run-2")
	if tally, _ := l.runOnce(); tally.Shipped != 1 || tally.Transient != 1 {
		t.Errorf("got %v, want Shipped 1 and Transient 1\n%s", tally, l.logs)
	}
	l.wantFiles("episodes", "run-1")
	l.receiver.update(func() { l.receiver.before, l.receiver.after = nil, nil })
	if tally, unreachable := l.runOnce(); unreachable != nil || tally.AlreadyPresent != 1 {
		t.Errorf("got %v, %v", tally, unreachable)
	}
}

func TestReceiverWithoutAStoreIsTakenWithOneWarning(t *testing.T) {
	for _, adopted := range []bool{false, true} {
		l := newLab(t)
		if adopted {
			l.shipEpisodes("run-0")
		}
		l.receiver.disk = wire.Store{}
		l.shipEpisodes("run-1", "run-2", "run-3")
		if n := len(l.logs.linesContaining("WARN receiver does not name its store")); n != 1 {
			t.Errorf("adopted %v: %d warnings", adopted, n)
		}
		if (l.adoptedStore().ID != "") != adopted {
			t.Errorf("adopted %+v", l.adoptedStore())
		}
		if report, found := l.verifyShipped(shipped.VerifyOptions{}); report.Verified < 3 {
			t.Errorf("verify: %s", found)
		}
	}
}

// TestNothingIsDeletedOrResentToAnotherStore by the commands.
func TestNothingIsDeletedOrResentToAnotherStore(t *testing.T) {
	for what, change := range map[string]func(l *lab){
		"another":  func(l *lab) { l.receiver.disk.ID = "STORE2" },
		"restored": func(l *lab) { l.receiver.rows = l.receiver.rows[:1] },
	} {
		l := newExpiredLab(t, "run-1", "run-2")
		l.receiver.update(func() { change(l) })
		_, err := shipped.Prune(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.PruneOptions{Retention: l.cfg.Retention, Limit: 10, MinUnchanged: 1, OnResult: func(p shipped.PruneResult) error {
			t.Errorf("%s: prune came to %+v", what, p)
			return nil
		}})
		wantOtherStore(t, what+": prune", err)
		l.receiver.update(func() { delete(l.receiver.stored, "run-1") })
		for _, o := range []shipped.VerifyOptions{{Heal: true}, {Quick: true}, {}} {
			o.OnResult = func(a shipped.VerifyResult) error {
				t.Errorf("%s: verify came to %+v", what, a)
				return nil
			}
			_, err = shipped.Verify(t.Context(), l.cfg.DirsConfig(), l.receiver, o)
			wantOtherStore(t, what+": verify", err)
		}
		l.wantFiles("shipped", "run-1", "run-2")
		l.wantFiles("episodes")
	}
}

func wantOtherStore(t *testing.T, what string, err error) {
	t.Helper()
	_, away := errors.AsType[*uplink.UnreachableError](err)
	if _, other := errors.AsType[*uplink.OtherStoreError](err); !other || !away {
		t.Errorf("%s: %v", what, err)
	}
}

// TestHealRequiresAStoreWithEpisodes where none is adopted.
func TestHealRequiresAStoreWithEpisodes(t *testing.T) {
	l := newLab(t)
	l.receiver.disk = wire.Store{}
	l.shipEpisodes("run-1", "run-2")
	ours := l.receiver.snapshot()
	l.receiver.swapStore(wire.Store{ID: "STORE2"})
	_, err := shipped.Verify(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.VerifyOptions{Heal: true, OnResult: func(shipped.VerifyResult) error { return nil }})
	wantOtherStore(t, "heal", err)
	l.wantFiles("episodes")
	_, err = shipped.Verify(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.VerifyOptions{Quick: true, OnResult: func(shipped.VerifyResult) error { return nil }})
	wantOtherStore(t, "verify", err) // the store that has it lacks nothing
	l.cfg.Retention.MaxAge = 1
	_, err = shipped.Prune(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.PruneOptions{Retention: l.cfg.Retention, DryRun: true, Limit: 1, OnResult: func(shipped.PruneResult) error { return nil }})
	wantOtherStore(t, "prune", err)
	ours()
	l.receiver.update(func() { l.receiver.disk.ID = "STORE1"; delete(l.receiver.stored, "run-1") })
	if report, found := l.verifyShipped(shipped.VerifyOptions{Quick: true, Heal: true}); report.Healing != 1 {
		t.Errorf("a store that knows one: %s", found)
	}
}

func TestAdoptedStoreThatCannotBeReadEndsTheStart(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("run-1")
	for _, content := range []string{"", "{}", "null", `{"id":"X","index_bytes":-1}`, `{"id":`, strings.Repeat(" ", 1<<20)} {
		fixture.WriteFile(l, l.path("outbox", ".store.json"), content)
		s, err := shipper.New(l.cfg, l.receiver, "the test", nil)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), filepath.Join("outbox", ".store.json")) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%.20q: %v", content, err)
		}
	}
	fixture.Must(l, os.Remove(l.path("outbox", ".store.json")))
	l.shipEpisodes("run-2")
	if got := l.adoptedStore(); got.ID != "STORE1" {
		t.Errorf("adopted %+v", got)
	}
}
