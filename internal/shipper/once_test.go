package shipper_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

var discard = slog.New(slog.DiscardHandler)

func TestAPassDeliversEverything(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2", "run-3")
	fixture.WriteFile(l, l.path("episodes", "unfinished", "meta.json"), "{}")
	l.wantOnce(shipper.Tally{Scanned: 3, Shipped: 3})
	l.wantFiles("episodes", "unfinished")
	l.wantFiles("shipped", "run-1", "run-2", "run-3")
	l.wantFiles("outbox")
	l.wantOnce(shipper.Tally{})
	if _, puts, pings := l.receiver.counts(); puts != 3 || pings != 0 {
		t.Errorf("%d uploads and %d pings, want 3 and 0", puts, pings)
	}
	if loud := l.logs.warnings(); len(loud) != 0 {
		t.Errorf("a healthy pass says %q", loud)
	}
}

func TestAlreadyPresentIsDelivered(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.receiver.after = func(context.Context, wire.Upload) error { return io.ErrUnexpectedEOF } // the receipt is lost
	if tally, _ := l.runOnce(); tally != (shipper.Tally{Scanned: 1, Transient: 1}) {
		t.Errorf("got %v", tally)
	}
	l.checkNothingLost()
	l.wantFiles("episodes", "run-1")
	l.receiver.after = nil
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
	l.wantFiles("outbox")
}

// I5: only a receipt for exactly what was sent retires anything.
func TestRetireNeedsReceipt(t *testing.T) {
	for what, spoil := range map[string]func(*wire.Receipt){
		"empty":           func(r *wire.Receipt) { *r = wire.Receipt{} },
		"no status":       func(r *wire.Receipt) { r.Status = "" },
		"another host":    func(r *wire.Receipt) { r.Host = "lab-02" },
		"another episode": func(r *wire.Receipt) { r.Episode = "run-2" },
		"another digest":  func(r *wire.Receipt) { r.Digest[0]++ },
		"another size":    func(r *wire.Receipt) { r.Size++ },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.finishEpisodes("run-1")
			s, err := shipper.New(l.cfg, lyingReceiver{l.receiver, spoil}, "the test", discard)
			fixture.Must(l, err)
			defer s.Close()
			tally, err := s.RunOnce(t.Context())
			if unlessUnreachable(err) != nil || tally != (shipper.Tally{Scanned: 1, Transient: 1}) {
				t.Errorf("got %v, %v", tally, err)
			}
			l.wantFiles("episodes", "run-1")
			l.wantFiles("shipped")
			l.wantFiles("outbox", "run-1.tar.zst")
		})
	}
}

// lyingReceiver returns invalid receipts.
type lyingReceiver struct {
	*receiver
	spoil func(*wire.Receipt)
}

func (l lyingReceiver) Put(ctx context.Context, u wire.Upload, archive io.ReaderAt) (wire.Receipt, error) {
	r, err := l.receiver.Put(ctx, u, archive)
	l.spoil(&r)
	return r, err
}

func TestEachEpisodeIsInOneCounter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 25 {
		l := newLab(t)
		l.makeRandomBacklog(random)
		tally, unreachable := l.runOnce()
		if tally.Scanned == 0 {
			t.Error("nothing was scanned")
		}
		want := l.countWaiting()
		if tally.Shipped+tally.AlreadyPresent != len(l.listFiles("shipped")) {
			t.Errorf("%v, and %d are in the shipped folder", tally, len(l.listFiles("shipped")))
		}
		if left := tally.Transient + tally.Held + tally.Conflicts; left != want {
			t.Errorf("%v: %d are counted as left, and %d are (unreachable: %v)", tally, left, want, unreachable)
		}
		l.checkNothingLost()
		if t.Failed() {
			t.Fatal(l.logs)
		}
	}
}

// makeRandomBacklog makes episodes of all kinds, and a receiver that may become unreachable
// during a pass.
func (l *lab) makeRandomBacklog(random *rand.Rand) {
	fates := map[episode.Name]error{}
	for i, n := range numberedNames("run", 5+random.IntN(30)) {
		switch random.IntN(9) {
		case 0: // held from before, packed or not
			l.finishEpisodes(n)
			fixture.WriteFile(l, l.path("outbox", string(n)+".held"), `{"cause": "old"}`)
		case 1:
			l.finishEpisodes(n)
			fixture.WriteFile(l, l.path("episodes", string(n), "meta.json"), "") // unfit
		case 2:
			l.finishEpisodes(episode.Name(fmt.Sprintf("bad name %d", i)))
			delete(l.contents, episode.Name(fmt.Sprintf("bad name %d", i)))
		case 3:
			l.finishEpisodes(n)
			fates[n] = wire.Refuse(wire.Conflict, "")
		case 4:
			l.finishEpisodes(n)
			fates[n] = wire.Refuse(wire.TooLarge, "")
		case 5:
			l.finishEpisodes(n)
			fates[n] = io.ErrUnexpectedEOF
		case 6: // an entry alone: retired before, not dropped
			fixture.WriteFile(l, l.path("outbox", string(n)+".tar.zst"), "packed bytes of "+string(n))
			fates[n] = wire.Refuse(wire.Unsupported, "")
		default:
			l.finishEpisodes(n)
		}
	}
	until := random.IntN(40)
	l.receiver.before = func(_ context.Context, u wire.Upload) error {
		if _, puts, _ := l.receiver.counts(); puts > until {
			l.receiver.update(func() { l.receiver.down = unix.ECONNREFUSED })
			return unix.ECONNREFUSED
		}
		return fates[u.Key.Name]
	}
}

// countWaiting returns how many episodes or entries are left.
func (l *lab) countWaiting() int {
	left := map[string]bool{}
	for _, e := range l.listFiles("episodes") {
		left[e] = true
	}
	for _, e := range l.listFiles("outbox") {
		if stem, entry := strings.CutSuffix(e, ".tar.zst"); entry {
			left[stem] = true
		}
	}
	return len(left)
}

func TestAFaultEndsThePass(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes(numberedNames("run", 20)...)
	l.receiver.before = func(_ context.Context, u wire.Upload) error {
		if u.Key.Name == "run-00007" {
			return fmt.Errorf("read: %w: %w", durable.ErrFault, unix.EIO)
		}
		return nil
	}
	s := l.openShipper()
	defer s.Close()
	if _, err := s.RunOnce(t.Context()); !errors.Is(err, durable.ErrFault) {
		t.Errorf("got %v, want a fault", err)
	}
	l.checkNothingLost()
}

func TestOneShipperAStateDirectory(t *testing.T) {
	l := newLab(t)
	s := l.openShipper()
	defer s.Close()
	_, err := shipper.New(l.cfg, l.receiver, "the second", discard)
	if locked, ok := errors.AsType[*durable.LockedError](err); !ok || locked.Holder != "the test" {
		t.Errorf("the second gets %v", err)
	}
	st, err := backlog.InspectStatus(l.cfg.Backlog())
	if err != nil || st.Running != "the test" {
		t.Errorf("status says %q, %v", st.Running, err)
	}
}

func TestTheFoldersAreOfOneFileSystem(t *testing.T) {
	l := newLab(t)
	other := t.TempDir()
	var a, b unix.Stat_t
	fixture.Must(l, errors.Join(unix.Stat(other, &a), unix.Stat(l.dir, &b)))
	if a.Dev == b.Dev {
		t.Skip("there is only one file system here")
	}
	l.cfg.ShippedDir = config.Path(other)
	if _, err := shipper.New(l.cfg, l.receiver, "", discard); err == nil || !strings.Contains(err.Error(), "two file systems") {
		t.Errorf("got %v, want %q in it", err, "two file systems")
	}
}
