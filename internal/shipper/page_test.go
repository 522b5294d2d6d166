package shipper_test

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"

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
	all := l.makeBacklog(shipper.ScanPageSize + 300)
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

func TestPagesCoverEverything(t *testing.T) {
	l := newLab(t)
	all := l.makeBacklog(2*shipper.ScanPageSize + 500)
	l.finishEpisodes("run-00000", "run-10000", "zz-last") // in both folders, and beyond
	s := l.openShipper()
	defer s.Close()
	var got []episode.Name
	after, last := episode.Name(""), false
	for pages := 0; !last; pages++ {
		if pages > 4 {
			t.Fatal("the pages have no end")
		}
		var page []episode.Name
		var err error
		page, last, err = s.Scan(after)
		fixture.Must(l, err)
		if len(page) == 0 {
			t.Fatal("an empty page")
		}
		got, after = append(got, page...), page[len(page)-1]
	}
	if want := append(all, "zz-last"); !slices.Equal(got, want) {
		t.Errorf("got %d names, want %d in order", len(got), len(want))
	}
}

// I17: memory does not grow with the number of waiting episodes.
func TestABacklogOfAnySizeTakesLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 100,000 files")
	}
	l := newLab(t)
	l.makeBacklog(100_000)
	s := l.openShipper()
	defer s.Close()
	before := heapInUse()
	page, last, err := s.Scan("run-04999")
	keeps := int64(heapInUse()) - int64(before)
	if err != nil || last || len(page) != shipper.ScanPageSize {
		t.Fatalf("a page of %d names, the last: %v, %v", len(page), last, err)
	}
	t.Logf("%d KiB", keeps>>10)
	if keeps > 2<<20 { // a name is about 32 bytes here
		t.Errorf("a scan keeps %d KiB", keeps>>10)
	}
	runtime.KeepAlive(page)
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkScan(b *testing.B) {
	l := newLab(b)
	l.makeBacklog(100_000)
	s := l.openShipper()
	defer s.Close()
	for b.Loop() {
		if _, _, err := s.Scan(""); err != nil {
			b.Fatal(err)
		}
	}
}
