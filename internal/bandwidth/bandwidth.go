// Package bandwidth limits how many bytes per second are sent, by the time of day. A [Timetable] is
// parsed from the configuration. The readers of a [Limiter] wait as long as necessary, or until
// their context ends.
//
// Invariant: all readers of one [Limiter] together stay below the limit of its timetable, apart
// from one burst of 64 KiB.
package bandwidth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"cis490/internal/config"
)

// Timetable says how many bytes per second may be sent, by the time of day: one rate for the
// whole day, or times with the rates that apply from then on, "08:00 1MiB, 18:00 off". The
// empty one sets no limit.
type Timetable string

// UnmarshalText parses a timetable.
func (t *Timetable) UnmarshalText(text []byte) error {
	if _, err := parseTimetable(string(text)); err != nil {
		return err
	}
	*t = Timetable(text)
	return nil
}

// LimitAt returns the rate at a time, or 0 if there is no limit.
func (t Timetable) LimitAt(now time.Time) config.Bytes { return t.parsedEntries().limitAt(now) }

// LowestLimit returns the lowest rate that is a limit, or 0.
func (t Timetable) LowestLimit() config.Bytes {
	lowest := config.Bytes(0)
	for _, e := range t.parsedEntries() {
		if e.limit > 0 && (lowest == 0 || e.limit < lowest) {
			lowest = e.limit
		}
	}
	return lowest
}

func (t Timetable) parsedEntries() timetable {
	entries, _ := parseTimetable(string(t)) // UnmarshalText has checked it
	return entries
}

// CheckUnits returns an error for each rate without a unit, as [config.LoadSizes] does for
// sizes.
func (t Timetable) CheckUnits(path string) error {
	var errs []error
	for part := range strings.SplitSeq(string(t), ",") {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		limit := words[len(words)-1]
		if n, err := strconv.ParseInt(limit, 10, 64); err == nil && n > 0 {
			exact, _ := config.Bytes(n).MarshalText()
			errs = append(errs, fmt.Errorf("%s: bandwidth_limit: %s has no unit, and is taken as bytes: write %q", path, limit, exact))
		}
	}
	return errors.Join(errs...)
}

// timetable is a parsed [Timetable].
type timetable []timetableEntry

type timetableEntry struct {
	from  time.Duration // since midnight
	limit config.Bytes  // 0: none
}

func parseTimetable(s string) (timetable, error) {
	var entries timetable
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		e, err := parseEntry(part)
		if err != nil {
			return nil, err
		}
		if n := len(entries); n > 0 && e.from <= entries[n-1].from {
			return nil, fmt.Errorf("%+q: the times must go up", part)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseEntry(s string) (timetableEntry, error) {
	var e timetableEntry
	at, limit, timed := strings.Cut(s, " ")
	if !timed {
		at, limit = "00:00", s
	}
	clock, err := time.Parse("15:04", at)
	if err != nil {
		return e, fmt.Errorf(`%+q: write a rate such as "1MiB", or times with rates such as "08:00 1MiB, 18:00 off"`, s)
	}
	e.from = time.Duration(clock.Hour())*time.Hour + time.Duration(clock.Minute())*time.Minute
	limit = strings.TrimSpace(limit)
	if limit == "off" {
		return e, nil
	}
	return e, e.limit.UnmarshalText([]byte(limit))
}

// limitAt returns the rate at a time. Before the first entry of a day the last one of the day
// before applies.
func (t timetable) limitAt(now time.Time) config.Bytes {
	if len(t) == 0 {
		return 0
	}
	h, m, s := now.Clock()
	sinceMidnight := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	limit := t[len(t)-1].limit
	for _, e := range t {
		if e.from <= sinceMidnight {
			limit = e.limit
		}
	}
	return limit
}

// maxBurst is the maximum number of bytes that are read at once below a limit.
const maxBurst = 64 << 10

// Limiter keeps all of its readers together below the limit of a timetable.
type Limiter struct {
	table   timetable
	limiter *rate.Limiter
}

// NewLimiter returns a limiter for a timetable.
func NewLimiter(t Timetable) *Limiter {
	return &Limiter{t.parsedEntries(), rate.NewLimiter(rate.Inf, maxBurst)}
}

// waitBytes waits until n bytes may be sent. N must not be above maxBurst.
func (l *Limiter) waitBytes(ctx context.Context, n int) error {
	limit := rate.Inf
	if now := l.table.limitAt(time.Now()); now > 0 {
		limit = rate.Limit(now)
	}
	if l.limiter.Limit() != limit {
		l.limiter.SetLimit(limit)
	}
	return l.limiter.WaitN(ctx, n)
}

// LimitReader returns a reader of r that waits for the limit, or until ctx ends.
func (l *Limiter) LimitReader(ctx context.Context, r io.ReaderAt) io.ReaderAt {
	return limitedReader{r, ctx, l}
}

type limitedReader struct {
	io.ReaderAt
	ctx context.Context // of the request that reads
	*Limiter
}

func (r limitedReader) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; ; {
		part := p[done:min(len(p), done+maxBurst)]
		if err := r.waitBytes(r.ctx, len(part)); err != nil {
			return done, err
		}
		n, err := r.ReaderAt.ReadAt(part, off+int64(done))
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}
