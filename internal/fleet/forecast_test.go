package fleet_test

import (
	"testing"
	"time"

	"cis490/internal/fleet"
)

// TestForecastIsJudged by how much time is left. A disk that is full in a moment is not one that never fills.
func TestForecastIsJudged(t *testing.T) {
	hours := func(h float64) *float64 { return &h }
	for _, c := range []struct {
		hours *float64
		want  fleet.Severity
	}{
		{nil, fleet.OK},
		{hours(0), fleet.Critical},
		{hours(23.9), fleet.Critical},
		{hours(24), fleet.Warning},
		{hours(71.9), fleet.Warning},
		{hours(72), fleet.OK},
		{hours(10_000), fleet.OK},
	} {
		if got := fleet.ForecastSeverity(fleet.FromHours(c.hours)); got != c.want {
			t.Errorf("%v hours: got %v, want %v", c.hours, got, c.want)
		}
	}
	for _, d := range []time.Duration{time.Hour, 36 * time.Hour} {
		h := fleet.InHours(d)
		if got := fleet.FromHours(&h); got != d {
			t.Errorf("%v there and back is %v", d, got)
		}
	}
}
