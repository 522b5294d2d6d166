package fleet_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/wire"
)

func TestProblemsOfAHost(t *testing.T) {
	const gb = 1_000_000_000
	for name, c := range map[string]struct {
		change func(*fleet.Record)
		want   string
	}{
		"none":       {func(*fleet.Record) {}, ""},
		"silent":     {func(r *fleet.Record) { r.ReceivedAt = start.Add(-3 * time.Hour) }, "critical silent: has not reported for 3 h (it reports every 5 min)"},
		"timer":      {func(r *fleet.Record) { r.ReceivedAt, r.Report.Interval = start.Add(-30*time.Hour), 0 }, "warning silent: has not reported for 30 h (it reports with each pass)"},
		"cloned":     {func(r *fleet.Record) { r.ClonedAt = start }, "critical cloned: two machines use its certificate: let one of them join under another name"},
		"absent":     {func(r *fleet.Record) { r.Report.Shipped = 12 }, "warning absent: has delivered 12 episodes, and 10 are stored: run 'shipper verify' there"},
		"full":       {func(r *fleet.Record) { r.Report.Disk.FreeBytes = gb - 1 }, "critical disk: its disk is full: packing waits for space"},
		"full soon":  {func(r *fleet.Record) { r.Samples = []fleet.Sample{{start.Unix() - 86400, 12 * gb}} }, "warning disk: its disk is full in 2 days"},
		"full today": {func(r *fleet.Record) { r.Samples = []fleet.Sample{{start.Unix() - 86400, 24 * gb}} }, "critical disk: its disk is full in 12 h"},
		"inodes":     {func(r *fleet.Record) { r.Report.Disk.Inodes, r.Report.Disk.FreeInodes = 1000, 9 }, "warning inodes: its disk has only 9 inodes left"},
		"held": {
			func(r *fleet.Record) { r.Report.Held = map[string]int64{"unfit": 2, "conflict": 1, "stuck": 0} },
			"warning held: 3 held (1 conflict, 2 unfit): see 'shipper held' there",
		},
		"failing": {
			func(r *fleet.Record) {
				r.Report.Failing, r.Report.LastError, r.Report.FailingSince = 2, "no route", start.Add(-61*time.Minute)
			},
			"warning failing: 2 failing for 61 min: no route",
		},
		"retried":         {func(r *fleet.Record) { r.Report.Failing, r.Report.FailingSince = 2, start.Add(-59*time.Minute) }, ""},
		"future":          {func(r *fleet.Record) { r.ReceivedAt, r.Report.Failing = start.Add(time.Hour), 1 }, "warning clock: its last report is from the future: was this clock set back?"},
		"silent and full": {func(r *fleet.Record) { r.ReceivedAt, r.Report.Disk.FreeBytes = start.Add(-3*time.Hour), 0 }, "critical silent: has not reported for 3 h (it reports every 5 min)"},
		"waiting":         {func(r *fleet.Record) { r.Report.OldestWaiting = start.Add(-25 * time.Hour) }, "warning waiting: an episode has been waiting for 25 h"},
		"clock":           {func(r *fleet.Record) { r.ClockSkew = -90 }, "warning clock: its clock is 90 s behind"},
		"two": {
			func(r *fleet.Record) { r.ClockSkew, r.ClonedAt = 7, start },
			"critical cloned: two machines use its certificate: let one of them join under another name; warning clock: its clock is 7 s ahead",
		},
	} {
		r := fleet.Record{ReceivedAt: start, CountedAt: start, Stored: 10, Report: wire.Report{Interval: 300, Shipped: 10, Disk: wire.DiskSpace{FreeBytes: 9 * gb, SizeBytes: 90 * gb, MinFree: gb}}}
		c.change(&r)
		var got []string
		problems := r.Problems(fleet.Moment{Now: start})
		for _, p := range problems {
			got = append(got, fmt.Sprintf("%s %s: %s", p.Severity, p.Kind, p.Text))
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: got %q, want %q", name, text, c.want)
		}
		if worst := fleet.Worst(problems); worst.String() != strings.Fields(c.want + " ok")[0] {
			t.Errorf("%s: the worst is %s", name, worst)
		}
	}
	text, err := json.Marshal(fleet.Problem{Kind: "silent", Severity: fleet.Critical, Text: "x"})
	fixture.Must(t, err)
	if want := `{"kind":"silent","severity":"critical","text":"x"}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

func TestSilentHostThatConnectsIsAWarning(t *testing.T) {
	r := fleet.Record{ReceivedAt: start, Report: wire.Report{Interval: 300}}
	at := fleet.Moment{Now: start.Add(3 * time.Hour), LastContact: start.Add(3*time.Hour - 5*time.Minute)}
	want := fleet.Problem{Kind: "silent", Severity: fleet.Warning, Text: "connects, and has not reported for 3 h"}
	if got := r.Problems(at); len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %v", got, want)
	}
	at.LastContact = start
	if got := r.Problems(at); len(got) != 1 || got[0].Severity != fleet.Critical {
		t.Errorf("got %v, want a critical one", got)
	}
}

func TestHostWithoutReportsIsJudgedByItsContact(t *testing.T) {
	now := start.Add(100 * time.Hour)
	for name, c := range map[string]struct {
		at   fleet.Moment
		want int
	}{
		"a day ago":         {fleet.Moment{LastContact: now.Add(-25 * time.Hour)}, 0},
		"longer ago":        {fleet.Moment{LastContact: now.Add(-27 * time.Hour)}, 1},
		"receiver was down": {fleet.Moment{LastContact: now.Add(-50 * time.Hour), ReceiverSince: now.Add(-time.Hour)}, 0},
		"receiver is down":  {fleet.Moment{LastContact: now.Add(-50 * time.Hour), ReceiverDown: true}, 0},
		"others hear it":    {fleet.Moment{LastContact: now.Add(-50 * time.Hour), Shared: true}, 0},
	} {
		c.at.Now = now
		if got := fleet.ContactProblems(c.at); len(got) != c.want {
			t.Errorf("%s: got %v, want %d", name, got, c.want)
		}
	}
}
