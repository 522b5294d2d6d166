package fleet_test

import (
	"testing"
	"time"

	"cis490/internal/fleet"
	"cis490/internal/wire"
)

func TestHostIsSilentByItsOwnRhythm(t *testing.T) {
	night := []int64{86400, 86410, 86390}
	for name, c := range map[string]struct {
		interval int64
		gaps     []int64
		since    time.Duration
		at       fleet.Moment // besides its Now
		silent   bool
	}{
		"daemon, on time":            {interval: 300, since: 5 * time.Minute},
		"daemon, two missed":         {interval: 300, since: 14 * time.Minute},
		"daemon, three missed":       {interval: 300, since: 16 * time.Minute, silent: true},
		"fast daemon, patience":      {interval: 10, since: 9 * time.Minute},
		"fast daemon":                {interval: 10, since: 11 * time.Minute, silent: true},
		"timer, new, a day":          {gaps: []int64{600}, since: 25 * time.Hour},
		"timer, new, longer":         {gaps: []int64{600}, since: 27 * time.Hour, silent: true},
		"timer, new, weekly":         {gaps: []int64{604800}, since: 8 * 24 * time.Hour},
		"timer, every ten minutes":   {gaps: []int64{600, 610, 590}, since: 61 * time.Minute, silent: true},
		"timer, one night off":       {gaps: []int64{600, 30000, 600, 600}, since: 61 * time.Minute, silent: true},
		"timer, every night":         {gaps: night, since: 2 * 24 * time.Hour},
		"timer, a week of silence":   {gaps: night, since: 7 * 24 * time.Hour, silent: true},
		"clock went back":            {interval: 300, since: -time.Hour},
		"receiver down":              {interval: 300, since: time.Hour, at: fleet.Moment{ReceiverDown: true}},
		"other receivers hear it":    {interval: 300, since: time.Hour, at: fleet.Moment{Shared: true}},
		"receiver up again":          {interval: 300, since: 24 * time.Hour, at: fleet.Moment{ReceiverSince: start.Add(24*time.Hour - 14*time.Minute)}},
		"receiver up for long":       {interval: 300, since: 24 * time.Hour, at: fleet.Moment{ReceiverSince: start.Add(24*time.Hour - 16*time.Minute)}, silent: true},
		"receiver started in future": {interval: 300, since: time.Hour, at: fleet.Moment{ReceiverSince: start.Add(24 * time.Hour)}, silent: true},
	} {
		r := fleet.Record{ReceivedAt: start, Gaps: c.gaps, Report: wire.Report{Interval: c.interval}}
		c.at.Now = start.Add(c.since)
		got := r.Assess(c.at)
		if (got.SilentFor > 0) != c.silent || c.silent && got.SilentFor != c.since {
			t.Errorf("%s: silent for %v, want %v", name, got.SilentFor, c.silent)
		}
		if got.FromTheFuture != (c.since < 0) {
			t.Errorf("%s: from the future: %v", name, got.FromTheFuture)
		}
	}
}

func TestForecastOfAFullDisk(t *testing.T) {
	const gb = 1_000_000_000
	sample := func(hoursAgo float64, free int64) fleet.Sample {
		return fleet.Sample{At: start.Unix() - int64(hoursAgo*3600), Free: free}
	}
	for name, c := range map[string]struct {
		samples []fleet.Sample
		now     int64
		want    time.Duration
	}{
		"nothing known":            {nil, 10 * gb, 0},
		"too early to say":         {[]fleet.Sample{sample(5, 20*gb)}, 10 * gb, 0},
		"does not fill":            {[]fleet.Sample{sample(24, 10*gb)}, 10 * gb, 0},
		"empties":                  {[]fleet.Sample{sample(24, 5*gb)}, 10 * gb, 0},
		"1 GB per hour":            {[]fleet.Sample{sample(24, 34*gb)}, 10 * gb, 9 * time.Hour}, // the floor is 1 GB
		"faster this day":          {[]fleet.Sample{sample(160, 30*gb), sample(20, 30*gb)}, 10 * gb, 9 * time.Hour},
		"faster this week":         {[]fleet.Sample{sample(160, 170*gb), sample(20, 10*gb)}, 10 * gb, 9 * time.Hour},
		"older than a week":        {[]fleet.Sample{sample(400, 170*gb)}, 10 * gb, 0},
		"full":                     {[]fleet.Sample{sample(10, 11*gb)}, gb / 2, 1},
		"in years":                 {[]fleet.Sample{sample(24, 10*gb+1)}, 10 * gb, 0},
		"samples of the future":    {[]fleet.Sample{sample(-5, 20*gb)}, 10 * gb, 0},
		"cleaned up in the middle": {[]fleet.Sample{sample(20, 30*gb), sample(10, 5*gb)}, 10 * gb, 9 * time.Hour},
	} {
		got := fleet.TimeUntilFull(c.samples, fleet.Sample{At: start.Unix(), Free: c.now}, gb)
		if got.Round(time.Second) != c.want && got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestWhatHasNotArrivedIsCounted(t *testing.T) {
	r := fleet.Record{Stored: 10, CountedAt: start, Report: wire.Report{Waiting: 3, Held: map[string]int64{"conflict": 1, "unfit": 2}, Shipped: 12}}
	if h := r.Assess(fleet.Moment{Now: start}); h.Undelivered != 6 || h.Absent != 2 {
		t.Errorf("got %+v, want 6 not delivered and 2 absent", h)
	}
	r.Report.Shipped = 4 // the host has pruned
	if h := r.Assess(fleet.Moment{Now: start}); h.Absent != 0 {
		t.Errorf("got %+v, want none absent", h)
	}
	r.Report.Shipped, r.CountedAt = 20, time.Time{} // not counted
	if h := r.Assess(fleet.Moment{Now: start}); h.Absent != 0 {
		t.Errorf("got %+v, want none absent", h)
	}
}
