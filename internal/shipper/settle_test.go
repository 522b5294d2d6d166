package shipper_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
)

// TestAnUnfitCopyIsHeldOnlyWhenItHasSettled: some copiers create meta.json empty at first.
func TestAnUnfitCopyIsHeldOnlyWhenItHasSettled(t *testing.T) {
	withSettling(t, func(l *lab) {
		fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "")
		fixture.WriteFile(l, l.path("episodes", "run-1", "meta.json"), "")
		l.alignClock()
		_, stop := l.startDaemon()
		time.Sleep(9900 * time.Millisecond)
		if held := l.held(); len(held) != 0 {
			l.Errorf("held while it may be copied: %v", held)
		}
		time.Sleep(200 * time.Millisecond)
		if held := l.held(); len(held) != 1 {
			l.Errorf("%d are held in the end", len(held))
		}
		fixture.Must(l, stop())
	})
}

// withSettling calls f with a lab that has a settling time, in virtual time.
func withSettling(t *testing.T, f func(l *lab)) {
	t.Helper()
	inBubble(t, func(l *lab) {
		l.cfg.Settle, l.cfg.ScanInterval = config.Duration(time.Second), config.Duration(time.Hour)
		f(l)
	})
}

// alignClock lets virtual time pass until the last ctime of all episodes. From then on it is
// ahead of the kernel's clock by as much as the test sleeps.
func (l *lab) alignClock() {
	l.Helper()
	var last time.Time
	fixture.Must(l, filepath.WalkDir(l.episodes, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if changed := time.Unix(st.Ctim.Unix()); changed.After(last) {
			last = changed
		}
		return err
	}))
	time.Sleep(time.Until(last))
}

// wantPackedAfter checks that nothing is packed until d from now, and that want episodes are a
// moment later.
func (l *lab) wantPackedAfter(d time.Duration, want int) {
	l.Helper()
	const moment = 50 * time.Millisecond
	before := len(l.logs.linesContaining("INFO packed"))
	time.Sleep(d - moment)
	synctest.Wait()
	if got := len(l.logs.linesContaining("INFO packed")); got != before {
		l.Errorf("%d are packed before %v are over", got-before, d)
	}
	time.Sleep(2 * moment)
	synctest.Wait()
	if got := len(l.logs.linesContaining("INFO packed")); got != before+want {
		l.Errorf("%d are packed %v later, want %d\n%s", got-before, d+moment, want, l.logs)
	}
}

// waitClockTick waits until the kernel's clock advances, so that later changes have a later ctime.
func (l *lab) waitClockTick() {
	l.Helper()
	path := l.path("tick")
	changed := func() unix.Timespec {
		var st unix.Stat_t
		fixture.WriteFile(l, path, "")
		fixture.Must(l, unix.Stat(path, &st))
		return st.Ctim
	}
	for first := changed(); changed() == first; {
	}
}

func TestAnEpisodeIsPackedWhenItHasSettled(t *testing.T) {
	const second = time.Second
	for what, c := range map[string]struct {
		make func(l *lab)
		want time.Duration
	}{
		"the marker last": {func(l *lab) { l.finishEpisodes("run-1") }, second},
		"the folder renamed": {func(l *lab) {
			l.finishEpisodes("run-1")
			l.waitClockTick()
			fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("x")))
			fixture.Must(l, os.Rename(l.path("x"), l.path("episodes", "run-1")))
		}, second},
		"the folder touched": {func(l *lab) {
			l.finishEpisodes("run-1")
			l.waitClockTick()
			fixture.Must(l, os.Chmod(l.path("episodes", "run-1"), 0o775))
		}, second},
		"the marker first": {func(l *lab) {
			fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "")
			l.waitClockTick()
			l.finishEpisodes("run-1")
		}, second}, // it was written again
		"a file below after the marker": {func(l *lab) {
			fixture.WriteFile(l, l.path("episodes", "run-1", "net", "flows.csv"), "a")
			l.finishEpisodes("run-1")
			l.waitClockTick()
			fixture.WriteFile(l, l.path("episodes", "run-1", "net", "flows.csv"), "b")
		}, 10 * second},
		"a link after the marker": {func(l *lab) {
			l.finishEpisodes("run-1")
			l.waitClockTick()
			fixture.Must(l, os.Symlink("telemetry.jsonl", l.path("episodes", "run-1", "latest")))
		}, 10 * second},
		"nothing but the marker": {func(l *lab) { fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "") }, 10 * second},
	} {
		t.Run(what, func(t *testing.T) {
			withSettling(t, func(l *lab) {
				c.make(l)
				l.alignClock()
				s, stop := l.startDaemon()
				l.wantPackedAfter(c.want, 1)
				wantLooks := 0
				if c.want > second { // the marker and the folder do not say so
					wantLooks = 1
				}
				if looks := len(l.logs.linesContaining("episode has not settled")); looks != wantLooks {
					l.Errorf("it was surveyed %d times in vain, want %d\n%s", looks, wantLooks, l.logs)
				}
				if got := s.Tally(); got != shippedTally(1) || len(l.logs.warnings()) > 0 {
					l.Errorf("it came to %v, and %q", got, l.logs.warnings())
				}
				fixture.Must(l, stop())
			})
		})
	}
}

// TestARestartDoesNotRestartTheSettling: the ctimes on disk decide.
func TestARestartDoesNotRestartTheSettling(t *testing.T) {
	withSettling(t, func(l *lab) {
		fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "")
		l.alignClock()
		for range 9 {
			_, stop := l.startDaemon()
			time.Sleep(time.Second)
			fixture.Must(l, stop())
		}
		_, stop := l.startDaemon()
		l.wantPackedAfter(time.Second, 1)
		fixture.Must(l, stop())
	})
}

// TestAClockThatWentBackDelaysByTheSameAgain: the ctimes are years ahead of the clock.
func TestAClockThatWentBackDelaysByTheSameAgain(t *testing.T) {
	withSettling(t, func(l *lab) {
		l.finishEpisodes("run-1")
		fixture.WriteFile(l, l.path("episodes", "run-1", "capture.pcap"), string(fixture.Noise(65<<20, 1))) // sized first, and packed when it is due
		l.waitClockTick()
		fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "")
		s, stop := l.startDaemon()
		time.Sleep(900 * time.Millisecond)
		fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "again")
		l.wantPackedAfter(1100*time.Millisecond, 1) // it was seen at 1 s to be another
		fixture.Must(l, stop())
		if got := s.Tally(); got != shippedTally(1) {
			l.Errorf("it came to %v", got)
		}
	})
}

// TestACopyIsNotPackedBeforeItsEnd: a program copies in sorted order, the marker first, and
// never pauses for as long as the settling time.
func TestACopyIsNotPackedBeforeItsEnd(t *testing.T) {
	withSettling(t, func(l *lab) {
		_, stop := l.startDaemon()
		fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "")
		for i := range 50 {
			time.Sleep(950 * time.Millisecond)
			fixture.WriteFile(l, l.path("episodes", "run-1", fmt.Sprintf("%02d", i/10), fmt.Sprintf("file-%02d", i)), "data")
			if i == 0 { // the shipper learns it at its next start
				fixture.Must(l, stop())
				_, stop = l.startDaemon()
			}
		}
		if packed := l.logs.linesContaining("INFO packed"); len(packed) != 0 {
			l.Errorf("packed while it was copied: %q", packed)
		}
		// The check before the last was at 50.95 s, 50 s after the start, and the next is a
		// quarter of that later.
		l.wantPackedAfter(15950*time.Millisecond, 1)
		fixture.Must(l, stop())
	})
}

// TestAPassWaitsForWhatSettles: as long as necessary, and at most ten times as long.
func TestAPassWaitsForWhatSettles(t *testing.T) {
	took := func(l *lab, want shipper.Tally) time.Duration {
		l.Helper()
		start := time.Now()
		l.wantOnce(want)
		return time.Since(start)
	}
	withSettling(t, func(l *lab) {
		l.finishEpisodes("run-1", "run-2")
		l.alignClock()
		if d := took(l, shipper.Tally{Scanned: 2, Shipped: 2}); d < time.Second || d > 1100*time.Millisecond {
			l.Errorf("two that were finished just now take %v", d)
		}
		if d := took(l, shipper.Tally{}); d != 0 {
			l.Errorf("nothing takes %v", d)
		}
		l.finishEpisodes("run-3")
		time.Sleep(10 * time.Second)
		if d := took(l, shippedTally(1)); d != 0 {
			l.Errorf("one that has settled takes %v", d)
		}
	})
	withSettling(t, func(l *lab) { // the clock went back, so that a change restarts the wait
		l.finishEpisodes("run-1", "run-2")
		l.waitClockTick()
		fixture.WriteFile(l, l.path("episodes", "run-2", "telemetry.jsonl"), "after the marker")
		ctx, cancel := context.WithCancel(l.Context())
		ended := make(chan struct{})
		defer func() { cancel(); <-ended }()
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				fixture.WriteFile(l, l.path("episodes", "run-2", "telemetry.jsonl"), fmt.Sprint(time.Now()))
				time.Sleep(300 * time.Millisecond)
			}
		}()
		delete(l.contents, "run-2")
		if d := took(l, shipper.Tally{Scanned: 2, Shipped: 1, Transient: 1}); d < 9*time.Second || d > 10100*time.Millisecond {
			l.Errorf("one that does not settle takes %v", d)
		}
		if loud := l.logs.warnings(); len(loud) != 1 || !strings.Contains(loud[0], "run-2") {
			l.Errorf("the log says %q, want why one was left", loud)
		}
	})
}

// TestAPassLooksAsOftenAsItMay: it waits for so short a time that the interval does not grow.
func TestAPassLooksAsOftenAsItMay(t *testing.T) {
	withSettling(t, func(l *lab) {
		l.finishEpisodes("run-1")
		l.waitClockTick()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := range 28 { // the last one at 8.1 s
				fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), strings.Repeat("x", i))
				time.Sleep(300 * time.Millisecond)
			}
		}()
		l.wantOnce(shippedTally(1))
		<-ended
	})
}

// TestAPassDoesNotWaitForWhatCannotSettleInTime: after a second it is known that a file came
// after the marker, and a pass does not wait for ten more.
func TestAPassDoesNotWaitForWhatCannotSettleInTime(t *testing.T) {
	withSettling(t, func(l *lab) {
		l.finishEpisodes("run-1")
		start := time.Now()
		time.AfterFunc(500*time.Millisecond, func() {
			l.waitClockTick()
			fixture.WriteFile(l, l.path("episodes", "run-1", "late.csv"), "")
		})
		l.wantOnce(shipper.Tally{Scanned: 1, Transient: 1})
		if d := time.Since(start); d != time.Second {
			l.Errorf("the pass took %v", d)
		}
	})
}

// TestWhatSettlesDoesNotKeepAShipperFromEnding: neither the daemon nor a pass.
func TestWhatSettlesDoesNotKeepAShipperFromEnding(t *testing.T) {
	withSettling(t, func(l *lab) {
		l.cfg.Settle = config.Duration(time.Hour)
		l.finishEpisodes("run-1")
		l.alignClock()
		_, stop := l.startDaemon()
		time.Sleep(time.Minute)
		start := time.Now()
		fixture.Must(l, stop())
		s := l.openShipper()
		ctx, cancel := context.WithCancel(l.Context())
		time.AfterFunc(time.Minute, cancel)
		tally, err := s.RunOnce(ctx)
		fixture.Must(l, s.Close())
		if d := time.Since(start); d != time.Minute || err == nil {
			l.Errorf("the pass ended %v later with %v, %v", d, tally, err)
		}
		l.checkNothingLost()
	})
}

// TestWhatNeverSettlesIsNamed once, if it has kept changing long after its marker.
func TestWhatNeverSettlesIsNamed(t *testing.T) {
	for _, c := range []struct {
		marked time.Duration
		want   int
	}{{time.Minute, 0}, {2 * time.Hour, 1}} {
		l := newLab(t)
		l.finishEpisodes("run-1")
		s := l.openShipper()
		defer s.Close()
		s.KeepsChanging("run-1", time.Now().Add(-c.marked), 5)
		if loud := l.logs.warnings(); len(loud) != c.want || c.want > 0 && !strings.Contains(loud[0], "run-1") {
			t.Errorf("%v after its marker the log says %q, want %d lines", c.marked, loud, c.want)
		}
	}
}

// keepChanging changes an episode twice a second for a while. The clock went back, so each
// change restarts the wait.
func (l *lab) keepChanging(name episode.Name, d time.Duration) {
	l.Helper()
	f, err := os.OpenFile(l.path("episodes", string(name), "telemetry.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	fixture.Must(l, err)
	defer f.Close()
	for start := time.Now(); time.Since(start) < d; time.Sleep(500 * time.Millisecond) {
		_, err := f.WriteString("x")
		fixture.Must(l, err)
	}
	delete(l.contents, name) // it is another one
}

// TestWhatNeverSettlesIsLookedAtLessAndLess: it may have very many files. With a check each ten
// seconds, a tenth of an hour would have 36 checks, and an hour 360.
func TestWhatNeverSettlesIsLookedAtLessAndLess(t *testing.T) {
	withSettling(t, func(l *lab) {
		l.finishEpisodes("run-1")
		l.waitClockTick()
		_, stop := l.startDaemon()
		for _, c := range []struct {
			during   time.Duration
			min, max int
		}{{time.Minute, 5, 7}, {19 * time.Minute, 10, 20}, {40 * time.Minute, 7, 9}} {
			before := len(l.logs.linesContaining("episode has not settled"))
			l.keepChanging("run-1", c.during)
			if looks := len(l.logs.linesContaining("episode has not settled")) - before; looks < c.min || looks > c.max {
				l.Errorf("in %v it was looked at %d times, want %d to %d", c.during, looks, c.min, c.max)
			}
		}
		fixture.Must(l, stop())
	})
}

// TestWhatSettlesInTheEndIsPackedSoon: the additional wait is a fraction of the time for which
// it did not settle. If the clock went back it takes two checks.
func TestWhatSettlesInTheEndIsPackedSoon(t *testing.T) {
	for _, restless := range []time.Duration{20 * time.Second, 4 * time.Minute, 3 * time.Hour} {
		withSettling(t, func(l *lab) {
			l.cfg.ScanInterval = config.Duration(24 * time.Hour)
			l.finishEpisodes("run-1")
			l.waitClockTick()
			s, stop := l.startDaemon()
			l.keepChanging("run-1", restless)
			time.Sleep(2 * min(11*time.Second+restless*5/16, 5*time.Minute))
			synctest.Wait()
			if got := s.Tally(); got != shippedTally(1) {
				l.Errorf("after %v of changes it came to %v", restless, got)
			}
			fixture.Must(l, stop())
		})
	}
}

// TestWhatNeverSettlesComesAfterTheOthers, whatever its marker's time, and never occupies all
// packers.
func TestWhatNeverSettlesComesAfterTheOthers(t *testing.T) {
	for _, c := range []struct {
		order   shipper.Order
		packers int
		want    string
	}{
		{shipper.Oldest, 1, "fresh"},
		{shipper.Oldest, 2, "fresh old-1"},
		{shipper.Oldest, 4, "fresh old-1 old-2"},
		{shipper.Newest, 1, "fresh"},
		{shipper.Newest, 4, "fresh old-3 old-2"},
		{shipper.Mixed, 4, "old-3 fresh old-1"}, // the newest first
	} {
		l := newLab(t)
		l.cfg.Order = c.order
		l.finishEpisodes("fresh", "old-1", "old-2", "old-3")
		for name, at := range map[string]time.Time{"old-1": time.Unix(0, 0), "old-2": time.Unix(1, 0), "old-3": time.Now().Add(24 * time.Hour)} {
			fixture.Must(l, os.Chtimes(l.path("episodes", name, episode.Marker), at, at))
		}
		s := l.openShipper()
		if got := strings.Trim(fmt.Sprint(s.PackOrder(c.order, c.packers, "fresh", "old-1", "old-2", "old-3")), "[]"); got != c.want {
			t.Errorf("%s, %d packers: %s, want %s", c.order, c.packers, got, c.want)
		}
		fixture.Must(l, s.Close())
	}
}

// TestSettlingTakesBoundedMemory: what exceeds a page of episodes is left to the next scan.
func TestSettlingTakesBoundedMemory(t *testing.T) {
	l := newLab(t)
	s := l.openShipper()
	defer s.Close()
	if kept, left := s.AwaitSettled(backlog.PageSize + 5); kept != backlog.PageSize || left != 5 {
		t.Errorf("%d are in memory and %d left, want %d and 5", kept, left, backlog.PageSize)
	}
}

func TestStatusCountsWhatSettles(t *testing.T) {
	l := newLab(t)
	l.cfg.Settle = config.Duration(time.Hour)
	l.finishEpisodes("run-1", "run-2")
	st, err := backlog.InspectStatus(l.cfg.Backlog())
	if err == nil {
		t.Fatal("the folders are not there yet")
	}
	fixture.Must(l, l.openShipper().Close())
	if st, err = backlog.InspectStatus(l.cfg.Backlog()); err != nil || st.Waiting != 2 || st.Settling != 2 {
		t.Errorf("%d wait and %d settle, %v, want 2 and 2", st.Waiting, st.Settling, err)
	}
	l.cfg.Settle = 0
	if st, err = backlog.InspectStatus(l.cfg.Backlog()); err != nil || st.Waiting != 2 || st.Settling != 0 {
		t.Errorf("without settling %d wait and %d settle, %v", st.Waiting, st.Settling, err)
	}
}
