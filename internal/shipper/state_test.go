package shipper

import (
	"errors"
	"log/slog"
	"testing"
	"time"

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
