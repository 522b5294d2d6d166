package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/wire"
)

var start = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

// lab is a book in a data directory.
type lab struct {
	*testing.T
	dir   string
	data  *durable.Dir
	book  *fleet.Book
	count fleet.Count // of every host
	asked []time.Time // the last arrivals with which the count was asked for
}

func newLab(t *testing.T) *lab {
	l := &lab{T: t, dir: t.TempDir()}
	var err error
	l.data, err = durable.Open(l.dir)
	fixture.Must(t, err)
	t.Cleanup(func() { l.data.Close() })
	l.open()
	return l
}

// open opens the book as a daemon that was restarted does.
func (l *lab) open() {
	var err error
	l.book, err = fleet.Open(l.data, func(_ episode.Name, last time.Time) (fleet.Count, bool, error) {
		l.asked = append(l.asked, last)
		return l.count, !l.count.LastArrival.Equal(last), nil
	})
	fixture.Must(l, err)
	l.Cleanup(func() { l.book.Close() })
}

func (l *lab) note(host episode.Name, r wire.Report, at time.Time) fleet.News {
	l.Helper()
	news, err := l.book.Note(host, r, at)
	fixture.Must(l, err)
	return news
}

func (l *lab) record(host episode.Name) fleet.Record {
	l.Helper()
	all, err := fleet.Read(l.data)
	fixture.Must(l, err)
	return all[host]
}

func TestRecordSurvivesARestart(t *testing.T) {
	l := newLab(t)
	l.count = fleet.Count{Archives: 3, LastArrival: start.Add(-time.Hour)}
	r := wire.Report{Version: "1.4", Instance: "a", At: start, Interval: 300, Shipped: 7, Held: map[string]int64{"conflict": 2}}
	l.note("lab-01", r, start)
	fixture.Must(t, l.book.Close())
	l.open()
	got := l.record("lab-01")
	if !reflect.DeepEqual(got.Report, r) || !got.ReceivedAt.Equal(start) || got.Stored != 3 || !got.LastArrival.Equal(l.count.LastArrival) {
		t.Errorf("got %+v", got)
	}
	l.count.Archives = 9 // not counted: the last arrival is the same
	l.note("lab-01", r, start.Add(time.Minute))
	if got := l.record("lab-01"); got.Stored != 3 || len(l.asked) != 2 || !l.asked[1].Equal(l.count.LastArrival) {
		t.Errorf("got %d archives, asked with %v", got.Stored, l.asked)
	}
	l.count.LastArrival = start
	l.note("lab-01", r, start.Add(2*time.Minute))
	if got := l.record("lab-01"); got.Stored != 9 {
		t.Errorf("got %d archives, want 9", got.Stored)
	}
}

func TestReportThatComesTooSoonIsRefused(t *testing.T) {
	l := newLab(t)
	l.note("lab-01", wire.Report{Shipped: 1}, start)
	_, err := l.book.Note("lab-01", wire.Report{Shipped: 2}, start.Add(fleet.MinInterval-time.Second))
	p, _ := errors.AsType[*wire.Problem](err)
	if p == nil || p.Code != wire.HostBusy || p.RetryAfter != time.Second {
		t.Errorf("got %v, want %v with a wait of 1 s", err, wire.HostBusy)
	}
	l.note("lab-02", wire.Report{Shipped: 3}, start.Add(time.Second)) // another host
	l.note("lab-01", wire.Report{Shipped: 4}, start.Add(fleet.MinInterval))
	if got := l.record("lab-01").Report.Shipped; got != 4 {
		t.Errorf("got %d, want 4", got)
	}
	// After the receiver's clock went back, reports are kept again at once.
	l.note("lab-01", wire.Report{Shipped: 5}, start.Add(-time.Hour))
	if got := l.record("lab-01"); got.Report.Shipped != 5 || !got.ReceivedAt.Equal(start.Add(-time.Hour)) {
		t.Errorf("got %+v", got)
	}
}

// TestRecordsAreBounded also shows that a file has a bounded size.
func TestRecordsAreBounded(t *testing.T) {
	l := newLab(t)
	held := make(map[string]int64)
	for i := range 16 {
		held[strings.Repeat("x", 16+i)] = 1 << 40
	}
	r := wire.Report{Version: strings.Repeat("v", 64), Instance: strings.Repeat("i", 64), Held: held, LastError: strings.Repeat(`\`, wire.MaxReportError)}
	r.Disk.FreeBytes = 1 << 52
	for i := range 400 {
		l.note("lab-01", r, start.Add(time.Duration(i)*time.Hour))
	}
	st, err := os.Stat(filepath.Join(l.dir, "reports", "lab-01.report"))
	fixture.Must(t, err)
	if st.Size() > 16<<10 || len(l.record("lab-01").Samples) != 192 {
		t.Errorf("the record has %d bytes and %d samples", st.Size(), len(l.record("lab-01").Samples))
	}
	for i := range 4096 {
		fixture.WriteFile(t, filepath.Join(l.dir, "reports", fmt.Sprintf("h%d.report", i)), "")
	}
	if _, err := l.book.Note("lab-02", r, start); !errors.Is(err, wire.Full) {
		t.Errorf("a host too many: got %v, want %v", err, wire.Full)
	}
	l.note("lab-01", r, start.Add(500*time.Hour))
}

func TestDamagedRecordIsMadeAgain(t *testing.T) {
	for _, content := range []string{"", "{", `{"schema_version":2}`, `{"schema_version":1,"stored":-1}`, strings.Repeat(" ", 40<<10)} {
		l := newLab(t)
		l.note("lab-01", wire.Report{}, start)
		fixture.WriteFile(t, filepath.Join(l.dir, "reports", "lab-01.report"), content)
		l.note("lab-02", wire.Report{Shipped: 2}, start)
		all, err := fleet.Read(l.data)
		if err == nil || len(all) != 1 || all["lab-02"].Report.Shipped != 2 {
			t.Errorf("%.20q: read %v, %v, want an error and the other host", content, all, err)
		}
		l.note("lab-01", wire.Report{Shipped: 8}, start.Add(time.Second))
		if got := l.record("lab-01").Report.Shipped; got != 8 {
			t.Errorf("%.20q: got %d, want 8", content, got)
		}
	}
}

func TestClonedMachineIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		instances string
		every     time.Duration
		cloned    bool
		news      int
	}{
		"one machine":               {"aaaaaa", time.Minute, false, 0},
		"a reboot":                  {"aaabbb", time.Minute, false, 0},
		"many reboots":              {"abcdef", time.Minute, false, 0},
		"an older release too":      {"a-a-", time.Minute, false, 0},
		"two machines":              {"abababab", time.Minute, true, 1},
		"two machines, rarely":      {"aabbaabb", 5 * time.Hour, true, 1},
		"a clone that was long off": {"aba", 30 * time.Hour, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			at, news := start, 0
			for _, i := range c.instances {
				at = at.Add(c.every)
				if l.note("lab-01", wire.Report{Instance: strings.Trim(string(i), "-")}, at).Cloned {
					news++
				}
			}
			if got := l.record("lab-01").Assess(at).Cloned; got != c.cloned || news != c.news {
				t.Errorf("cloned %v, said %d times; want %v, %d times", got, news, c.cloned, c.news)
			}
			if l.record("lab-01").Assess(at.Add(25 * time.Hour)).Cloned {
				t.Error("still cloned a day later")
			}
		})
	}
}

func FuzzRecord(f *testing.F) {
	b, err := json.Marshal(fleet.Record{Version: 1, ReceivedAt: start, Gaps: []int64{300}, Samples: []fleet.Sample{{At: 1, Free: 2}}})
	fixture.Must(f, err)
	f.Add(b)
	f.Add([]byte(`{"schema_version":1,"gaps":[-9223372036854775808],"free_bytes_by_hour":[{"at":-9223372036854775808,"free":9223372036854775807}],"report":{"interval_seconds":4503599627370496}}`))
	dir := f.TempDir()
	data, err := durable.Open(dir)
	fixture.Must(f, err)
	fixture.Must(f, os.Mkdir(filepath.Join(dir, "reports"), 0o750))
	f.Fuzz(func(t *testing.T, content []byte) {
		fixture.Must(t, os.WriteFile(filepath.Join(dir, "reports", "lab-01.report"), content, 0o640))
		all, err := fleet.Read(data)
		if err != nil {
			return
		}
		h := all["lab-01"].Assess(start)
		if h.SilentFor < 0 || h.FullIn < 0 || h.Undelivered < 0 || h.Absent < 0 {
			t.Errorf("got %+v", h)
		}
	})
}

// BenchmarkNote keeps a report whose record is as large as after a week.
func BenchmarkNote(b *testing.B) {
	data, err := durable.Open(b.TempDir())
	fixture.Must(b, err)
	book, err := fleet.Open(data, func(episode.Name, time.Time) (fleet.Count, bool, error) { return fleet.Count{}, false, nil })
	fixture.Must(b, err)
	at := start
	r := wire.Report{Version: "1.4", Instance: "a", Interval: 300}
	for range 200 {
		at = at.Add(time.Hour)
		_, err := book.Note("lab-01", r, at)
		fixture.Must(b, err)
	}
	for b.Loop() {
		at = at.Add(5 * time.Minute)
		if _, err := book.Note("lab-01", r, at); err != nil {
			b.Fatal(err)
		}
	}
}
