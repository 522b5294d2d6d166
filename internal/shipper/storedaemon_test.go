package shipper_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/wire"
)

// TestDaemonWaitsForItsStore: another store receives only pings, one line says so, and when the
// adopted store is back everything is delivered without an operator.
func TestDaemonWaitsForItsStore(t *testing.T) {
	for _, c := range []struct {
		what     string
		ignorant bool // the receiver accepts uploads for another store
		most     int  // uploads to it
		swap     func(l *lab) (back func())
	}{
		{"another", false, 16, func(l *lab) func() { return l.receiver.swapStore(wire.Store{ID: "STORE2"}) }},
		{"another, ignorant", true, 4, func(l *lab) func() { return l.receiver.swapStore(wire.Store{ID: "STORE2"}) }},
		{"restored", false, 16, func(l *lab) func() {
			ours := l.receiver.snapshot()
			l.receiver.update(func() { l.receiver.rows = l.receiver.rows[:1] })
			return ours
		}},
		// As long as before, through the uploads of other hosts.
		{"restored and grown", false, 16, func(l *lab) func() {
			ours := l.receiver.snapshot()
			l.receiver.update(func() { l.receiver.rows = append(l.receiver.rows[:1:1], 100, 101, 102, 103) })
			return ours
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.finishEpisodes("run-1", "run-2", "run-3")
				s, stop := l.startDaemon()
				time.Sleep(time.Minute)
				back := c.swap(l)
				l.receiver.update(func() { l.receiver.ignorant = c.ignorant })
				l.finishEpisodes(numberedNames("later", 20)...)
				time.Sleep(5 * time.Hour)
				_, puts, pings := l.receiver.counts()
				if puts > 3+c.most || pings < 10 || s.Tally().Shipped != 3 {
					l.Errorf("%d uploads and %d pings to another store, %v", puts, pings, s.Tally())
				}
				if loud := l.logs.linesContaining(" ERROR "); len(loud) != 1 || !strings.Contains(loud[0], "another store") {
					l.Errorf("the log says %q", loud)
				}
				back()
				time.Sleep(time.Hour)
				if n := s.Tally().Shipped; n != 23 {
					l.Errorf("%d came home\n%s", n, l.logs)
				}
				fixture.Must(l, stop())
				l.checkNothingLost()
			})
		})
	}
}

// TestDaemonOfAnOlderHostWaits: it has adopted no store, so a ping alone would report success.
func TestDaemonOfAnOlderHostWaits(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.receiver.disk = wire.Store{}
		l.finishEpisodes("run-1")
		s, stop := l.startDaemon()
		time.Sleep(time.Minute)
		l.receiver.update(func() { l.receiver.disk = wire.Store{ID: "STORE1"} })
		back := l.receiver.swapStore(wire.Store{ID: "STORE2"})
		l.finishEpisodes(numberedNames("later", 20)...)
		time.Sleep(5 * time.Hour)
		if _, puts, _ := l.receiver.counts(); puts > 1+l.cfg.Senders {
			l.Errorf("%d uploads to a store that knows nothing", puts)
		}
		back()
		time.Sleep(time.Hour)
		if n := s.Tally().Shipped; n != 21 {
			l.Errorf("%d came home\n%s", n, l.logs)
		}
		fixture.Must(l, stop())
	})
}

func TestRetentionAgainstAnotherStoreDeletesNothingAndSaysSo(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
		l.shipEpisodeAt("run-1", 3*time.Hour)
		_, stop := l.startDaemon()
		l.receiver.update(func() { l.receiver.disk.ID = "STORE2" })
		time.Sleep(time.Hour)
		l.wantFiles("shipped", "run-1")
		if loud := l.logs.linesContaining(" ERROR "); len(loud) != 1 || !strings.Contains(loud[0], "another store") {
			l.Errorf("the log says %q", loud)
		}
		l.receiver.update(func() { l.receiver.disk.ID = "STORE1" })
		time.Sleep(time.Hour)
		l.wantFiles("shipped")
		fixture.Must(l, stop())
	})
}

// TestLengthOfTheIndexIsWrittenDownNowAndThen: not with each receipt, but at the end.
func TestLengthOfTheIndexIsWrittenDownNowAndThen(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.cfg.ScanInterval = config.Duration(time.Second)
		_, stop := l.startDaemon()
		written := map[string]bool{}
		for _, name := range numberedNames("run", 45) {
			l.finishEpisodes(name)
			time.Sleep(time.Second)
			if b, err := os.ReadFile(l.path("outbox", ".store.json")); err == nil {
				written[string(b)] = true
			}
		}
		fixture.Must(l, stop())
		if len(written) < 3 || len(written) > 6 {
			l.Errorf("written down %d times in 45 s", len(written))
		}
		rows, _, _ := l.receiver.counts()
		if got, want := l.adoptedStore(), (outbox.Store{ID: "STORE1", IndexBytes: int64(rows) * 100, IndexTail: strconv.Itoa(rows)}); got != want {
			l.Errorf("at the end it is %+v, want %+v", got, want)
		}
	})
}

// TestAdoptionOutlivesAFullDisk: what is delivered is retired, which frees space, and then the
// adopted store is recorded.
func TestAdoptionOutlivesAFullDisk(t *testing.T) {
	inBubble(t, func(l *lab) {
		fixture.RequireRoot(l)
		if err := unix.Mount("none", l.dir, "tmpfs", 0, "size=2m"); err != nil {
			l.Skipf("cannot mount: %v", err)
		}
		l.TB.Cleanup(func() { fixture.Must(l, unix.Unmount(l.dir, unix.MNT_DETACH)) })
		fixture.Must(l, os.Mkdir(l.episodes, 0o755))
		l.finishEpisodes("run-1")
		l.packOnly("run-1")
		if err := os.WriteFile(l.path("ballast"), make([]byte, 4<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
			l.Fatalf("the disk is not full: %v", err)
		}
		s, stop := l.startDaemon()
		time.Sleep(time.Minute)
		if got := s.Tally().Shipped; got != 1 {
			l.Errorf("%d delivered\n%s", got, l.logs)
		}
		if n := len(l.logs.linesContaining("WARN store adopted but not saved")); n != 1 {
			l.Errorf("%d lines say that the store is not noted\n%s", n, l.logs)
		}
		fixture.Must(l, os.Remove(l.path("ballast")))
		l.finishEpisodes("run-2")
		time.Sleep(time.Minute)
		b, err := os.ReadFile(l.path("outbox", ".store.json"))
		if err != nil || !strings.Contains(string(b), `"STORE1"`) {
			l.Errorf("%s, %v", b, err)
		}
		fixture.Must(l, stop())
		l.checkNothingLost()
	})
}
