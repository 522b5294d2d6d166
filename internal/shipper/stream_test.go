package shipper_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/shipper"
)

// TestALargeEpisodeIsSentWhileItIsPacked, and delivered like any other.
func TestALargeEpisodeIsSentWhileItIsPacked(t *testing.T) {
	l := newLab(t)
	fixture.WriteFile(l, l.path("episodes", "large", "blob"), string(fixture.Noise(140<<20, 1)))
	l.finishEpisodes("large", "small")
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 2})
	if l.receiver.opened != 1 || l.receiver.ahead == 0 {
		t.Errorf("%d uploads were opened, and %d bytes sent ahead", l.receiver.opened, l.receiver.ahead)
	}
}

// TestStreamingUploadOfAChangedEpisodeIsDiscarded: the episode changed while it was packed.
func TestStreamingUploadOfAChangedEpisodeIsDiscarded(t *testing.T) {
	l := newLab(t)
	fixture.WriteFile(l, l.path("episodes", "large", "blob"), string(fixture.Noise(140<<20, 1)))
	l.finishEpisodes("large")
	l.receiver.appended = func() { fixture.WriteFile(l, l.path("episodes", "large", "late"), "more") }
	if tally, _ := l.runOnce(); tally.Shipped != 0 {
		t.Errorf("got %v, want Shipped 0", tally)
	}
	if l.receiver.ahead == 0 || l.receiver.opened != 0 || l.receiver.forgot != 1 {
		t.Errorf("%d bytes were sent ahead; %d are open, %d were given up", l.receiver.ahead, l.receiver.opened, l.receiver.forgot)
	}
}

// TestNothingIsSentAheadToADeadReceiver, and packing does not wait for it.
func TestNothingIsSentAheadToADeadReceiver(t *testing.T) {
	l := newLab(t)
	l.receiver.down = unix.ECONNREFUSED
	l.cfg.Packers = 1
	fixture.WriteFile(l, l.path("episodes", "b-large", "blob"), string(fixture.Noise(65<<20, 1)))
	l.finishEpisodes("a-small", "b-large")
	tally, unreachable := l.runOnce()
	if want := (shipper.Tally{Scanned: 2, Transient: 2}); tally != want || unreachable == nil {
		t.Errorf("%v, %v, want %v", tally, unreachable, want)
	}
	if l.receiver.opened > 1 || l.receiver.ahead > 0 {
		t.Errorf("%d uploads were opened, %d bytes sent", l.receiver.opened, l.receiver.ahead)
	}
}
