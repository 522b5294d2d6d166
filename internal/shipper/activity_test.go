package shipper_test

import (
	"context"
	"testing"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// The activity of a pass has the episodes that workers process, and their bytes.
func TestActivityShowsTransfersAndBytes(t *testing.T) {
	l := newLab(t)
	l.cfg.Packers, l.cfg.Senders = 1, 2
	fixture.WriteFile(l, l.path("episodes", "run-1", "blob"), string(fixture.Noise(3<<20, 1)))
	l.finishEpisodes("run-1", "run-2")
	s := l.openShipper()
	defer s.Close()
	var sending shipper.Activity
	l.receiver.after = func(_ context.Context, u wire.Upload) error {
		if u.Key.Name == "run-1" {
			sending = s.Activity()
		}
		return nil
	}
	_, err := s.RunOnce(l.Context())
	fixture.Must(l, err)
	found := false
	for _, a := range sending.Transfers {
		if a.Episode == "run-1" {
			found = true
			if !a.Sends || a.Size < 3<<20 || a.Bytes != a.Size || a.Moved < a.Size {
				t.Errorf("once all was read, run-1 is %+v", a)
			}
			if sending.SentBytes < a.Size || sending.PackedBytes < sending.SentBytes || sending.ReadBytes < a.Size {
				t.Errorf("while run-1 is sent: %+v", sending)
			}
		}
	}
	if !found {
		t.Errorf("run-1 is not among the transfers: %+v", sending.Transfers)
	}
	a := s.Activity()
	if len(a.Transfers) != 0 || !a.AllPacked || a.SentBytes != s.Outcomes().DeliveredBytes || a.PackedBytes != a.SentBytes {
		t.Errorf("after the pass: %+v, want that %d bytes are sent", a, s.Outcomes().DeliveredBytes)
	}
}

// Episodes that are not sent in this pass do not stay in the totals.
func TestActivityForgetsWhatIsNotSent(t *testing.T) {
	l := newLab(t)
	l.cfg.Senders = 1 // the others wait in the queue, from which they are dropped
	l.finishEpisodes("run-1", "run-2", "run-3")
	l.receiver.before = func(context.Context, wire.Upload) error { return wire.Refuse(wire.Full, "no space") }
	s := l.openShipper()
	defer s.Close()
	for _, name := range []episode.Name{"run-1", "run-2", "run-3"} {
		fixture.Must(l, s.PackOnly(name))
	}
	_, err := s.RunOnce(l.Context())
	fixture.Must(l, unlessUnreachable(err))
	if a := s.Activity(); a.PackedBytes != 0 || a.SentBytes != 0 || len(a.Transfers) != 0 || !a.AllPacked {
		t.Errorf("after a pass without a delivery: %+v", a)
	}
}
