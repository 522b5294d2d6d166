package shipper_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

func shippedTally(shipped int) shipper.Tally {
	return shipper.Tally{Scanned: shipped, Shipped: shipped}
}

// A cancelled context has the effect of power loss: whenever it comes, the next pass completes
// the work, and nothing was lost or sent as other bytes.
func TestTheNextPassContinuesWhereTheLastEnded(t *testing.T) {
	for what, arm := range map[string]func(l *lab, cancel func()){
		"before it begins": func(_ *lab, cancel func()) { cancel() },
		"while packing": func(l *lab, cancel func()) {
			go func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for !fixture.Exists(l.path("outbox", "run-00000.tar.zst.partial")) {
					select {
					case <-tick.C:
					case <-l.Context().Done(): // it was packed between two looks
						return
					}
				}
				cancel()
			}()
			fixture.WriteFile(l, l.path("episodes", "run-00000", "capture.pcap"), string(fixture.Noise(32<<20, 1)))
		},
		"when one is packed": func(l *lab, cancel func()) { l.logs.on = onMessage("packed", 1, cancel) },
		"when more are":      func(l *lab, cancel func()) { l.logs.on = onMessage("packed", 6, cancel) },
		"before the bytes": func(l *lab, cancel func()) {
			l.receiver.before = func(ctx context.Context, _ wire.Upload) error { cancel(); <-ctx.Done(); return ctx.Err() }
		},
		"when the bytes are there, and the receipt is not": func(l *lab, cancel func()) {
			l.receiver.after = func(ctx context.Context, _ wire.Upload) error { cancel(); <-ctx.Done(); return ctx.Err() }
		},
		"with the receipt in hand": func(l *lab, cancel func()) {
			l.receiver.after = func(context.Context, wire.Upload) error { cancel(); return nil }
		},
		"when one is shipped": func(l *lab, cancel func()) { l.logs.on = onMessage("shipped", 1, cancel) },
		"when more were":      func(l *lab, cancel func()) { l.logs.on = onMessage("shipped", 7, cancel) },
		"while asking a receiver that failed": func(l *lab, cancel func()) {
			l.receiver.before = func(context.Context, wire.Upload) error { return os.ErrDeadlineExceeded }
			l.receiver.ping = func() error { cancel(); return os.ErrDeadlineExceeded }
		},
	} {
		for _, daemon := range []bool{false, true} {
			t.Run(what+map[bool]string{false: ", a pass", true: ", the daemon"}[daemon], func(t *testing.T) {
				l := newLab(t)
				l.finishEpisodes(numberedNames("run", 12)...)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				arm(l, cancel)
				s := l.openShipper()
				if daemon {
					if err := s.Run(ctx); err != nil {
						t.Errorf("the daemon ended with %v, want none: it was told to", err)
					}
				} else if _, err := s.RunOnce(ctx); unlessUnreachable(err) != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("the pass ended with %v", err)
				}
				fixture.Must(l, s.Close())
				l.checkNothingLost()
				if held := l.held(); len(held) != 0 {
					t.Errorf("held: %+v", held)
				}
				l.setHooks(nil, nil, nil)
				left := 12 - len(l.listFiles("shipped"))
				for _, e := range l.listFiles("outbox") { // retired, and not dropped
					if n, _, _ := splitName(e); fixture.Exists(l.path("shipped", n)) {
						left++
					}
				}
				l.wantDelivered(left)
				l.wantFiles("outbox")
				l.wantFiles("episodes")
			})
		}
	}
}

// setHooks replaces the hooks of the receiver and of the log.
func (l *lab) setHooks(before, after func(context.Context, wire.Upload) error, on func(string)) {
	l.receiver.update(func() { l.receiver.before, l.receiver.after, l.receiver.ping = before, after, nil })
	l.logs.mu.Lock()
	defer l.logs.mu.Unlock()
	l.logs.on = on
}

func splitName(file string) (stem, end string, found bool) {
	for i := range file {
		if file[i] == '.' {
			return file[:i], file[i:], true
		}
	}
	return file, "", false
}

// onMessage calls f at the nth line with this message.
func onMessage(msg string, n int, f func()) func(string) {
	count := make(chan int, 1)
	count <- 0
	return func(said string) {
		if said != msg {
			return
		}
		seen := <-count + 1
		count <- seen
		if seen == n {
			f()
		}
	}
}

// A crash between retiring an episode and dropping its entry.
func TestAnOrphanIsSentAgainAndDropped(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2")
	l.packOnly("run-1")
	l.packOnly("run-2")
	for _, n := range []string{"run-1", "run-2"} {
		fixture.Must(l, os.Rename(l.path("episodes", n), l.path("shipped", n)))
	}
	l.wantOnce(shippedTally(2))
	l.wantFiles("outbox")
	l.wantFiles("shipped", "run-1", "run-2")
}

func TestAStartSweepsPartials(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	fixture.WriteFile(l, l.path("outbox", "run-1.tar.zst.partial"), "left by a crash")
	fixture.WriteFile(l, l.path("outbox", "gone.tar.zst.partial"), "left by a crash")
	fixture.Must(l, l.openShipper().Close())
	l.wantFiles("outbox")
	l.wantOnce(shippedTally(1))
}

// I1, I7: a name that exists in the shipped folder is no reason to delete anything.
func TestANameThatWasShippedBeforeGetsASuffix(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	fixture.WriteFile(l, l.path("shipped", "run-1", "telemetry.jsonl"), "of a former run")
	delete(l.contents, "run-1")
	l.wantOnce(shippedTally(1))
	l.wantFiles("shipped", "run-1", "run-1~2")
	for dir, want := range map[string]string{"run-1": "of a former run", "run-1~2": "data of run-1"} {
		if b, err := os.ReadFile(l.path("shipped", dir, "telemetry.jsonl")); err != nil || string(b) != want {
			t.Errorf("%s says %q, %v", dir, b, err)
		}
	}
}
