package progress

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"cis490/internal/printable"
)

// maxTransfers is the maximum number of transfers that have a row.
const maxTransfers = 4

// layout turns snapshots into rows. It keeps earlier counts to compute rates.
type layout struct {
	began     time.Time
	first     int64 // items done at the first snapshot
	total     meter
	transfers map[string]*meter
}

// rows returns the rows for a snapshot, each narrower than width, and fewer than height.
func (l *layout) rows(s Status, now time.Time, width, height int) []string {
	if l.began.IsZero() {
		l.began, l.first = now, s.Items
	}
	l.total.add(now, s.Moved)
	rows := []string{l.totalRow(s, now, width-1)}
	shown := s.Transfers[:min(len(s.Transfers), maxTransfers)]
	meters := make(map[string]*meter, len(shown))
	longest := 0
	for _, t := range shown {
		longest = max(longest, len(printable.Text(t.Name)))
	}
	for _, t := range shown {
		m := l.transfers[t.State+" "+t.Name]
		if m == nil {
			m = &meter{}
		}
		m.add(now, t.Moved)
		meters[t.State+" "+t.Name] = m
		rows = append(rows, transferRow(t, m.rate(), longest, width-1))
	}
	l.transfers = meters
	if more := len(s.Transfers) - len(shown); more > 0 {
		rows = append(rows, clip(fmt.Sprintf("  +%d more", more), width-1))
	}
	return rows[:max(1, min(len(rows), height-1))]
}

// totalRow returns the row for the whole command. If it does not fit, the least important parts are left
// out first.
func (l *layout) totalRow(s Status, now time.Time, width int) string {
	done, total := s.Items, s.TotalItems
	if s.TotalBytes > 0 && !s.Growing {
		done, total = s.Bytes, s.TotalBytes
	}
	percent := ""
	if total > 0 {
		percent = fmt.Sprintf("%d%%", percentOf(done, total))
	}
	parts := []part{
		{text: countText(s.What, s.Items, s.TotalItems)},
		{text: percent, rank: 1},
		{text: bytesText(s.Bytes, s.TotalBytes), rank: 3},
		{text: rateText(l.total.rate()), rank: 4},
		{text: leftText(l.timeLeft(s, now)), rank: 2},
	}
	row := fitParts(parts, width)
	if space := width - len(row) - len("  []"); total > 0 && space >= minBar {
		bar := barText(done, total, min(space, maxBar))
		head, tail, _ := strings.Cut(row, "  ")
		return head + "  " + bar + "  " + tail
	}
	return row
}

// timeLeft returns how long the rest takes, or 0 if that is unknown.
func (l *layout) timeLeft(s Status, now time.Time) time.Duration {
	left := time.Duration(0)
	if s.TotalBytes > 0 {
		left = timeFor(s.TotalBytes-s.Bytes, l.total.rate())
	}
	if elapsed := now.Sub(l.began); s.TotalItems > 0 && (s.TotalBytes == 0 || s.Growing) && elapsed >= minSpan {
		rate := float64(s.Items-l.first) / elapsed.Seconds()
		left = max(left, timeFor(s.TotalItems-s.Items, rate))
	}
	return left
}

// timeFor returns how long n takes at a rate per second, or 0 if that is unknown.
func timeFor(n int64, rate float64) time.Duration {
	const maxTime = 1000 * 24 * time.Hour
	if n <= 0 || rate <= 0 {
		return 0
	}
	return time.Duration(min(float64(n)/rate, maxTime.Seconds()) * float64(time.Second))
}

// transferRow returns the row of a transfer. The longest name of all rows has longest bytes: names are
// padded to that, or clipped if there is not enough space.
func transferRow(t Transfer, rate float64, longest, width int) string {
	parts := []part{
		{text: fmt.Sprintf("%-7s", t.State)},
		{text: bytesText(t.Bytes, t.Size), rank: 1},
		{text: rateText(rate), rank: 2},
	}
	const indent, minName = "  ", 12
	right := fitParts(parts, max(0, width-len(indent)-min(longest, minName)-2))
	space := min(longest, max(0, width-len(indent)-2-len(right)))
	return clip(fmt.Sprintf("%s%-*s  %s", indent, space, clip(printable.Text(t.Name), space), right), width)
}

// part is a piece of a row. If a row does not fit, the parts with the highest rank are left out first.
type part struct {
	text string
	rank int // 0 is never left out
}

// fitParts joins the parts that fit into width, in order.
func fitParts(parts []part, width int) string {
	for maxRank := len(parts); ; maxRank-- {
		var words []string
		for _, p := range parts {
			if p.text != "" && p.rank <= maxRank {
				words = append(words, p.text)
			}
		}
		row := strings.Join(words, "  ")
		if len(row) <= width || maxRank == 0 {
			return clip(row, width)
		}
	}
}

// clip shortens s to width bytes, and ends it in dots if something is cut off.
func clip(s string, width int) string {
	const dots = "..."
	switch {
	case len(s) <= width:
		return s
	case width <= len(dots):
		return s[:max(0, width)]
	}
	return s[:width-len(dots)] + dots
}

// Widths of a bar between its brackets.
const (
	minBar = 8
	maxBar = 24
)

// barText returns a bar with width characters between its brackets.
func barText(done, total int64, width int) string {
	n := width * percentOf(done, total) / 100
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "]"
}

// percentOf returns the percentage of total that is done. The two may not be counted at the same moment.
func percentOf(done, total int64) int {
	return int(100 * (float64(min(max(done, 0), total)) / float64(total)))
}

func countText(what string, items, total int64) string {
	if total > 0 {
		return fmt.Sprintf("%s %d/%d", what, items, total)
	}
	return fmt.Sprintf("%s %d", what, items)
}

func bytesText(n, total int64) string {
	switch {
	case total > 0:
		return sizeText(n) + "/" + sizeText(total)
	case n > 0:
		return sizeText(n)
	}
	return ""
}

func sizeText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func rateText(perSecond float64) string {
	if perSecond < 1 {
		return ""
	}
	return sizeText(int64(perSecond)) + "/s"
}

// leftText describes the time that is left, in its two largest units.
func leftText(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds left", max(1, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds left", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm left", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd left", int(d.Hours()/24))
}
