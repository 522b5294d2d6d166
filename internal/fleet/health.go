package fleet

import (
	"math"
	"slices"
	"time"
)

// Moment is when a record is judged, and what else is known then.
type Moment struct {
	Now time.Time
	// ReceiverSince is when the receiver started. Before that no host could report.
	ReceiverSince time.Time
	// ReceiverDown means that the receiver does not run, so that no host can report.
	ReceiverDown bool
	// Shared means that other receivers hear the hosts too, so that a contact here says little, and
	// SharedAt is when their reports were last read. Since SharedSince they have been read all the time:
	// before that, none of them could store what it heard.
	Shared      bool
	SharedAt    time.Time
	SharedSince time.Time
	// LastContact is when the host last connected, to about ten minutes. It is zero if unknown.
	LastContact time.Time
}

// Health is what a [Record] means at one moment.
type Health struct {
	// SilentFor is how long the host has not reported, if that is longer than its own rhythm.
	SilentFor time.Duration
	// Connects means that a silent host connects all the same.
	Connects bool
	// FromTheFuture means that the report is from after now: the receiver's clock went back.
	FromTheFuture bool
	// Cloned reports that two machines used the certificate of the host within the last day.
	Cloned bool
	// Undelivered are the episodes that the host has finished and the receiver has not stored, those
	// held included.
	Undelivered int64
	// Absent is how many more episodes the host has delivered, by its own count, than the receiver has
	// archives of it.
	Absent int64
	// FullIn is when the host's disk reaches its min_free, by the faster of the rates of the last day
	// and the last week; zero if it does not fill.
	FullIn time.Duration
}

// Limits of a host's silence.
const (
	missedReports    = 3 // of a host that says how often it reports
	minSilence       = 10 * time.Minute
	minTimerSilence  = time.Hour
	unknownRhythm    = 26 * time.Hour // of a host that has reported only a few times
	minGapsForRhythm = 3
	maxRhythm        = 100 * 24 * time.Hour
	contactAccuracy  = 20 * time.Minute
	maxSharedAge     = 5 * time.Minute // of what other receivers have heard
)

// heardSince returns since when a host whose last report came at a time could have been heard.
func (at Moment) heardSince(heard time.Time) time.Time {
	for _, since := range []time.Time{at.ReceiverSince, at.SharedSince} {
		if since.After(heard) && !since.After(at.Now) {
			heard = since
		}
	}
	return heard
}

// lacksReports reports whether a host may have reported to another receiver.
func (at Moment) lacksReports() bool { return at.Shared && at.Now.Sub(at.SharedAt) > maxSharedAge }

// Assess judges a record.
func (r Record) Assess(at Moment) Health {
	h := Health{
		FromTheFuture: r.ReceivedAt.After(at.Now.Add(maxClockAhead)),
		Cloned:        !r.ClonedAt.IsZero() && at.Now.Sub(r.ClonedAt) < cloneMemory,
		Undelivered:   r.Report.Waiting + r.Report.HeldTotal(),
	}
	if !r.CountedAt.IsZero() {
		h.Absent = max(0, r.Report.Shipped-r.Stored)
	}
	if r.Report.Disk.SizeBytes > 0 {
		h.FullIn = TimeUntilFull(r.Samples, Sample{r.ReceivedAt.Unix(), r.Report.Disk.FreeBytes}, r.Report.Disk.MinFree)
	}
	silence := at.Now.Sub(at.heardSince(r.ReceivedAt))
	if limit, _ := r.longestSilence(); !at.ReceiverDown && !at.lacksReports() && silence > limit {
		h.SilentFor = at.Now.Sub(r.ReceivedAt)
		h.Connects = at.LastContact.After(r.ReceivedAt.Add(contactAccuracy)) && at.Now.Sub(at.LastContact) < limit+contactAccuracy
	}
	return h
}

// longestSilence returns how long a host may be silent: by the interval that it states, or by its last
// gaps if a timer starts it. It returns false if too little is known of that timer.
func (r Record) longestSilence() (limit time.Duration, known bool) {
	if r.Report.Interval > 0 {
		return max(minSilence, missedReports*seconds(r.Report.Interval)), true
	}
	gaps := slices.Sorted(slices.Values(r.Gaps))
	if len(gaps) < minGapsForRhythm {
		if len(gaps) == 0 {
			return unknownRhythm, false
		}
		return max(unknownRhythm, missedReports*seconds(gaps[len(gaps)-1])), false
	}
	return max(minTimerSilence, missedReports*seconds(gaps[len(gaps)/2])), true
}

// InHours returns a time in hours, to a tenth.
func InHours(d time.Duration) float64 { return math.Round(d.Hours()*10) / 10 }

// FromHours returns the time of [InHours], or 0 if hours is nil. A time of less than 0.05 h is not 0.
func FromHours(hours *float64) time.Duration {
	if hours == nil {
		return 0
	}
	return max(time.Second, time.Duration(*hours*float64(time.Hour)))
}

// seconds returns a time of a report, which may be any.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(0, n), int64(maxRhythm/time.Second))) * time.Second
}

// Limits of a forecast.
const (
	minForecastWindow = 6 * time.Hour
	maxForecast       = 1000 * 24 * time.Hour
)

// TimeUntilFull returns in what time free space falls to the floor, by the faster of the rates of the
// last day and the last week, or 0 if it does not fall. Space that was used and given back within
// that time does not count.
func TimeUntilFull(samples []Sample, now Sample, floor int64) time.Duration {
	shortest := time.Duration(0)
	for _, window := range []time.Duration{24 * time.Hour, 7 * 24 * time.Hour} {
		i := slices.IndexFunc(samples, func(s Sample) bool { return s.At >= now.At-int64(window/time.Second) })
		if i < 0 {
			continue
		}
		first := samples[i]
		used, took := first.Free-now.Free, time.Duration(now.At-first.At)*time.Second
		if used <= 0 || took < minForecastWindow {
			continue
		}
		left := float64(max(0, now.Free-floor)) / float64(used) * float64(took)
		if left < float64(maxForecast) && (shortest == 0 || time.Duration(left) < shortest) {
			shortest = max(1, time.Duration(left))
		}
	}
	return shortest
}
