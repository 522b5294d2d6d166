package activity

import (
	"fmt"
	"io"
	"maps"
	"time"

	"cis490/internal/episode"
	"cis490/internal/index"
)

// Limits on reading the index.
const (
	// maxRead is the maximum number of bytes of the index to read. A row has about 250 bytes.
	maxRead = 64 << 20
	// maxOldRows is the number of consecutive rows from before the first day after which reading stops.
	// It is large because the clock may have been wrong for a while: a Raspberry Pi without a battery
	// starts in the past.
	maxOldRows = 1024
)

// Arrivals counts the rows of an index by host and day. Its zero value has read nothing. It is not safe
// for concurrent use.
type Arrivals struct {
	end    int64 // offset up to which the index was read
	since  time.Time
	total  days
	recent []Arrival
	hosts  map[episode.Name]*hostArrivals
	pruned int64 // the day on which hosts without arrivals were removed
}

type hostArrivals struct {
	days   days
	recent []Arrival
}

// Read reads what was appended to the index, whose size is given, since the last call. The first call
// reads the last two weeks, backward from the end. Another process may append to the index during the call.
func (a *Arrivals) Read(r io.ReaderAt, size int64, now time.Time) error {
	if a.hosts == nil || size < a.end || size-a.end > maxRead || !endsLine(r, a.end) { // the index was replaced or truncated
		*a = Arrivals{hosts: make(map[episode.Name]*hostArrivals)}
		return a.readBackward(r, size, now)
	}
	for row, err := range index.RowsBetween(r, a.end, size) {
		if err != nil {
			return fmt.Errorf("read new arrivals: %w", err)
		}
		a.end = row.End
		a.addRow(row.Row, now, prepend)
	}
	return nil
}

// endsLine reports whether a line ends at an offset.
func endsLine(r io.ReaderAt, offset int64) bool {
	if offset == 0 {
		return true
	}
	var b [1]byte
	n, _ := r.ReadAt(b[:], offset-1)
	return n == 1 && b[0] == '\n'
}

// readBackward reads rows from the end until it has passed the last two weeks.
func (a *Arrivals) readBackward(r io.ReaderAt, size int64, now time.Time) error {
	first, to, old := dayOf(now)-Days+1, max(0, size-maxRead), 0
	last := index.PlacedRow{Start: size}
	for row, err := range index.RowsBackward(r, size, to) {
		if err != nil {
			a.hosts = nil // the next call starts over
			return fmt.Errorf("read arrivals: %w", err)
		}
		a.end, last = max(a.end, row.End), row
		old++
		if dayOf(row.ReceivedAt) >= first {
			old = 0
		}
		if row.Backfilled { // its time is a file's, and unrelated to its position in the index
			old = 0
		}
		if old > maxOldRows {
			return nil
		}
		a.addRow(row.Row, now, appendLast)
	}
	if to > 0 {
		a.since = last.ReceivedAt
	}
	return nil
}

// addRow counts a row. A row dated tomorrow counts for today: no row is dated before the preceding one, so
// it may be ahead of the clock.
func (a *Arrivals) addRow(row index.Row, now time.Time, add func([]Arrival, Arrival, int) []Arrival) {
	today := dayOf(now)
	day := dayOf(row.ReceivedAt)
	if day == today+1 {
		day = today
	}
	if day <= today-Days || day > today {
		return
	}
	a.total.add(day, row.Size)
	h := a.hosts[row.Key.Host]
	if h == nil && len(a.hosts) == maxHosts && a.pruned != today { // only the next day makes more of them removable
		a.pruned = today
		maps.DeleteFunc(a.hosts, func(_ episode.Name, h *hostArrivals) bool {
			counts := h.days.lastCounts(today)
			return Sum(counts[:]) == Count{}
		})
	}
	if h == nil && len(a.hosts) < maxHosts {
		h = new(hostArrivals)
		a.hosts[row.Key.Host] = h
	}
	if h != nil {
		h.days.add(day, row.Size)
	}
	if row.Backfilled {
		return // it arrived at an unknown earlier time
	}
	arrival := Arrival{row.Key, row.ReceivedAt, row.Size, row.Repaired}
	a.recent = add(a.recent, arrival, maxRecent)
	if h != nil {
		h.recent = add(h.recent, arrival, maxHostRecent)
	}
}

// appendLast appends an arrival that is older than all others, unless the list is full.
func appendLast(list []Arrival, a Arrival, limit int) []Arrival {
	if len(list) == limit {
		return list
	}
	return append(list, a)
}

// prepend returns a new list that begins with an arrival that is newer than all others. Readers may still
// hold the old list.
func prepend(list []Arrival, a Arrival, limit int) []Arrival {
	return append([]Arrival{a}, list[:min(len(list), limit-1)]...)
}

// Summary is what arrived in the last [Days] days.
type Summary struct {
	// Since is the time of the first counted arrival if the index is too long to be read completely.
	// Otherwise it is zero.
	Since  time.Time
	Total  [Days]Count // today is last
	Recent []Arrival   // of all hosts, newest first
	Hosts  map[episode.Name]HostSummary
}

// HostSummary is what arrived from one host.
type HostSummary struct {
	Days   [Days]Count
	Recent []Arrival // newest first
}

// Summary returns what has arrived in the last [Days] days.
func (a *Arrivals) Summary(now time.Time) Summary {
	s := Summary{Total: a.total.lastCounts(dayOf(now)), Recent: a.recent, Hosts: make(map[episode.Name]HostSummary, len(a.hosts))}
	if dayOf(a.since) > dayOf(now)-Days {
		s.Since = a.since
	}
	for name, h := range a.hosts {
		s.Hosts[name] = HostSummary{h.days.lastCounts(dayOf(now)), h.recent}
	}
	return s
}

// days is a ring buffer of counts: the index of a day is its number modulo the length.
type days [Days + 2]struct {
	day int64
	Count
}

func (d *days) add(day, size int64) {
	at := &d[day%int64(len(d))]
	if at.day < day {
		at.day, at.Count = day, Count{}
	}
	if at.day == day {
		at.addOne(size)
	}
}

// lastCounts returns the counts of the last [Days] days.
func (d *days) lastCounts(today int64) (counts [Days]Count) {
	for i := range counts {
		day := today - int64(Days-1-i)
		if at := d[day%int64(len(d))]; at.day == day {
			counts[i] = at.Count
		}
	}
	return counts
}

// dayOf returns the number of UTC days since 1970-01-01. Earlier times count as that day.
func dayOf(t time.Time) int64 { return max(0, t.Unix()/(24*60*60)) }
