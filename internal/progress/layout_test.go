package progress

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// rowsAfter returns the rows for the last of several snapshots, which are one second apart.
func rowsAfter(width, height int, snapshots ...Status) []string {
	var l layout
	var rows []string
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, s := range snapshots {
		rows = l.rows(s, now, width, height)
		now = now.Add(time.Second)
	}
	return rows
}

const mib = 1 << 20

func TestRowShowsBytesRateAndTimeLeft(t *testing.T) {
	first := Status{What: "reading archives", TotalItems: 4, TotalBytes: 400 * mib}
	then := Status{What: "reading archives", Items: 1, TotalItems: 4, Bytes: 100 * mib, TotalBytes: 400 * mib, Moved: 100 * mib}
	for _, c := range []struct {
		width int
		want  string
	}{
		{100, "reading archives 1/4  [######..................]  25%  100 MiB/400 MiB  100 MiB/s  3s left"},
		{80, "reading archives 1/4  [###..........]  25%  100 MiB/400 MiB  100 MiB/s  3s left"},
		{60, "reading archives 1/4  25%  100 MiB/400 MiB  3s left"},
		{50, "reading archives 1/4  [##.........]  25%  3s left"},
		{40, "reading archives 1/4  25%  3s left"},
		{24, "reading archives 1/4"},
		{12, "reading ..."},
		{4, "rea"},
		{1, ""},
	} {
		got := rowsAfter(c.width, 24, first, then)
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%d columns: got %q, want %q", c.width, got, c.want)
		}
	}
}

func TestUnknownTotalShowsCountAndRate(t *testing.T) {
	got := rowsAfter(80, 24, Status{What: "comparing"}, Status{What: "comparing", Items: 3, Bytes: 5 * mib, Moved: 5 * mib})
	if want := "comparing 3  5.0 MiB  5.0 MiB/s"; got[0] != want {
		t.Errorf("got %q, want %q", got[0], want)
	}
	got = rowsAfter(80, 24, Status{What: "episodes", TotalItems: 40}, Status{What: "episodes", Items: 10, TotalItems: 40})
	if want := "episodes 10/40  [######..................]  25%  3s left"; got[0] != want {
		t.Errorf("got %q, want %q", got[0], want)
	}
}

// A total that grows must not promise an early end: the slower of bytes and items counts.
func TestGrowingTotalCountsItems(t *testing.T) {
	got := rowsAfter(100, 24,
		Status{What: "episodes", TotalItems: 100, TotalBytes: 20 * mib, Growing: true},
		Status{What: "episodes", Items: 10, TotalItems: 100, Bytes: 10 * mib, TotalBytes: 20 * mib, Moved: 10 * mib, Growing: true})
	if want := "episodes 10/100  [##......................]  10%  10 MiB/20 MiB  10 MiB/s  9s left"; got[0] != want {
		t.Errorf("got %q, want %q", got[0], want)
	}
}

func TestFourTransfersHaveRowsAndTheRestIsCounted(t *testing.T) {
	s := Status{What: "episodes", TotalItems: 9}
	for i := range 7 {
		s.Transfers = append(s.Transfers, Transfer{Name: fmt.Sprintf("run-%d", i), State: "sending", Bytes: mib, Size: 4 * mib, Moved: mib})
	}
	before := s
	before.Transfers = nil
	for _, transfer := range s.Transfers {
		transfer.Moved = 0
		before.Transfers = append(before.Transfers, transfer)
	}
	got := strings.Join(rowsAfter(80, 24, before, s), "\n")
	want := `episodes 0/9  [........................]  0%
  run-0  sending  1.0 MiB/4.0 MiB  1.0 MiB/s
  run-1  sending  1.0 MiB/4.0 MiB  1.0 MiB/s
  run-2  sending  1.0 MiB/4.0 MiB  1.0 MiB/s
  run-3  sending  1.0 MiB/4.0 MiB  1.0 MiB/s
  +3 more`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := rowsAfter(80, 4, before, s); len(got) != 3 {
		t.Errorf("a terminal of 4 lines has %d rows, want 3", len(got))
	}
}

// Counts of different moments, as an item is added while its directory is counted, must not end the command.
func TestCountsMayExceedTheirTotals(t *testing.T) {
	for done, want := range map[int64]string{5: "episodes 5/4  [########################]  100%", -1: "episodes -1/4  [........................]  0%"} {
		if got := rowsAfter(80, 24, Status{What: "episodes", Items: done, TotalItems: 4}); got[0] != want {
			t.Errorf("got %q, want %q", got[0], want)
		}
	}
}

// The rest of what was begun earlier takes as long as what was done since.
func TestTimeLeftComesFromWhatWasDoneSinceTheStart(t *testing.T) {
	then := Status{What: "episodes", Items: 60, TotalItems: 100}
	got := rowsAfter(80, 24, Status{What: "episodes", Items: 50, TotalItems: 100}, then)
	if !strings.HasSuffix(got[0], "  4s left") {
		t.Errorf("got %q", got[0])
	}
	l, now := layout{}, time.Now()
	l.rows(Status{What: "episodes", TotalItems: 100}, now, 80, 24)
	if got := l.rows(then, now.Add(minSpan/2), 80, 24); strings.Contains(got[0], "left") {
		t.Errorf("too early: %q", got[0])
	}
	if got := timeFor(1<<62, 1e-6); got != 1000*24*time.Hour {
		t.Errorf("an eternity: got %v", got)
	}
}

// Names come from malware.
func TestHostileNameIsPrintableAndClipped(t *testing.T) {
	for _, name := range []string{"esc\x1b[2J", "a\nb\rc", "\xff\u202e", strings.Repeat("x", 1000), strings.Repeat("\x1b", 1000)} {
		s := Status{What: "episodes", TotalItems: 1, Transfers: []Transfer{{Name: name, State: "packing", Bytes: 5 * mib}}}
		for _, width := range []int{1, 2, 3, 10, 20, 40, 80, 200} {
			for _, row := range rowsAfter(width, 24, s, s) {
				if len(row) >= width && row != "" {
					t.Errorf("%q at %d columns: %d bytes in %q", name, width, len(row), row)
				}
				if strings.ContainsFunc(row, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("%q: row %q is not printable ASCII", name, row)
				}
			}
		}
	}
}

// The rate covers the last seconds, without what a resumed upload skips.
func TestRateIsOfTheLastSeconds(t *testing.T) {
	var m meter
	now := time.Now()
	for i := range 100 {
		n := int64(i)
		if i >= 50 {
			n = 50 + 10*int64(i-50)
		}
		m.add(now.Add(time.Duration(i)*time.Second), n)
	}
	if got := m.rate(); got != 10 {
		t.Errorf("rate: got %v, want 10", got)
	}
	if n := len(m.samples); n > 12 {
		t.Errorf("%d samples are kept", n)
	}
	m.add(now.Add(101*time.Second), 0)
	if got := m.rate(); got != 0 {
		t.Errorf("rate after a restart: got %v, want 0", got)
	}
}

func TestTimeLeftIsShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "", time.Millisecond: "1s left", 59 * time.Second: "59s left", 61 * time.Second: "1m01s left",
		90 * time.Minute: "1h30m left", 47 * time.Hour: "47h00m left", 49 * time.Hour: "2d left",
	} {
		if got := leftText(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
