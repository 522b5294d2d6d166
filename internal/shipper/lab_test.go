package shipper_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
)

const host = episode.Name("lab-01")

// A lab is a lab host: its folders, a receiver, and what was logged.
type lab struct {
	testing.TB
	dir      string
	episodes string // the folder's present path
	cfg      shipper.Config
	receiver *receiver
	logs     *logRecorder
	contents map[episode.Name]string // the data of each finished episode
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return newLabAt(t, fixture.MemoryDir(t))
}

func newLabAt(t testing.TB, dir string) *lab {
	t.Helper()
	l := newLabOn(t, dir)
	fixture.Must(l, os.MkdirAll(l.episodes, 0o755))
	return l
}

// newLabOn returns a lab in directories that exist.
func newLabOn(t testing.TB, dir string) *lab {
	t.Helper()
	l := &lab{TB: t, dir: dir, logs: &logRecorder{}, contents: map[episode.Name]string{}}
	l.cfg = shipper.DefaultConfig()
	l.cfg.HostID = host
	l.cfg.EpisodesDir = config.Path(filepath.Join(dir, "episodes"))
	l.cfg.OutboxDir = config.Path(filepath.Join(dir, "outbox"))
	l.cfg.ShippedDir = config.Path(filepath.Join(dir, "shipped"))
	l.cfg.MinFree, l.cfg.Packers, l.cfg.Senders = 0, 2, 4
	l.cfg.Settle = 0 // episodes are finished when they are made; see settle_test.go
	l.episodes = filepath.Join(dir, "episodes")
	l.receiver = newReceiver(t)
	return l
}

func (l *lab) path(parts ...string) string {
	if parts[0] == "episodes" {
		return filepath.Join(append([]string{l.episodes}, parts[1:]...)...)
	}
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

// finishEpisodes makes a finished episode for each name.
func (l *lab) finishEpisodes(names ...episode.Name) {
	l.Helper()
	for _, n := range names {
		says := "data of " + string(n)
		l.contents[n] = says
		fixture.WriteFile(l, l.path("episodes", string(n), "meta.json"), "{}")
		fixture.WriteFile(l, l.path("episodes", string(n), "telemetry.jsonl"), says)
		fixture.WriteFile(l, l.path("episodes", string(n), episode.Marker), "")
	}
}

// openShipper opens the shipper, until the test ends.
func (l *lab) openShipper() *shipper.Shipper {
	l.Helper()
	s, err := shipper.New(l.cfg, l.receiver, "the test", slog.New(l.logs))
	fixture.Must(l, err)
	return s
}

// runOnce makes one pass.
func (l *lab) runOnce() (shipper.Tally, error) {
	l.Helper()
	s := l.openShipper()
	defer s.Close()
	tally, err := s.RunOnce(l.Context())
	if fatal := unlessUnreachable(err); fatal != nil {
		l.Fatalf("pass: %v", fatal)
	}
	if tally.ResultCount() != tally.Scanned {
		l.Errorf("the counters do not add up: %v", tally)
	}
	return tally, err
}

// unlessUnreachable returns the error of a pass, or nil if it only reports that the receiver
// was not reached.
func unlessUnreachable(err error) error {
	if _, unreachable := errors.AsType[*uplink.UnreachableError](err); unreachable {
		return nil
	}
	return err
}

// wantOnce makes a pass, and checks its tally.
func (l *lab) wantOnce(want shipper.Tally) {
	l.Helper()
	if got, unreachable := l.runOnce(); got != want || unreachable != nil {
		l.Errorf("the pass came to %v (unreachable: %v), want %v\n%s", got, unreachable, want, l.logs)
	}
	l.checkNothingLost()
}

// startDaemon runs the shipper until stop, which returns its error. It only scans, because a
// read of inotify would stop virtual time.
func (l *lab) startDaemon() (s *shipper.Shipper, stop func() error) {
	l.Helper()
	s = l.openShipper()
	s.SetMinUnchanged(1) // they are as young as the test
	s.ScanOnly()
	return s, l.start(s)
}

func (l *lab) start(s *shipper.Shipper) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-ended, s.Close())
	}
}

// checkNothingLost checks that nothing is lost: each episode that was ever finished is complete
// in exactly one of the folders, and a retired one is at the receiver, with the same bytes.
func (l *lab) checkNothingLost() {
	l.Helper()
	for n, says := range l.contents {
		var places []string
		for _, place := range []string{"episodes", "shipped"} {
			b, err := os.ReadFile(l.path(place, string(n), "telemetry.jsonl"))
			if err == nil && string(b) == says {
				places = append(places, place)
			}
		}
		if len(places) != 1 {
			l.Errorf("%s is whole in %q, want it in one place", n, places)
		}
		if slices.Contains(places, "shipped") && !l.receiver.hasArchive(n) {
			l.Errorf("%s is retired, and the receiver does not have it", n)
		}
	}
}

// wantFiles compares the names in a folder.
func (l *lab) wantFiles(folder string, want ...string) {
	l.Helper()
	if got := l.listFiles(folder); !slices.Equal(got, want) {
		l.Errorf("%s holds %q, want %q\n%s", folder, got, want, l.logs)
	}
}

func (l *lab) listFiles(folder string) []string {
	l.Helper()
	entries, err := os.ReadDir(l.path(folder))
	fixture.Must(l, err)
	var names []string
	for _, e := range entries {
		ours := []string{".shipper.lock", ".lock", ".trash.lock", ".trash", ".store.json", ".status.json"} // are no episodes
		if !slices.Contains(ours, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// held returns the holds, by name.
func (l *lab) held() map[episode.Name]backlog.HeldEpisode {
	l.Helper()
	cfg := l.cfg
	cfg.EpisodesDir = config.Path(l.episodes)
	st, err := backlog.InspectStatus(cfg.Backlog())
	fixture.Must(l, err)
	all := map[episode.Name]backlog.HeldEpisode{}
	for _, h := range st.Held {
		all[h.Episode] = h
	}
	return all
}

// numberedNames returns n names with a prefix.
func numberedNames(prefix string, n int) []episode.Name {
	all := make([]episode.Name, n)
	for i := range all {
		all[i] = episode.Name(fmt.Sprintf("%s-%05d", prefix, i))
	}
	return all
}

// logRecorder keeps what was logged.
type logRecorder struct {
	mu    sync.Mutex
	lines []string         // "LEVEL message key=value"
	on    func(msg string) // called with each message
}

func (l *logRecorder) Enabled(context.Context, slog.Level) bool { return true }
func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler       { panic("not used") }
func (l *logRecorder) WithGroup(string) slog.Handler            { panic("not used") }

func (l *logRecorder) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	l.lines = append(l.lines, time.Now().Format(time.TimeOnly)+" "+line)
	on := l.on
	l.mu.Unlock()
	if on != nil {
		on(r.Message)
	}
	return nil
}

// warnings returns the lines of Warn and Error, except the one that [lab.startDaemon] causes.
func (l *logRecorder) warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if (strings.Contains(line, " WARN ") || strings.Contains(line, " ERROR ")) && !strings.Contains(line, "inotify unavailable") {
			found = append(found, line)
		}
	}
	return found
}

// linesContaining returns the lines that contain s.
func (l *logRecorder) linesContaining(s string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if strings.Contains(line, s) {
			found = append(found, line)
		}
	}
	return found
}

func (l *logRecorder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.lines[max(0, len(l.lines)-30):]
	return cmp.Or(strings.Join(last, "\n"), "(nothing was logged)")
}
