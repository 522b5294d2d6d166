package receiver_test

import (
	"errors"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// TestConflictsAreRememberedForTheStatusPage: until the episode arrives under its second name. Sending the
// stored archive again is not a conflict.
func TestConflictsAreRememberedForTheStatusPage(t *testing.T) {
	l := newLab(t, nil)
	k, content, other := key("h", "run-7"), fixture.Noise(100, 1), fixture.Noise(100, 2)
	l.WantReceipt(k, content, wire.Stored)
	l.WantReceipt(k, content, wire.AlreadyPresent)
	if list := l.r.Conflicts(); len(list) != 0 {
		t.Errorf("before a conflict: %v", list)
	}
	for range 2 {
		if _, _, err := l.b.Announce(t.Context(), uploadOf(k, other)); !errors.Is(err, wire.Conflict) {
			t.Fatalf("announced: %v", err)
		}
	}
	if _, err := l.Put(k, other); !errors.Is(err, wire.Conflict) {
		t.Fatalf("put: %v", err)
	}
	if list := l.r.Conflicts(); len(list) != 1 || list[0].Key != k || list[0].Times != 3 {
		t.Errorf("after three: %v", list)
	}
	l.WantReceipt(key("h", "run-7.conflict-1234abcd"), other, wire.Stored)
	if list := l.r.Conflicts(); len(list) != 0 {
		t.Errorf("after both were kept: %v", list)
	}
}
