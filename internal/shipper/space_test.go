package shipper_test

import (
	"context"
	"math"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// Below the minimum free space nothing is packed, but what is packed is still sent: that frees
// space. The next scan tries again.
func TestPackingPausesAtTheFloor(t *testing.T) {
	inBubble(t, func(l *lab) {
		fixture.RequireRoot(l)
		if err := unix.Mount("none", l.dir, "tmpfs", 0, "size=8m"); err != nil {
			l.Skipf("cannot mount: %v", err)
		}
		l.TB.Cleanup(func() { fixture.Must(l, unix.Unmount(l.dir, unix.MNT_DETACH)) })
		fixture.Must(l, os.Mkdir(l.episodes, 0o755))
		l.finishEpisodes(numberedNames("sealed", 3)...)
		for _, n := range numberedNames("sealed", 3) {
			l.packOnly(n)
		}
		l.finishEpisodes(numberedNames("waiting", 30)...)
		l.cfg.MinFree = 4 << 20
		fixture.Must(l, os.WriteFile(l.path("ballast"), make([]byte, 5<<20), 0o644))
		s, stop := l.startDaemon()
		time.Sleep(20 * time.Second) // less than a scan interval
		if shipped := s.Tally().Shipped; shipped != 3 {
			l.Errorf("%d of the 3 that were packed were sent\n%s", shipped, l.logs)
		}
		if said := l.logs.linesContaining("packing waits for space"); len(said) != 1 {
			l.Errorf("one scan says %q", said)
		}
		time.Sleep(10 * time.Minute)
		if packed := len(l.logs.linesContaining(" INFO packed ")) - 3; packed != 0 {
			l.Errorf("%d were packed below the floor", packed)
		}
		if said := l.logs.linesContaining("packing waits for space"); len(said) > 21 {
			l.Errorf("%d lines in 20 scans", len(said))
		}
		if held := l.held(); len(held) != 0 {
			l.Errorf("held for want of space: %+v", held)
		}
		fixture.Must(l, os.Remove(l.path("ballast")))
		time.Sleep(time.Minute)
		if shipped := s.Tally().Shipped; shipped != 33 {
			l.Errorf("%d of 33 were delivered once there was room\n%s", shipped, l.logs)
		}
		fixture.Must(l, stop())
		l.wantFiles("outbox")
		l.checkNothingLost()
	})
}

// limitDisk moves the lab to a disk of 8 MiB, 3 of them free. It returns a function that frees the
// others.
func (l *lab) limitDisk() (free func()) {
	l.Helper()
	fixture.RequireRoot(l)
	if err := unix.Mount("none", l.dir, "tmpfs", 0, "size=8m"); err != nil {
		l.Skipf("cannot mount: %v", err)
	}
	l.TB.Cleanup(func() { fixture.Must(l, unix.Unmount(l.dir, unix.MNT_DETACH)) })
	fixture.Must(l, os.Mkdir(l.episodes, 0o755))
	fixture.Must(l, os.WriteFile(l.path("ballast"), make([]byte, 5<<20), 0o644))
	return func() { fixture.Must(l, os.Remove(l.path("ballast"))) }
}

// I18: one episode may be larger than what is above the minimum free space.
func TestThePackerStopsInMidEpisode(t *testing.T) {
	fixture.RequireRoot(t)
	for what, minFree := range map[string]config.Bytes{"floor": 4 << 20, "disk full": 0} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			if err := unix.Mount("none", l.dir, "tmpfs", 0, "size=64m"); err != nil {
				t.Skipf("cannot mount: %v", err)
			}
			t.Cleanup(func() { fixture.Must(l, unix.Unmount(l.dir, unix.MNT_DETACH)) })
			fixture.Must(l, os.Mkdir(l.episodes, 0o755))
			l.finishEpisodes("large")
			fixture.WriteFile(l, l.path("episodes", "large", "capture.pcap"), string(fixture.Noise(40<<20, 1)))
			l.cfg.MinFree = minFree
			tally, unreachable := l.runOnce()
			if tally.Transient != 1 || unreachable != nil || len(l.logs.linesContaining("no space left")) != 1 {
				t.Errorf("got %v, %v\n%s", tally, unreachable, l.logs)
			}
			l.wantFiles("outbox")
			l.checkNothingLost()
		})
	}
}

// One episode that is larger than the free space must not keep the others from being packed,
// even with a single packer.
func TestAnEpisodeThatDoesNotFitStopsNoOther(t *testing.T) {
	fixture.RequireRoot(t)
	l := newLab(t)
	if err := unix.Mount("none", l.dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { fixture.Must(l, unix.Unmount(l.dir, unix.MNT_DETACH)) })
	fixture.Must(l, os.Mkdir(l.episodes, 0o755))
	l.finishEpisodes("a-large", "small-1", "small-2", "small-3")
	fixture.WriteFile(l, l.path("episodes", "a-large", "capture.pcap"), string(fixture.Noise(40<<20, 1)))
	l.cfg.MinFree, l.cfg.Packers = 4<<20, 1
	tally, _ := l.runOnce()
	if tally.Shipped != 3 || tally.Transient != 1 {
		t.Errorf("got %v, want Shipped 3 and Transient 1\n%s", tally, l.logs)
	}
	l.checkNothingLost()
}

func TestSendingContinuesBelowTheMinimumFreeSpace(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2", "run-3")
	l.packOnly("run-2")
	l.cfg.MinFree = math.MaxInt64
	tally, unreachable := l.runOnce()
	if tally.Shipped != 1 || tally.Transient != 2 || unreachable != nil {
		t.Errorf("got %v, %v", tally, unreachable)
	}
	l.checkNothingLost()
}

// An operator removes an episode while it is packed or sent.
func TestAnEpisodeThatVanishesIsNoError(t *testing.T) {
	t.Run("while it is packed", func(t *testing.T) {
		l := newLab(t)
		l.finishEpisodes("run-1")
		delete(l.contents, "run-1")
		s := l.openShipper()
		err := s.PackWhile("run-1", func() { fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("taken"))) })
		fixture.Must(l, s.Close())
		if verdict, _ := shipper.Classify(err); verdict != "retry" {
			t.Errorf("%v: %s, want that it is tried again", err, verdict)
		}
		l.wantFiles("outbox")
		l.runOnce()
		l.wantFiles("outbox")
	})
	t.Run("while it is sent", func(t *testing.T) {
		l := newLab(t)
		l.finishEpisodes("run-1")
		l.receiver.before = func(context.Context, wire.Upload) error {
			return os.Rename(l.path("episodes", "run-1"), l.path("taken"))
		}
		delete(l.contents, "run-1")
		if tally, _ := l.runOnce(); tally.Shipped != 1 {
			t.Errorf("got %v, want Shipped 1\n%s", tally, l.logs)
		}
		l.wantFiles("outbox")
	})
}

func TestAnEpisodeThatIsBeingWrittenWaits(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	fixture.WriteFile(l, l.path("episodes", "run-1", "capture.pcap"), string(fixture.Noise(1<<20, 1)))
	s := l.openShipper()
	err := s.PackWhile("run-1", func() { fixture.WriteFile(l, l.path("episodes", "run-1", "capture.pcap"), "shorter") })
	fixture.Must(l, s.Close())
	if verdict, _ := shipper.Classify(err); verdict != "retry" {
		t.Errorf("%v: %s, want that it is tried again", err, verdict)
	}
	l.wantFiles("outbox")
	if held := l.held(); len(held) != 0 {
		t.Errorf("held: %+v", held)
	}
	l.wantDelivered(1)
}

// wantDelivered makes a pass, which must ship n episodes and do nothing else.
func (l *lab) wantDelivered(n int) {
	l.Helper()
	if tally, unreachable := l.runOnce(); tally.Shipped+tally.AlreadyPresent != n || tally.Scanned != n || unreachable != nil {
		l.Errorf("got %v, %v, want %d delivered\n%s", tally, unreachable, n, l.logs)
	}
	l.checkNothingLost()
}

// A later run of the same name that is not finished does not affect the entry of the former.
func TestALaterUnfinishedRunIsNotMoved(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.packOnly("run-1")
	fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("shipped", "run-1"))) // a crash came here
	fixture.WriteFile(l, l.path("episodes", "run-1", "telemetry.jsonl"), "of the later run")
	if tally, _ := l.runOnce(); tally != shippedTally(1) {
		t.Errorf("got %v", tally)
	}
	b, err := os.ReadFile(l.path("episodes", "run-1", "telemetry.jsonl"))
	if err != nil || string(b) != "of the later run" {
		t.Errorf("the later run says %q, %v", b, err)
	}
	l.wantFiles("outbox")
	l.wantFiles("shipped", "run-1")
}

// A later run that is finished is not what was packed under its name.
func TestALaterFinishedRunIsNotRetiredForTheFormer(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.packOnly("run-1")
	fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("shipped", "run-1")))
	fixture.WriteFile(l, l.path("episodes", "run-1", "telemetry.jsonl"), "of the later run")
	fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "")
	delete(l.contents, "run-1")
	l.runOnce()
	b, err := os.ReadFile(l.path("episodes", "run-1", "telemetry.jsonl"))
	if err != nil || string(b) != "of the later run" {
		t.Errorf("the later run says %q, %v", b, err)
	}
}
