package shipper_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pathwatch"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// wantEndAfterMove waits for the end of a daemon, and checks that a moved folder is the cause.
func (l *lab) wantEndAfterMove(s *shipper.Shipper, path string) {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	err := errors.Join(s.Run(ctx), s.Close())
	moved, ok := errors.AsType[*pathwatch.MovedError](err)
	if !ok || moved.Path != path {
		l.Errorf("it ended with %v, want that %s was moved\n%s", err, path, l.logs)
	}
}

// TestMovedFolderEndsTheDaemon: what experiments leave in the folder that now has its name
// would never be shipped.
func TestMovedFolderEndsTheDaemon(t *testing.T) {
	for _, folder := range []string{"episodes", "outbox", "shipped"} {
		for what, move := range map[string]func(l *lab, path string){
			"renamed, another made": func(l *lab, path string) {
				fixture.Must(l, os.Rename(path, path+".x"))
				fixture.Must(l, os.Mkdir(path, 0o755))
			},
			"renamed": func(l *lab, path string) { fixture.Must(l, os.Rename(path, path+".x")) },
		} {
			t.Run(folder+" "+what, func(t *testing.T) {
				inBubble(t, func(l *lab) {
					s := l.openShipper()
					s.ScanOnly()
					move(l, l.path(folder))
					l.wantEndAfterMove(s, l.path(folder))
				})
			})
		}
	}
}

// TestMovedFolderWakesTheDaemon, long before the next scan.
func TestMovedFolderWakesTheDaemon(t *testing.T) {
	fixture.NeedInotify(t)
	l := newLab(t)
	l.cfg.ScanInterval *= 1000
	s := l.openShipper()
	watching := make(chan struct{})
	s.Status = func(string) { close(watching); s.Status = nil } // the first scan is over
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	<-watching
	fixture.Must(l, os.Rename(l.path("episodes"), l.path("episodes.x")))
	fixture.Must(l, os.Mkdir(l.path("episodes"), 0o755))
	select {
	case err := <-ended:
		if _, moved := errors.AsType[*pathwatch.MovedError](err); !moved {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("nothing happens\n%s", l.logs)
	}
	fixture.Must(l, s.Close())
}

// TestMovedFolderEndsCommands: verify would examine a folder that was moved.
func TestMovedFolderEndsCommands(t *testing.T) {
	for what, run := range map[string]func(l *lab, up *receiver) error{
		"verify": func(l *lab, up *receiver) error {
			_, err := shipped.Verify(l.Context(), l.cfg.DirsConfig(), up, shipped.VerifyOptions{OnResult: func(shipped.VerifyResult) error { return nil }})
			return err
		},
		"prune": func(l *lab, up *receiver) error {
			l.cfg.Retention.MaxBytes = 1
			done := func(shipped.PruneResult) error { return nil }
			_, err := shipped.Prune(l.Context(), l.cfg.DirsConfig(), up, shipped.PruneOptions{Retention: l.cfg.Retention, Limit: 10, MinUnchanged: 1, OnResult: done})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.finishEpisodes("run-1", "run-2")
			l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 2})
			l.receiver.during = func() {
				l.receiver.during = nil
				fixture.Must(l, os.Rename(l.path("shipped"), l.path("shipped.x")))
				fixture.Must(l, os.Mkdir(l.path("shipped"), 0o755))
			}
			err := run(l, l.receiver)
			if _, moved := errors.AsType[*pathwatch.MovedError](err); !moved {
				t.Errorf("it ended with %v", err)
			}
			l.wantFiles("shipped.x", "run-1", "run-2")
		})
	}
}

// putHook calls do when the receiver has stored an upload, before its answer arrives.
type putHook struct {
	*receiver
	do func()
}

func (r putHook) Put(ctx context.Context, u wire.Upload, archive io.ReaderAt) (wire.Receipt, error) {
	got, err := r.receiver.Put(ctx, u, archive)
	r.do()
	return got, err
}

// TestNothingIsRetiredIntoAMovedFolder: it moves while an episode is in flight.
func TestNothingIsRetiredIntoAMovedFolder(t *testing.T) {
	for _, folder := range []string{"episodes", "outbox", "shipped"} {
		t.Run(folder, func(t *testing.T) {
			l := newLab(t)
			l.finishEpisodes("run-1")
			move := func() {
				fixture.Must(l, os.Rename(l.path(folder), l.path(folder+".x")))
				fixture.Must(l, os.Mkdir(l.dir+"/"+folder, 0o755))
			}
			s, err := shipper.New(l.cfg, putHook{l.receiver, move}, "the test", slog.New(l.logs))
			fixture.Must(l, err)
			_, err = s.RunOnce(t.Context())
			err = unlessUnreachable(err)
			if _, moved := errors.AsType[*pathwatch.MovedError](errors.Join(err, s.Close())); !moved {
				t.Errorf("the pass ended with %v\n%s", err, l.logs)
			}
			if err != nil && !strings.Contains(err.Error(), l.path(folder)) {
				t.Errorf("%v does not name the folder", err)
			}
			if folder == "episodes" {
				fixture.Must(l, os.Remove(l.path(folder)))
				fixture.Must(l, os.Rename(l.dir+"/episodes.x", l.path(folder)))
			}
			for _, gone := range []string{"shipped", "shipped.x"} {
				if _, err := os.Stat(l.dir + "/" + gone + "/run-1"); err == nil {
					t.Errorf("run-1 was moved to %s", gone)
				}
			}
			l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
			if t.Failed() {
				t.Logf("in the next pass\n%s", l.logs)
			}
		})
	}
}
