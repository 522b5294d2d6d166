package shipper

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/transfer"
	"cis490/internal/wire"
)

// TestPackingResumesOnlyWhenAnEpisodeWasPacked: a scan tries again, and only success shows that
// the space suffices.
func TestPackingResumesOnlyWhenAnEpisodeWasPacked(t *testing.T) {
	for from, want := range map[packingState]struct{ scan, packed packingState }{
		packingOn:      {packingOn, packingOn},
		packingRetried: {packingRetried, packingOn},
		packingPaused:  {packingRetried, packingPaused},
	} {
		if got := from.afterScanStart(); got != want.scan {
			t.Errorf("state %d after the start of a scan: got %d, want %d", from, got, want.scan)
		}
		if got := from.afterPacked(); got != want.packed {
			t.Errorf("state %d after an episode was packed: got %d, want %d", from, got, want.packed)
		}
	}
}

func TestHostIsShortOfSpaceWhileEpisodesWaitForIt(t *testing.T) {
	for _, c := range []struct {
		state                         packingState
		belowMinFree, outboxNearLimit bool
		want                          bool
	}{
		{packingOn, false, false, false},
		{packingOn, false, true, false}, // nothing has waited yet
		{packingOn, true, false, true},
		{packingRetried, false, false, false},
		{packingRetried, false, true, true},
		{packingRetried, true, false, true},
		{packingPaused, false, false, true},
	} {
		if got := c.state.isShort(c.belowMinFree, c.outboxNearLimit); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

func TestOnlyAPingThatIsNotStaleBringsTheLinkUp(t *testing.T) {
	now := time.Now()
	failure := errors.New("connection refused")
	busy := wire.Refuse(wire.Busy, "")
	uploadFails := func(err error, once bool) func(*receiverLink) {
		return func(l *receiverLink) { l.markSuspect(err, once, now) }
	}
	pingSent := func(l *receiverLink) { l.notePing() }
	pingAnswered := func(err error) func(*receiverLink) {
		return func(l *receiverLink) {
			l.handlePing(pingResult{response: wire.PingResponse{Storage: wire.Storage{Accepting: true}}, err: err}, now)
		}
	}
	otherRequest := func(l *receiverLink) { l.handlePing(pingResult{err: failure, unsolicited: true}, now) }
	for what, c := range map[string]struct {
		events []func(*receiverLink)
		want   linkState
	}{
		"start":                                 {nil, linkUp},
		"a ping fails":                          {[]func(*receiverLink){pingSent, pingAnswered(failure)}, linkDown},
		"an upload fails":                       {[]func(*receiverLink){uploadFails(failure, false)}, linkSuspect},
		"then a ping succeeds":                  {[]func(*receiverLink){uploadFails(failure, false), pingSent, pingAnswered(nil)}, linkUp},
		"then a ping fails":                     {[]func(*receiverLink){uploadFails(failure, false), pingSent, pingAnswered(failure)}, linkDown},
		"another upload fails while it is down": {[]func(*receiverLink){pingSent, pingAnswered(failure), uploadFails(failure, false)}, linkDown},
		"the ping was sent before":              {[]func(*receiverLink){pingSent, uploadFails(failure, false), pingAnswered(nil)}, linkSuspect},
		"a later ping decides":                  {[]func(*receiverLink){pingSent, uploadFails(failure, false), pingAnswered(nil), pingSent, pingAnswered(nil)}, linkUp},
		"a busy receiver":                       {[]func(*receiverLink){uploadFails(busy, false)}, linkSuspect},
		"a busy receiver, in a single pass":     {[]func(*receiverLink){uploadFails(busy, true)}, linkDown},
		"another request found another store":   {[]func(*receiverLink){otherRequest}, linkDown},
		"a receiver that is back":               {[]func(*receiverLink){pingSent, pingAnswered(failure), pingSent, pingAnswered(nil)}, linkUp},
	} {
		l := &receiverLink{log: slog.New(slog.DiscardHandler)}
		for _, event := range c.events {
			event(l)
		}
		if l.state != c.want {
			t.Errorf("%s: got %d, want %d", what, l.state, c.want)
		}
		if (l.state == linkUp) != (l.err == nil) {
			t.Errorf("%s: state %d with the error %v", what, l.state, l.err)
		}
	}
}

// All are packed once each scanned episode has a result, or waits to be sent.
func TestAllIsPackedWhenNothingElseIsToBePacked(t *testing.T) {
	s := &Shipper{transfers: &transfer.Pipeline{}}
	s.tally = Tally{Scanned: 7, Shipped: 1, AlreadyPresent: 1, Transient: 1, Conflicts: 1, Held: 1}
	s.countToSend(1, candidate{Episode: backlog.Episode{Size: 10}})
	if a := s.Activity(); a.AllPacked || a.PackedBytes != 10 {
		t.Errorf("while one is packed: %+v", a)
	}
	s.countToSend(1, candidate{Episode: backlog.Episode{Size: 20}})
	if a := s.Activity(); !a.AllPacked || a.PackedBytes != 30 {
		t.Errorf("when both wait: %+v", a)
	}
}

// What was delivered is counted once, while it is retired too.
func TestDeliveredBytesAreCountedOnce(t *testing.T) {
	sent := transfer.Progress{Sends: true, Size: 10, Bytes: 10}
	retired := sent
	retired.Delivered = true
	for when, c := range map[string]struct {
		active            []transfer.Progress
		delivered, toSend int64
	}{
		"while it is sent":    {[]transfer.Progress{sent}, 0, 10},
		"while it is retired": {[]transfer.Progress{retired}, 10, 10},
		"at the end":          {nil, 10, 0},
	} {
		a := Activity{Transfers: c.active}
		a.addBytes(c.delivered, c.toSend)
		if a.SentBytes != 10 || a.PackedBytes != 10 {
			t.Errorf("%s: %d of %d bytes are sent, want 10 of 10", when, a.SentBytes, a.PackedBytes)
		}
	}
}
