package shipper_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
)

// outboxBytes is the total size of the sealed entries.
func outboxBytes(l *lab) int64 {
	l.Helper()
	entries, err := filepath.Glob(l.path("outbox", "*.tar.zst"))
	fixture.Must(l, err)
	sum := int64(0)
	for _, e := range entries {
		info, err := os.Stat(e)
		fixture.Must(l, err)
		sum += info.Size()
	}
	return sum
}

func TestTheOutboxKeepsItsBudgetWhileTheReceiverIsAway(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.cfg.OutboxMax = 4 << 10
		l.cfg.Packers = 1
		l.cfg.LowSpaceFile = config.Path(l.path("low-space"))
		l.receiver.down = unix.ECONNREFUSED
		l.finishEpisodes(numberedNames("run", 40)...) // about 300 bytes each, packed
		_, stop := l.startDaemon()
		time.Sleep(10 * time.Minute)
		if n := outboxBytes(l); n > 4<<10 || n < 2<<10 {
			l.Errorf("the outbox has %d bytes, of 4096", n)
		}
		if _, err := os.Stat(l.path("low-space")); err != nil {
			l.Errorf("the experiment queue is not told: %v", err)
		}
		if said := l.logs.linesContaining("packing waits for space"); len(said) != 1 {
			l.Errorf("ten minutes say %q", said)
		}
		l.receiver.update(func() { l.receiver.down = nil })
		time.Sleep(10 * time.Minute)
		l.wantFiles("outbox")
		if _, err := os.Stat(l.path("low-space")); err == nil {
			l.Error("the experiment queue is still told to wait")
		}
		fixture.Must(l, stop())
		l.checkNothingLost()
	})
}

func TestAnEpisodeLargerThanTheBudgetHasTheOutboxToItself(t *testing.T) {
	l := newLab(t)
	l.cfg.OutboxMax = 1
	l.cfg.Packers = 1
	l.finishEpisodes("run-1")
	l.runOnce()
	l.wantFiles("outbox")
	l.checkNothingLost()
}

// A conflict may remain for weeks: it must not keep the others from being packed.
func TestHeldEpisodesDoNotCountAgainstTheBudget(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes(numberedNames("held", 4)...)
	s := l.openShipper()
	for _, n := range numberedNames("held", 4) {
		fixture.Must(l, s.PackOnly(n))
	}
	fixture.Must(l, s.Close())
	o := openOutbox(l)
	for _, n := range numberedNames("held", 4) {
		fixture.Must(l, o.Hold(n, outbox.Hold{Reason: outbox.Conflict, Cause: "a test"}))
	}
	fixture.Must(l, o.MeasureSize())
	if o.Bytes() != 0 {
		l.Errorf("%d bytes of held entries count", o.Bytes())
	}
	fixture.Must(l, o.Close())
	l.cfg.OutboxMax = 1 << 10
	l.finishEpisodes(numberedNames("run", 3)...) // together with the held ones they exceed it
	l.cfg.Packers = 1
	l.receiver.down = unix.ECONNREFUSED
	l.runOnce()
	if n := len(l.logs.linesContaining(" INFO packed ")) - 4; n != 3 {
		l.Errorf("%d of 3 were packed\n%s", n, l.logs)
	}
	l.receiver.down = nil
	tally, _ := l.runOnce()
	if tally.Shipped != 3 || tally.Held != 4 {
		l.Errorf("the pass came to %v", tally)
	}
}

func openOutbox(l *lab) *outbox.Outbox {
	l.Helper()
	dir, err := durable.Open(l.path("outbox"))
	fixture.Must(l, err)
	return outbox.New(dir)
}
