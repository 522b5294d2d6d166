package shipper

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

// Timetable says how many bytes a second may be sent, by the time of the day: one
// rate for the whole day, or times from which rates hold, "08:00 1MiB, 18:00 off".
// The empty one is no limit.
type Timetable string

// UnmarshalText reads a timetable.
func (t *Timetable) UnmarshalText(text []byte) error {
	if _, err := parseTimetable(string(text)); err != nil {
		return err
	}
	*t = Timetable(text)
	return nil
}

// At returns the rate that holds at a time, or 0 if there is no limit.
func (t Timetable) At(now time.Time) config.Bytes { return t.entries().at(now) }

func (t Timetable) entries() timetable {
	read, _ := parseTimetable(string(t)) // it was good when it was read
	return read
}

// bare returns an error for each rate without a unit, as [config.LoadSizes] does for sizes.
func (t Timetable) bare(path string) error {
	var errs []error
	for part := range strings.SplitSeq(string(t), ",") {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		rate := words[len(words)-1]
		if n, err := strconv.ParseInt(rate, 10, 64); err == nil && n > 0 {
			exact, _ := config.Bytes(n).MarshalText()
			errs = append(errs, fmt.Errorf("%s: bandwidth_limit: %s has no unit, and is taken as bytes: write %q", path, rate, exact))
		}
	}
	return errors.Join(errs...)
}

// timetable is a [Timetable] that was read.
type timetable []entry

type entry struct {
	from  time.Duration // since midnight
	limit config.Bytes  // 0: none
}

func parseTimetable(s string) (timetable, error) {
	var read timetable
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		e, err := parseEntry(part)
		if err != nil {
			return nil, err
		}
		if n := len(read); n > 0 && e.from <= read[n-1].from {
			return nil, fmt.Errorf("%+q: the times must go up", part)
		}
		read = append(read, e)
	}
	return read, nil
}

func parseEntry(s string) (entry, error) {
	var e entry
	at, limit, timed := strings.Cut(s, " ")
	if !timed {
		at, limit = "00:00", s
	}
	clock, err := time.Parse("15:04", at)
	if err != nil {
		return e, fmt.Errorf(`%+q: write a rate such as "1MiB", or times with rates such as "08:00 1MiB, 18:00 off"`, s)
	}
	e.from = time.Duration(clock.Hour())*time.Hour + time.Duration(clock.Minute())*time.Minute
	if limit = strings.TrimSpace(limit); limit == "off" {
		return e, nil
	}
	return e, e.limit.UnmarshalText([]byte(limit))
}

// at returns the rate that holds at a time. Before the first entry of a day the
// last one of the day before holds.
func (t timetable) at(now time.Time) config.Bytes {
	if len(t) == 0 {
		return 0
	}
	h, m, s := now.Clock()
	since := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	limit := t[len(t)-1].limit
	for _, e := range t {
		if e.from <= since {
			limit = e.limit
		}
	}
	return limit
}

// least returns the smallest rate that is a limit, or 0.
func (t timetable) least() config.Bytes {
	least := config.Bytes(0)
	for _, e := range t {
		if e.limit > 0 && (least == 0 || e.limit < least) {
			least = e.limit
		}
	}
	return least
}

// burst is how much may be sent at once below a limit.
const burst = 64 << 10

// throttle keeps all senders together below a timetable's limit.
type throttle struct {
	table   timetable
	limiter *rate.Limiter
}

func newThrottle(t Timetable) *throttle {
	return &throttle{t.entries(), rate.NewLimiter(rate.Inf, burst)}
}

// wait waits until n bytes may be sent, of which there must be at most a burst.
func (t *throttle) wait(ctx context.Context, n int) error {
	limit := rate.Inf
	if now := t.table.at(time.Now()); now > 0 {
		limit = rate.Limit(now)
	}
	if t.limiter.Limit() != limit {
		t.limiter.SetLimit(limit)
	}
	return t.limiter.WaitN(ctx, n)
}

// throttled reads no faster than may be sent.
type throttled struct {
	io.ReaderAt
	ctx context.Context
	*throttle
}

func (t throttled) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; ; {
		part := p[done:min(len(p), done+burst)]
		if err := t.wait(t.ctx, len(part)); err != nil {
			return done, err
		}
		n, err := t.ReaderAt.ReadAt(part, off+int64(done))
		if done += n; err != nil || done == len(p) {
			return done, err
		}
	}
}
