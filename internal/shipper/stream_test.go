package shipper_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/shipper"
)

// TestALargeEpisodeIsSentWhileItIsPacked, and in the end as any other.
func TestALargeEpisodeIsSentWhileItIsPacked(t *testing.T) {
	l := newLab(t)
	fixture.WriteFile(l, l.at("episodes", "large", "blob"), string(fixture.Noise(140<<20, 1)))
	l.finish("large", "small")
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 2})
	if l.rx.opened != 1 || l.rx.ahead == 0 {
		t.Errorf("%d uploads were opened, and %d bytes sent ahead", l.rx.opened, l.rx.ahead)
	}
}

// TestAHeadStartOfNothingIsGivenUp: the episode changed while it was packed.
func TestAHeadStartOfNothingIsGivenUp(t *testing.T) {
	l := newLab(t)
	fixture.WriteFile(l, l.at("episodes", "large", "blob"), string(fixture.Noise(140<<20, 1)))
	l.finish("large")
	l.rx.appended = func() { fixture.WriteFile(l, l.at("episodes", "large", "late"), "more") }
	if tally, _ := l.once(); tally.Shipped != 0 {
		t.Errorf("%v", tally)
	}
	if l.rx.ahead == 0 || l.rx.opened != 0 || l.rx.forgot != 1 {
		t.Errorf("%d bytes were sent ahead; %d are open, %d were given up", l.rx.ahead, l.rx.opened, l.rx.forgot)
	}
}

// TestNothingIsSentAheadToADeadReceiver, and packing does not wait for it.
func TestNothingIsSentAheadToADeadReceiver(t *testing.T) {
	l := newLab(t)
	l.rx.down = unix.ECONNREFUSED
	l.cfg.Packers = 1
	fixture.WriteFile(l, l.at("episodes", "b-large", "blob"), string(fixture.Noise(65<<20, 1)))
	l.finish("a-small", "b-large")
	tally, unreachable := l.once()
	if want := (shipper.Tally{Scanned: 2, Transient: 2}); tally != want || unreachable == nil {
		t.Errorf("%v, %v, want %v", tally, unreachable, want)
	}
	if l.rx.opened > 1 || l.rx.ahead > 0 {
		t.Errorf("%d uploads were opened, %d bytes sent", l.rx.opened, l.rx.ahead)
	}
}
