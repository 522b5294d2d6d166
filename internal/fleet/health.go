package fleet

import (
	"slices"
	"time"
)

// Health is what a [Record] means at one moment.
type Health struct {
	// SilentFor is how long the host has not reported, if that is longer than its own rhythm.
	SilentFor time.Duration
	// Cloned reports that two machines used the certificate of the host within the last day.
	Cloned bool
	// Undelivered are the episodes that the host has finished and the receiver has not stored, those
	// held included.
	Undelivered int64
	// Absent is how many more episodes the host has delivered, by its own report, than the receiver has
	// archives of it.
	Absent int64
	// FullIn is when the host's disk reaches its min_free, by the faster of the rates of the last day and
	// the last week; zero if it does not fill.
	FullIn time.Duration
}

// Limits of a host's silence.
const (
	missedReports     = 3 // of a host that says how often it reports
	minSilence        = 10 * time.Minute
	unknownRhythm     = 26 * time.Hour // of a host that has reported only a few times
	minGapsForRhythm  = 3
	maxForecast       = 1000 * 24 * time.Hour
	minForecastWindow = time.Hour
)

// Assess judges a record at now.
func (r Record) Assess(now time.Time) Health {
	h := Health{
		Cloned:      !r.ClonedAt.IsZero() && now.Sub(r.ClonedAt) < cloneMemory,
		Undelivered: r.Report.Waiting + r.Report.HeldTotal(),
		Absent:      max(0, r.Report.Shipped-r.Stored),
		FullIn:      TimeUntilFull(r.Samples, Sample{r.ReceivedAt.Unix(), r.Report.Disk.FreeBytes}, r.Report.Disk.MinFree),
	}
	if silence := now.Sub(r.ReceivedAt); silence > r.longestSilence() {
		h.SilentFor = silence
	}
	return h
}

// longestSilence returns how long a host may be silent: by the interval that it states, or by its last
// reports.
func (r Record) longestSilence() time.Duration {
	switch {
	case r.Report.Interval > 0:
		return max(minSilence, missedReports*time.Duration(min(r.Report.Interval, int64(maxForecast/time.Second)))*time.Second)
	case len(r.Gaps) < minGapsForRhythm:
		return unknownRhythm
	}
	return max(minSilence, missedReports*time.Duration(min(slices.Max(r.Gaps), int64(maxForecast/time.Second)))*time.Second)
}

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
