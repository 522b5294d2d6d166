package shipper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
)

// startWatching runs a daemon that only inotify wakes.
func (l *lab) startWatching() (s *shipper.Shipper, stop func() error) {
	l.Helper()
	fixture.NeedInotify(l)
	l.cfg.ScanInterval = config.Duration(24 * time.Hour)
	s = l.openShipper()
	return s, l.start(s)
}

// wantShipped waits until n episodes were delivered, as long as there is progress.
func (l *lab) wantShipped(s *shipper.Shipper, n int) {
	l.Helper()
	const patience = 30 * time.Second
	before, deadline := 0, time.Now().Add(patience)
	for s.Tally().Shipped < n {
		if shipped := s.Tally().Shipped; shipped > before {
			before, deadline = shipped, time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			l.Fatalf("%d of %d were found; left: %q\n%s", s.Tally().Shipped, n, l.listFiles("episodes"), l.logs)
		}
		<-time.After(time.Millisecond)
	}
}

// The marker may be made before the directory is watched, or after it. Neither may be missed.
func TestTheMarkerWakesTheShipper(t *testing.T) {
	l := newLab(t)
	fixture.WriteFile(l, l.path("episodes", "before", "meta.json"), "{}") // unfinished at the start
	s, stop := l.startWatching()
	l.finishEpisodes("first")
	l.wantShipped(s, 1)
	l.finishEpisodes("before")
	l.wantShipped(s, 2)
	const races = 1500
	for i := range races {
		dir := l.path("episodes", fmt.Sprintf("race-%04d", i))
		marker := filepath.Join(dir, episode.Marker)
		fixture.Must(l, os.Mkdir(dir, 0o755))
		// The pause varies, so that some end while the watch is added.
		for made := time.Now(); time.Since(made) < time.Duration(i%100)*time.Microsecond; {
		}
		fixture.Must(l, os.WriteFile(marker, nil, 0o644))
	}
	l.wantShipped(s, 2+races)
	fixture.Must(l, stop())
	l.wantFiles("episodes")
}

func TestRenamingWakesTheShipper(t *testing.T) {
	l := newLab(t)
	s, stop := l.startWatching()
	for i, n := range numberedNames("made-elsewhere", 20) { // whole, from beside
		fixture.WriteFile(l, l.path("made", string(n), episode.Marker), "")
		fixture.Must(l, os.Rename(l.path("made", string(n)), l.path("episodes", string(n))))
		l.wantShipped(s, i+1)
	}
	for i, n := range numberedNames("marker-renamed", 20) {
		fixture.WriteFile(l, l.path("episodes", string(n), "done.marker.tmp"), "")
		fixture.Must(l, os.Rename(l.path("episodes", string(n), "done.marker.tmp"), l.path("episodes", string(n), episode.Marker)))
		l.wantShipped(s, 20+i+1)
	}
	for i, n := range numberedNames("renamed-first", 20) { // watched under another name
		fixture.Must(l, os.Mkdir(l.path("episodes", "tmp-"+string(n)), 0o755))
		fixture.Must(l, os.Rename(l.path("episodes", "tmp-"+string(n)), l.path("episodes", string(n))))
		fixture.Must(l, os.WriteFile(l.path("episodes", string(n), episode.Marker), nil, 0o644))
		l.wantShipped(s, 40+i+1)
	}
	fixture.Must(l, stop())
}

// A folder that is removed and made again needs a new watch.
func TestANameThatComesAgainWakesTheShipper(t *testing.T) {
	l := newLab(t)
	s, stop := l.startWatching()
	l.finishEpisodes("witness")
	l.wantShipped(s, 1)
	for range 50 {
		fixture.Must(l, os.Mkdir(l.path("episodes", "run-1"), 0o755))
		fixture.Must(l, os.Remove(l.path("episodes", "run-1")))
	}
	l.finishEpisodes("run-1")
	l.wantShipped(s, 2)
	fixture.Must(l, stop())
}

// If the kernel lost events, everything is checked again.
func TestLostEventsAreMadeUpFor(t *testing.T) {
	fixture.NeedInotify(t)
	l := newLab(t)
	l.finishEpisodes(numberedNames("run", 50)...)
	s := l.openShipper()
	defer s.Close()
	if hand, err := s.RunWatcher(t.Context(), true); err != nil || hand != 50 {
		t.Errorf("%d of 50 were found, %v", hand, err)
	}
}

// I17: the watcher checks everything at the start, which may be a backlog of any size. The scan
// reads it in pages.
func TestTheWatcherDoesNotFillTheMemory(t *testing.T) {
	fixture.NeedInotify(t)
	l := newLab(t)
	for _, n := range numberedNames("run", 2*backlog.PageSize) {
		fixture.Must(l, os.Mkdir(l.path("episodes", string(n)), 0o755))
		fixture.Must(l, os.WriteFile(l.path("episodes", string(n), episode.Marker), nil, 0o644))
	}
	s := l.openShipper()
	defer s.Close()
	hand, err := s.RunWatcher(t.Context(), false)
	if err != nil || hand > backlog.PageSize+100 {
		t.Errorf("%d names are in memory, %v, want a page (%d) at the most", hand, err, backlog.PageSize)
	}
}

func TestWithoutWatchesTheScanFinds(t *testing.T) {
	inBubble(t, func(l *lab) {
		s, stop := l.startDaemon() // which cannot watch
		l.finishEpisodes("run-1")
		time.Sleep(31 * time.Second)
		if s.Tally().Shipped != 1 || len(l.logs.linesContaining("inotify unavailable")) != 1 {
			l.Errorf("got %v\n%s", s.Tally(), l.logs)
		}
		fixture.Must(l, stop())
	})
}
