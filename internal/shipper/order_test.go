package shipper_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// TestEpisodesAreSentInTheOrderThatIsAsked, whatever their names.
func TestEpisodesAreSentInTheOrderThatIsAsked(t *testing.T) {
	// d was finished first and b last.
	age := []episode.Name{"d", "a", "e", "c", "b"}
	for order, want := range map[shipper.Order]string{
		shipper.Oldest: "daecb",
		shipper.Newest: "bcead",
		shipper.Mixed:  "bdcae",
	} {
		t.Run(string(order), func(t *testing.T) {
			l := newLab(t)
			l.cfg.Order, l.cfg.Packers, l.cfg.Senders = order, 1, 1
			for i, name := range age {
				l.finishEpisodes(name)
				at := time.Now().Add(time.Duration(i-10) * time.Hour)
				fixture.Must(l, os.Chtimes(l.path("episodes", string(name), episode.Marker), at, at))
			}
			s := l.openShipper()
			for _, name := range age {
				fixture.Must(l, s.PackOnly(name))
			}
			fixture.Must(l, s.Close())
			l.wantOnce(shipper.Tally{Scanned: 5, Shipped: 5})
			var sent strings.Builder
			for _, name := range l.receiver.puts {
				sent.WriteString(string(name))
			}
			if sent.String() != want {
				t.Errorf("sent %s, want %s", &sent, want)
			}
		})
	}
}

// TestLargeArchivesLeaveSendersToSmallOnes: the maximum number of large uploads stalls, and a
// hundred small ones are sent meanwhile.
func TestLargeArchivesLeaveSendersToSmallOnes(t *testing.T) {
	for senders, most := range map[int]int{2: 1, 6: 3, 16: 4} {
		t.Run(fmt.Sprintf("%d senders", senders), func(t *testing.T) {
			l := newLab(t)
			l.cfg.Senders = senders
			large := numberedNames("large", most+2)
			for _, name := range large {
				fixture.WriteFile(l, l.path("episodes", string(name), "blob"), string(fixture.Noise(1<<20, 1)))
				l.finishEpisodes(name)
			}
			l.finishEpisodes(numberedNames("small", 100)...)
			var mu sync.Mutex
			gone, standing := 0, 0
			open := make(chan struct{})
			l.receiver.before = func(ctx context.Context, u wire.Upload) error {
				mu.Lock()
				defer mu.Unlock()
				if !slices.Contains(large, u.Key.Name) {
					gone++
					if gone == 100 {
						close(open)
					}
					return nil
				}
				standing++
				if standing > most {
					t.Errorf("%d large ones are sent at once, want at most %d", standing, most)
				}
				mu.Unlock()
				defer func() { mu.Lock(); standing-- }()
				select {
				case <-open:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			l.wantOnce(shipper.Tally{Scanned: 102 + most, Shipped: 102 + most})
		})
	}
}
