package diskbackend_test

import (
	"fmt"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// After one upload's sync has failed, the results of another's cannot be trusted: it must not
// be acknowledged, although each of its own calls succeeded.
func TestNothingIsAcknowledgedAfterAnothersFault(t *testing.T) {
	l := newLab(t, nil)
	_ = l.b.HandleFault(fmt.Errorf("sync: %w", durable.ErrFault)) // its sender gets an error; the test is about the others
	if r, err := l.Put(key("h", "e"), fixture.Noise(100, 1)); err == nil {
		t.Errorf("acknowledged after a fault: %+v", r)
	}
}

// TestNoAnswerVouchesForBytesAfterAFault: hosts delete episodes because of such answers, and
// requests are in flight until the servers are closed.
func TestNoAnswerVouchesForBytesAfterAFault(t *testing.T) {
	l := newLab(t, nil)
	content := packNoise(1000, 1)
	l.WantReceipt(key("lab-01", "e"), content, wire.Stored)
	_, part, err := l.b.Announce(t.Context(), uploadOf(key("lab-01", "part"), fixture.Noise(300_000, 1)))
	fixture.Must(t, err)
	answers := map[string]func() error{
		"put":     func() error { _, err := l.Put(key("lab-01", "e"), content); return err },
		"stat":    func() error { _, err := l.b.Stat(t.Context(), key("lab-01", "e")); return err },
		"state":   func() error { _, err := l.b.UploadState(t.Context(), "lab-01", part.ID); return err },
		"storage": func() error { _, err := l.b.Storage(t.Context(), "lab-01"); return err },
		"inventory": func() error {
			_, err := l.b.Inventory(t.Context(), "lab-01", []wire.InventoryQuery{queryFor("e", content)}, false)
			return err
		},
	}
	for what, ask := range answers {
		if err := ask(); err != nil {
			t.Errorf("%s before the fault: %v", what, err)
		}
	}
	_ = l.b.HandleFault(fmt.Errorf("sync: %w", durable.ErrFault))
	for what, ask := range answers {
		if err := ask(); err == nil {
			t.Errorf("%s: answered after a fault", what)
		}
	}
}
