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
	"testing/synctest"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/wire"
)

var start = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

// lab is a receiver's reports in a data directory.
type lab struct {
	*testing.T
	dir     string
	data    *durable.Dir
	reports *fleet.Reports
	count   fleet.Count // of every host
	asked   []time.Time // the last changes with which the count was asked for
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

// open opens the reports as a daemon that was restarted does.
func (l *lab) open() {
	var err error
	l.reports, err = fleet.Open(l.data, func(_ episode.Name, last time.Time) (fleet.Count, bool, error) {
		l.asked = append(l.asked, last)
		return l.count, !l.count.LastChange.Equal(last), nil
	}, start)
	fixture.Must(l, err)
	l.Cleanup(func() { l.reports.Close() })
}

// add keeps a report, and returns whether it shows a clone.
func (l *lab) add(host episode.Name, r wire.Report, at time.Time) bool {
	l.Helper()
	cloned, err := l.reports.Add(host, r, at)
	fixture.Must(l, err)
	return cloned
}

// record returns the record of a host. All others must be readable.
func (l *lab) record(host episode.Name) fleet.Record {
	l.Helper()
	all, unreadable, err := fleet.Read(l.data)
	if err != nil || len(unreadable) > 0 {
		l.Fatalf("read: %v, %v", unreadable, err)
	}
	return all[host]
}

func TestRecordSurvivesARestart(t *testing.T) {
	l := newLab(t)
	l.count = fleet.Count{Archives: 3, LastChange: start.Add(-time.Hour)}
	r := wire.Report{Version: "1.4", Instance: "a", At: start, Interval: 300, Shipped: 7, Held: map[string]int64{"conflict": 2}}
	l.add("lab-01", r, start)
	fixture.Must(t, l.reports.Close())
	l.open()
	got := l.record("lab-01")
	if !reflect.DeepEqual(got.Report, r) || !got.ReceivedAt.Equal(start) || got.Stored != 3 || !got.LastChange.Equal(l.count.LastChange) {
		t.Errorf("got %+v", got)
	}
	l.count.Archives = 9 // not counted: the last change is the same
	l.add("lab-01", r, start.Add(time.Minute))
	if got := l.record("lab-01"); got.Stored != 3 || len(l.asked) != 2 || !l.asked[1].Equal(l.count.LastChange) {
		t.Errorf("got %d archives, asked with %v", got.Stored, l.asked)
	}
	l.count.LastChange = start
	l.add("lab-01", r, start.Add(2*time.Minute))
	if got := l.record("lab-01"); got.Stored != 9 {
		t.Errorf("got %d archives, want 9", got.Stored)
	}
}

func TestReportThatComesTooSoonIsRefused(t *testing.T) {
	l := newLab(t)
	l.add("lab-01", wire.Report{Shipped: 1}, start)
	_, err := l.reports.Add("lab-01", wire.Report{Shipped: 2}, start.Add(fleet.MinInterval-time.Second))
	p, _ := errors.AsType[*wire.Problem](err)
	if p == nil || p.Code != wire.HostBusy || p.RetryAfter != time.Second {
		t.Errorf("got %v, want %v with a wait of 1 s", err, wire.HostBusy)
	}
	l.add("lab-02", wire.Report{Shipped: 3}, start.Add(time.Second)) // another host
	l.add("lab-01", wire.Report{Shipped: 4}, start.Add(fleet.MinInterval))
	if got := l.record("lab-01").Report.Shipped; got != 4 {
		t.Errorf("got %d, want 4", got)
	}
	// Another machine does not wait, or one could hide the other.
	l.add("lab-01", wire.Report{Shipped: 4, Instance: "other"}, start.Add(fleet.MinInterval+time.Second))
	// After the receiver's clock went back, reports are kept again at once.
	l.add("lab-01", wire.Report{Shipped: 5}, start.Add(-time.Hour))
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
	r.Disk.FreeBytes, r.Disk.SizeBytes = 1<<52, 1<<52
	for i := range 400 {
		l.add("lab-01", r, start.Add(time.Duration(i)*time.Hour))
	}
	st, err := os.Stat(filepath.Join(l.dir, "reports", "lab-01.report"))
	fixture.Must(t, err)
	if st.Size() > 16<<10 || len(l.record("lab-01").Samples) != 192 {
		t.Errorf("the record has %d bytes and %d samples", st.Size(), len(l.record("lab-01").Samples))
	}
	current := fixture.ReadFile(t, filepath.Join(l.dir, "reports", "lab-01.report"))
	for i := range 4095 { // the record of lab-01 is among the 4096
		fixture.WriteFile(t, filepath.Join(l.dir, "reports", fmt.Sprintf("h%d.report", i)), current)
	}
	late := start.Add(500 * time.Hour)
	if _, err := l.reports.Add("lab-02", r, late); !errors.Is(err, wire.Full) {
		t.Errorf("a host too many: got %v, want %v", err, wire.Full)
	}
	l.add("lab-01", r, late)
	l.add("lab-02", r, late.Add(100*24*time.Hour)) // those that are silent for 90 days are forgotten
	if all, _, err := fleet.Read(l.data); err != nil || len(all) != 1 {
		t.Errorf("%d records (%v), want one", len(all), err)
	}
}

func TestDamagedRecordIsMadeAgain(t *testing.T) {
	for _, content := range []string{"", "{", `{"schema_version":2}`, `{"schema_version":1,"stored":-1}`, strings.Repeat(" ", 40<<10)} {
		l := newLab(t)
		l.add("lab-01", wire.Report{}, start)
		fixture.WriteFile(t, filepath.Join(l.dir, "reports", "lab-01.report"), content)
		l.add("lab-02", wire.Report{Shipped: 2}, start)
		all, unreadable, err := fleet.Read(l.data)
		if err != nil || len(all) != 1 || all["lab-02"].Report.Shipped != 2 || unreadable["lab-01"] == nil {
			t.Errorf("%.20q: read %v, %v, %v, want an error and the other host", content, all, unreadable, err)
		}
		l.add("lab-01", wire.Report{Shipped: 8}, start.Add(time.Second))
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
		"a snapshot, once":          {"aabba", time.Minute, false, 0},
		"two machines":              {"abababab", time.Minute, true, 1},
		"three machines":            {"abcabc", time.Minute, true, 1},
		"two machines, rarely":      {"aabbaabb", 3 * time.Hour, true, 1},
		"a clone that was long off": {"aba", 30 * time.Hour, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			at, news := start, 0
			for _, i := range c.instances {
				at = at.Add(c.every)
				if l.add("lab-01", wire.Report{Instance: strings.Trim(string(i), "-")}, at) {
					news++
				}
			}
			if got := l.record("lab-01").Assess(fleet.Moment{Now: at}).Cloned; got != c.cloned || news != c.news {
				t.Errorf("cloned %v, said %d times; want %v, %d times", got, news, c.cloned, c.news)
			}
			if l.record("lab-01").Assess(fleet.Moment{Now: at.Add(25 * time.Hour)}).Cloned {
				t.Error("still cloned a day later")
			}
		})
	}
}

func FuzzRecord(f *testing.F) {
	b, err := json.Marshal(fleet.Record{Version: 1, ReceivedAt: start, CountedAt: start, Gaps: []int64{300}, Machines: []fleet.Machine{{Instance: "a", LastAt: start}}, Samples: []fleet.Sample{{At: 1, Free: 2}}})
	fixture.Must(f, err)
	f.Add(b)
	f.Add([]byte(`{"schema_version":1,"gaps":[-9223372036854775808],"free_bytes_by_hour":[{"at":-9223372036854775808,"free":9223372036854775807}],"report":{"interval_seconds":4503599627370496}}`))
	dir := f.TempDir()
	data, err := durable.Open(dir)
	fixture.Must(f, err)
	fixture.Must(f, os.Mkdir(filepath.Join(dir, "reports"), 0o750))
	f.Fuzz(func(t *testing.T, content []byte) {
		fixture.Must(t, os.WriteFile(filepath.Join(dir, "reports", "lab-01.report"), content, 0o640))
		all, _, err := fleet.Read(data)
		fixture.Must(t, err)
		r, found := all["lab-01"]
		if !found {
			return
		}
		at := fleet.Moment{Now: start}
		r.Problems(at)
		h := r.Assess(at)
		if h.SilentFor < 0 || h.FullIn < 0 || h.Undelivered < 0 || h.Absent < 0 {
			t.Errorf("got %+v", h)
		}
	})
}

// BenchmarkNote keeps a report whose record is as large as after a week.
func BenchmarkAdd(b *testing.B) {
	data, err := durable.Open(b.TempDir())
	fixture.Must(b, err)
	reports, err := fleet.Open(data, func(episode.Name, time.Time) (fleet.Count, bool, error) { return fleet.Count{}, false, nil }, start)
	fixture.Must(b, err)
	at := start
	r := wire.Report{Version: "1.4", Instance: "a", Interval: 300}
	for range 200 {
		at = at.Add(time.Hour)
		_, err := reports.Add("lab-01", r, at)
		fixture.Must(b, err)
	}
	for b.Loop() {
		at = at.Add(5 * time.Minute)
		if _, err := reports.Add("lab-01", r, at); err != nil {
			b.Fatal(err)
		}
	}
}

func TestForgottenHostHasNoRecord(t *testing.T) {
	l := newLab(t)
	l.add("lab-01", wire.Report{}, start)
	l.add("lab-02", wire.Report{}, start)
	fixture.Must(t, fleet.Forget(l.data, "lab-01", "lab-03"))
	if all, _, err := fleet.Read(l.data); err != nil || len(all) != 1 || all["lab-02"].Version != 1 {
		t.Errorf("got %v, %v", all, err)
	}
	l.add("lab-01", wire.Report{}, start)
}

// TestCountingTakesAPartOfTheTime: a large directory is not read for each report.
func TestCountingTakesAPartOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{T: t, dir: t.TempDir()}
		var err error
		l.data, err = durable.Open(l.dir)
		fixture.Must(t, err)
		defer l.data.Close()
		counts := 0
		l.reports, err = fleet.Open(l.data, func(episode.Name, time.Time) (fleet.Count, bool, error) {
			time.Sleep(3 * time.Second)
			counts++
			return fleet.Count{Archives: int64(counts), LastChange: time.Now()}, true, nil
		}, time.Now())
		fixture.Must(t, err)
		defer l.reports.Close()
		for range 120 {
			time.Sleep(10 * time.Second)
			l.add("lab-01", wire.Report{}, time.Now())
		}
		if got := l.record("lab-01").Stored; counts > 6 || counts < 3 || got != int64(counts) {
			t.Errorf("counted %d times in about 20 minutes, of 3 s each, and kept %d", counts, got)
		}
	})
}
