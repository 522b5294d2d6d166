package activity_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/activity"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

var now = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

func row(host, name string, age time.Duration) index.Row {
	return index.Row{ReceivedAt: now.Add(-age), Key: episode.Key{Host: episode.Name(host), Name: episode.Name(name)}, SHA256: [32]byte{1}, Size: 100}
}

// file is an index that grows.
type file struct{ text []byte }

func (f *file) add(rows ...index.Row) {
	for _, r := range rows {
		f.text = r.Append(f.text)
	}
}

func (f *file) read(t testing.TB, a *activity.Arrivals, at time.Time) activity.Summary {
	t.Helper()
	fixture.Must(t, a.Read(bytes.NewReader(f.text), int64(len(f.text)), at))
	return a.Summary(at)
}

const day = 24 * time.Hour

// TestArrivalsAreTheSameHoweverOftenTheyAreRead: at once from the end, or after each row.
func TestArrivalsAreTheSameHoweverOftenTheyAreRead(t *testing.T) {
	var f file
	var often, once activity.Arrivals
	for i := range 60 { // 30 days, two a day, of two hosts
		f.add(row(fmt.Sprintf("lab-%d", i%2), fmt.Sprintf("run-%d", i), time.Duration(60-i)*day/2))
		if i%7 == 0 {
			f.text = append(f.text, "not a row\n"...)
		}
		f.read(t, &often, now.Add(-time.Duration(60-i)*day/2))
	}
	backfilled := row("lab-1", "found", 3*day)
	backfilled.Backfilled = true
	f.add(backfilled)
	got, want := f.read(t, &often, now), f.read(t, &once, now)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after each row: %v\nat once: %v", got, want)
	}
	if n := activity.Sum(want.Total[:]); n != (activity.Count{Archives: 27, Bytes: 2700}) { // none today, two on each of 13 days, and the one found
		t.Errorf("%+v in total", n)
	}
	if want.Total[10].Archives != 3 || want.Total[13].Archives != 0 {
		t.Errorf("by day: %v", want.Total)
	}
	if len(want.Recent) != 20 || want.Recent[0].Key.Name != "run-59" || !want.Since.IsZero() {
		t.Errorf("recent: %v, since %v", want.Recent, want.Since)
	}
	if h := want.Hosts["lab-1"]; len(h.Recent) != 10 || h.Recent[0].Key.Name != "run-59" {
		t.Errorf("of a host: %v", h.Recent)
	}
	// Tomorrow, today is yesterday.
	if tomorrow := once.Summary(now.Add(day)); tomorrow.Total[9].Archives != 3 || tomorrow.Total[0] != want.Total[1] {
		t.Errorf("tomorrow: %v", tomorrow.Total)
	}
}

// TestAWrongClockHidesNothing: rows of a clock that was wrong for a while are between those of today.
func TestAWrongClockHidesNothing(t *testing.T) {
	var f file
	f.add(row("lab-1", "before", time.Hour))
	for i := range 100 {
		f.add(row("lab-1", fmt.Sprintf("past-%d", i), 20000*day), row("lab-1", fmt.Sprintf("future-%d", i), -300*day))
	}
	f.add(row("lab-1", "after", -time.Hour))
	s := f.read(t, new(activity.Arrivals), now)
	if s.Total[activity.Days-1].Archives != 2 || len(s.Recent) != 2 {
		t.Errorf("today: %v, recent: %v", s.Total, s.Recent)
	}
}

// TestAnIndexThatWasReplacedIsReadAgain, and the end of one that grows is not a row yet.
func TestAnIndexThatWasReplacedIsReadAgain(t *testing.T) {
	var f file
	var a activity.Arrivals
	f.add(row("lab-1", "run-1", 2*time.Hour), row("lab-1", "run-2", time.Hour))
	whole := f.text
	f.text = f.text[:len(whole)-10]
	if s := f.read(t, &a, now); len(s.Recent) != 1 {
		t.Errorf("with half a row: %v", s.Recent)
	}
	f.text = whole
	if s := f.read(t, &a, now); len(s.Recent) != 2 {
		t.Errorf("with the rest: %v", s.Recent)
	}
	f.text = nil
	for range 3 { // it is longer, and no line ends where the other index did
		f.add(row("lab-2", strings.Repeat("x", 99), time.Hour))
	}
	if s := f.read(t, &a, now); len(s.Recent) != 3 || len(s.Hosts) != 1 {
		t.Errorf("after it was replaced by a longer one: %+v", s)
	}
	f.text = nil
	f.add(row("lab-2", "other", time.Hour))
	if s := f.read(t, &a, now); len(s.Recent) != 1 || len(s.Hosts) != 1 || s.Total[activity.Days-1].Archives != 1 {
		t.Errorf("after it was replaced: %+v", s)
	}
}

// TestARowOfTomorrowCountsAsOfToday: the clock was a little ahead when it was written.
func TestARowOfTomorrowCountsAsOfToday(t *testing.T) {
	var f file
	f.add(row("lab-1", "ahead", -20*time.Hour))
	if s := f.read(t, new(activity.Arrivals), now); s.Total[activity.Days-1].Archives != 1 || len(s.Recent) != 1 {
		t.Errorf("today: %v, recent: %v", s.Total, s.Recent)
	}
}

// TestABackfillHidesNoArrival: the rows that it appends are of old files.
func TestABackfillHidesNoArrival(t *testing.T) {
	var f file
	f.add(row("lab-1", "run-1", time.Hour))
	for i := range 2000 {
		found := row("lab-1", fmt.Sprintf("found-%d", i), 30*day)
		found.Backfilled = true
		f.add(found)
	}
	if s := f.read(t, new(activity.Arrivals), now); len(s.Recent) != 1 {
		t.Errorf("recent: %v", s.Recent)
	}
}

// meteredReader counts the bytes that are read, up to a limit at which reading fails.
type meteredReader struct {
	r           *bytes.Reader
	read, limit int
}

func (m *meteredReader) ReadAt(p []byte, off int64) (int, error) {
	if m.read >= m.limit {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := m.r.ReadAt(p, off)
	m.read += n
	return n, err
}

// TestOldRowsAreNotRead, except for as many as a wrong clock may have written.
func TestOldRowsAreNotRead(t *testing.T) {
	var f file
	for i := range 20_000 {
		f.add(row("lab-1", fmt.Sprintf("old-%d", i), 30*day))
	}
	f.add(row("lab-1", "run-1", time.Hour))
	m := &meteredReader{r: bytes.NewReader(f.text), limit: 1 << 30}
	fixture.Must(t, new(activity.Arrivals).Read(m, int64(len(f.text)), now))
	if m.read > len(f.text)/2 {
		t.Errorf("%d of %d bytes were read", m.read, len(f.text))
	}
}

// TestAReadErrorHidesNothing: the next reading begins again.
func TestAReadErrorHidesNothing(t *testing.T) {
	var f file
	for i := range 20_000 {
		f.add(row("lab-1", fmt.Sprintf("run-%d", i), time.Hour))
	}
	var a activity.Arrivals
	m := &meteredReader{r: bytes.NewReader(f.text), limit: len(f.text) / 2}
	if err := a.Read(m, int64(len(f.text)), now); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if s := f.read(t, &a, now); s.Total[activity.Days-1].Archives != 20_000 {
		t.Errorf("after the error: %v", s.Total)
	}
}

// TestASummaryStaysAsItIs while further rows are read: pages are made of it.
func TestASummaryStaysAsItIs(t *testing.T) {
	var f file
	var a activity.Arrivals
	for i := range 30 {
		f.add(row("lab-1", fmt.Sprintf("run-%d", i), time.Hour))
		f.read(t, &a, now)
	}
	s := f.read(t, &a, now)
	f.add(row("lab-1", "run-30", time.Minute))
	f.read(t, &a, now)
	if s.Recent[0].Key.Name != "run-29" || s.Hosts["lab-1"].Recent[0].Key.Name != "run-29" {
		t.Errorf("it has become %v", s)
	}
}

// TestArrivalsTakeBoundedMemory: many hosts are counted together, and a long index is read in part.
func TestArrivalsTakeBoundedMemory(t *testing.T) {
	var f file
	for i := range 300_000 {
		f.add(row(fmt.Sprintf("lab-%d", i%5000), fmt.Sprintf("%s-%d", strings.Repeat("x", 60), i), time.Duration(300_000-i)*time.Second))
	}
	var a activity.Arrivals
	fixture.Must(t, a.Read(strings.NewReader(""), 0, now)) // what is appended is as long as a whole index
	s := f.read(t, &a, now)
	n := activity.Sum(s.Total[:]).Archives
	if s.Since.IsZero() || n < 200_000 || n > 299_000 || len(s.Hosts) != 4096 {
		t.Errorf("%d of 300000 arrivals of %d hosts since %v, of %d bytes", n, len(s.Hosts), s.Since, len(f.text))
	}
}

// TestConflictsAreFew: one per name, the last 50, until the episode has arrived under its second name.
func TestConflictsAreFew(t *testing.T) {
	var c activity.Conflicts
	key := func(i int) episode.Key { return row("lab-1", fmt.Sprintf("run-%d", i), 0).Key }
	for i := range 60 {
		c.Add(key(i), now)
	}
	c.Add(key(20), now.Add(time.Minute))
	list := c.List()
	if len(list) != 50 || list[0] != (activity.Conflict{Key: key(20), First: now, Last: now.Add(time.Minute), Times: 2}) || list[49].Key != key(10) {
		t.Errorf("%d: %v", len(list), list)
	}
	c.Resolve(row("lab-2", "run-20.conflict-1234abcd", 0).Key) // another host's
	c.Resolve(key(20))                                         // not its second name
	if c.List()[0].Key != key(20) {
		t.Error("it was forgotten")
	}
	c.Resolve(row("lab-1", "run-20.conflict-1234abcd", 0).Key)
	if list := c.List(); len(list) != 49 || list[0].Key == key(20) {
		t.Errorf("it is still there: %v", list[0])
	}
}

// TestNoHostHidesTheConflictsOfOthers, however many it has.
func TestNoHostHidesTheConflictsOfOthers(t *testing.T) {
	var c activity.Conflicts
	other := row("lab-2", "run-1", 0).Key
	c.Add(other, now)
	for i := range 60 {
		c.Add(row("lab-1", fmt.Sprintf("run-%d", i), 0).Key, now)
	}
	list := c.List()
	if len(list) != 50 || list[49].Key != other || list[0].Key.Name != "run-59" {
		t.Errorf("%d: %v", len(list), list)
	}
	c.Add(row("lab-1", "run-60", 0).Key, now)
	if list[0].Key.Name != "run-59" {
		t.Errorf("a list that was returned has become %v", list)
	}
}

// TestConflictOfASecondNameIsResolvedByItsThird: the episode was sent as run.conflict-1, which was taken too.
func TestConflictOfASecondNameIsResolvedByItsThird(t *testing.T) {
	var c activity.Conflicts
	c.Add(row("lab-1", "run.conflict-1", 0).Key, now)
	c.Resolve(row("lab-1", "run.conflict-1.conflict-2", 0).Key)
	if list := c.List(); len(list) != 0 {
		t.Errorf("it is still there: %v", list)
	}
}

// TestConflictsAreAddedConcurrently is for the race detector.
func TestConflictsAreAddedConcurrently(t *testing.T) {
	var c activity.Conflicts
	key := row("lab-1", "run-1", 0).Key
	var requests sync.WaitGroup
	for range 4 {
		requests.Go(func() {
			for range 100 {
				c.Add(key, now)
				c.Resolve(row("lab-1", "other.conflict-1", 0).Key)
				c.List()
			}
		})
	}
	requests.Wait()
	if list := c.List(); len(list) != 1 || list[0].Times != 400 {
		t.Errorf("got %v", list)
	}
}

// BenchmarkArrivals is the first reading of 64 MiB of index.
func BenchmarkArrivals(b *testing.B) {
	var f file
	for i := 0; len(f.text) < 64<<20; i++ {
		f.add(row(fmt.Sprintf("lab-%d", i%100), fmt.Sprintf("2026-11-30T08-00-00-run-%d", i), time.Hour))
	}
	b.SetBytes(int64(len(f.text)))
	for b.Loop() {
		f.read(b, new(activity.Arrivals), now)
	}
}
