package shipper_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/transfer"
	"cis490/internal/wire"
)

// What the watchdog reacts to: a receiver that hangs is no reason for a restart. A worker
// without progress for longer than any of its own timeouts is.
func TestAliveMeansGettingOn(t *testing.T) {
	alive := func(l *lab, s *shipper.Shipper) bool {
		ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
		defer cancel()
		return s.IsAlive(ctx)
	}
	t.Run("idle", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			s, stop := l.startDaemon()
			for range 100 {
				if !alive(l, s) {
					l.Fatal("it is idle, and does not count as alive")
				}
				time.Sleep(17 * time.Minute)
			}
			fixture.Must(l, stop())
			if alive(l, s) {
				l.Error("it has ended, and counts as alive")
			}
		})
	})
	t.Run("a worker is stuck", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.finishEpisodes("run-1")
			l.receiver.before = func(ctx context.Context, _ wire.Upload) error { <-ctx.Done(); return ctx.Err() }
			s, stop := l.startDaemon()
			time.Sleep(transfer.HangTimeout - time.Second)
			if !alive(l, s) {
				l.Error("not alive before the time is up")
			}
			time.Sleep(2 * time.Second)
			if alive(l, s) {
				l.Error("a worker is stuck, and the shipper counts as alive")
			}
			fixture.Must(l, stop())
		})
	})
	t.Run("an upload that moves", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.finishEpisodes("run-1")
			s, err := shipper.New(l.cfg, slowReceiver{l.receiver}, "the test", discard)
			fixture.Must(l, err)
			s.ScanOnly()
			stop := l.start(s)
			for range 12 {
				time.Sleep(5 * time.Minute)
				if !alive(l, s) {
					l.Fatal("an upload moves, and the shipper does not count as alive")
				}
			}
			fixture.Must(l, stop())
		})
	})
}

// slowReceiver reads one byte per minute.
type slowReceiver struct{ *receiver }

func (slowReceiver) Put(ctx context.Context, u wire.Upload, archive io.ReaderAt) (wire.Receipt, error) {
	for i := range u.Size {
		if _, err := archive.ReadAt(make([]byte, 1), i); err != nil {
			return wire.Receipt{}, err
		}
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return wire.Receipt{}, ctx.Err()
		}
	}
	return wire.Receipt{}, io.ErrUnexpectedEOF
}

func TestStatusSaysHowItGoes(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		l.receiver.down = unix.ECONNREFUSED
		var said []string
		s := l.openShipper()
		s.Status = func(status string) { said = append(said, status) }
		s.ScanOnly()
		stop := l.start(s)
		time.Sleep(time.Minute)
		l.receiver.update(func() { l.receiver.down = nil })
		time.Sleep(5 * time.Minute)
		fixture.Must(l, stop())
		const asked, away, back = "0 shipped since the start, 0 held; 0 B wait in the outbox; asking the receiver",
			" wait in the outbox; receiver has not accepted uploads since 2000-01-01 00:00:00 UTC: connection refused",
			"1 shipped since the start, 0 held; 0 B wait in the outbox; receiver answers, last at 2000-01-01 00:0"
		if len(said) < 3 || said[0] != asked || !strings.HasSuffix(said[1], away) || !strings.HasPrefix(said[len(said)-1], back) {
			l.Errorf("it said %q", said)
		}
	})
}
