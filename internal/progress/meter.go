package progress

import "time"

// A rate is the average over the last rateWindow. It is unknown until samples span minSpan.
const (
	rateWindow = 10 * time.Second
	minSpan    = time.Second
)

// meter measures how fast a count grows.
type meter struct {
	samples []sample // of the last [rateWindow], oldest first
}

type sample struct {
	at time.Time
	n  int64
}

// add records that the count is n. If it is smaller than before, measuring starts over.
func (m *meter) add(now time.Time, n int64) {
	if last := len(m.samples) - 1; last >= 0 && n < m.samples[last].n {
		m.samples = m.samples[:0]
	}
	m.samples = append(m.samples, sample{now, n})
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= rateWindow {
		m.samples = m.samples[1:]
	}
}

// rate returns the count per second, or 0 if it is unknown.
func (m *meter) rate() float64 {
	if len(m.samples) < 2 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	span := last.at.Sub(first.at)
	if span < minSpan {
		return 0
	}
	return float64(last.n-first.n) / span.Seconds()
}
