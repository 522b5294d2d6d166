package shipper_test

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"cis490/internal/backlog"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// makeBacklog makes n sealed episodes. Code that reads only names needs no content.
func (l *lab) makeBacklog(n int) []episode.Name {
	l.Helper()
	fixture.Must(l, os.MkdirAll(l.path("outbox"), 0o750))
	all := numberedNames("run", n)
	shuffled := slices.Clone(all)
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, name := range shuffled {
		fixture.Must(l, os.WriteFile(l.path("outbox", string(name)+".tar.zst"), nil, 0o640))
	}
	return all
}

// Pages skip nothing and repeat nothing, even if the first ones are delivered and gone when the
// second is read.
func TestEachNameIsTriedOnceInOrder(t *testing.T) {
	l := newLab(t)
	all := l.makeBacklog(backlog.PageSize + 300)
	l.cfg.Senders = 1
	var mu sync.Mutex
	var tried []episode.Name
	l.receiver.before = func(_ context.Context, u wire.Upload) error {
		mu.Lock()
		defer mu.Unlock()
		tried = append(tried, u.Key.Name)
		return wire.Refuse(wire.TooLarge, "") // held: it stays where it is
	}
	l.wantOnce(shipper.Tally{Scanned: len(all), Held: len(all)})
	if !slices.Equal(tried, all) {
		t.Errorf("%d of %d names were tried, or not in order", len(tried), len(all))
	}
}
