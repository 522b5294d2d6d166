package backlog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"cis490/internal/archive"
	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/wire"
)

func TestTheStageIsReadOffTheDisk(t *testing.T) {
	type facts struct{ finished, sealed, held bool }
	for f, want := range map[facts]Stage{
		{false, false, false}: Nothing,
		{false, false, true}:  Stale,
		{false, true, false}:  Send, // a crash between retiring and dropping
		{false, true, true}:   Held,
		{true, false, false}:  Pack,
		{true, false, true}:   Held,
		{true, true, false}:   Send,
		{true, true, true}:    Held,
	} {
		if got := stageOf(f.finished, outbox.State{Sealed: f.sealed, Held: f.held}); got != want {
			t.Errorf("%+v: got stage %d, want %d", f, got, want)
		}
	}
}

// makeBacklog makes n sealed episodes. Code that reads only names needs no content.
func makeBacklog(t testing.TB, n int) (c hostdir.Config, names []episode.Name) {
	t.Helper()
	dir := fixture.MemoryDir(t)
	c = hostdir.Config{
		Episodes: config.Path(filepath.Join(dir, "episodes")), Outbox: config.Path(filepath.Join(dir, "outbox")),
		Shipped: config.Path(filepath.Join(dir, "shipped")), Limits: archive.DefaultLimits(),
	}
	for _, path := range []config.Path{c.Episodes, c.Outbox, c.Shipped} {
		fixture.Must(t, os.Mkdir(string(path), 0o750))
	}
	for i := range n {
		names = append(names, episode.Name(fmt.Sprintf("run-%05d", i)))
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		fixture.Must(t, os.WriteFile(filepath.Join(string(c.Outbox), string(names[i])+".tar.zst"), nil, 0o640))
	}
	return c, names
}

func openDirs(t testing.TB, c hostdir.Config) *hostdir.Dirs {
	t.Helper()
	dirs, err := hostdir.Open(c)
	fixture.Must(t, err)
	t.Cleanup(func() { dirs.Close() })
	return dirs
}

func TestPagesCoverEverything(t *testing.T) {
	c, all := makeBacklog(t, 2*PageSize+500)
	for _, name := range []string{"run-00000", "run-10000", "zz-last"} { // in both folders, and beyond
		fixture.WriteFile(t, filepath.Join(string(c.Episodes), name, episode.Marker), "")
	}
	dirs := openDirs(t, c)
	var got []episode.Name
	page := Page{}
	for pages := 0; !page.IsLast; pages++ {
		if pages > 4 {
			t.Fatal("the pages have no end")
		}
		var err error
		page, err = ReadPage(dirs, page.Cursor, func(error) {})
		fixture.Must(t, err)
		if len(page.Episodes) == 0 {
			t.Fatal("an empty page")
		}
		for _, e := range page.Episodes {
			got = append(got, e.Name)
		}
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
	c, _ := makeBacklog(t, 100_000)
	dirs := openDirs(t, c)
	before := heapInUse()
	page, err := ReadPage(dirs, "run-04999", func(error) {})
	keeps := int64(heapInUse()) - int64(before)
	if err != nil || page.IsLast || len(page.Episodes) != PageSize {
		t.Fatalf("a page of %d names, the last: %v, %v", len(page.Episodes), page.IsLast, err)
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
	c, _ := makeBacklog(b, 100_000)
	dirs := openDirs(b, c)
	for b.Loop() {
		if _, err := ReadPage(dirs, "", func(error) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestReasonsOfReportsAreInTheProtocol: a reason that the protocol does not have would count as "other".
func TestReasonsOfReportsAreInTheProtocol(t *testing.T) {
	listed := wire.Report{}.HeldByReason()
	for _, reason := range []outbox.Reason{outbox.Unpackable, outbox.Refused, outbox.Conflict, outbox.Changed, outbox.Stuck, outbox.Unreadable} {
		if _, found := listed[string(reason)]; !found {
			t.Errorf("%s is not in wire's list", reason)
		}
	}
}
