package sharedhosts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/wire"
)

// reporting is a receiver to which hosts report.
type reporting struct {
	*machine
	own    *fleet.Reports
	shared *Reports
}

func newReporting(t *testing.T, in bucket.Bucket) *reporting {
	t.Helper()
	m := newMachine(t, in)
	count := func(episode.Name, time.Time) (fleet.Count, bool, error) { return fleet.Count{}, true, nil }
	own, err := fleet.Open(m.data, count, time.Now())
	fixture.Must(t, err)
	r := &reporting{m, own, NewReports(in, own, m.watch, m.log())}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { r.shared.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended; own.Close() })
	return r
}

// report does what the receiver does with a report.
func (r *reporting) report(host episode.Name, instance string) (cloned bool) {
	r.t.Helper()
	report := wire.Report{Instance: instance, Interval: 300, At: time.Now()}
	fixture.Must(r.t, r.shared.Fetch(r.t.Context(), host, report, time.Now()))
	cloned, err := r.own.Add(host, report, time.Now())
	fixture.Must(r.t, err)
	r.shared.Publish(r.t.Context(), host)
	return cloned
}

// record returns the copy of the record of a host.
func (r *reporting) record(host episode.Name) (fleet.Record, bool) {
	r.t.Helper()
	records, _, err := fleet.Read(r.data)
	fixture.Must(r.t, err)
	record, known := records[host]
	return record, known
}

// silent reports whether a command on this machine finds a host silent.
func (r *reporting) silent(host episode.Name) bool {
	r.t.Helper()
	kept, err := fleet.ReadReceiver(r.data)
	fixture.Must(r.t, err)
	record, _ := r.record(host)
	health := record.Assess(fleet.Moment{Now: time.Now(), ReceiverSince: kept.StartedAt, Shared: true, SharedAt: kept.SharedAt, SharedSince: kept.SharedSince})
	return health.SilentFor > 0
}

// wait lets time pass, and a little more, so that what is done then is done.
func wait(d time.Duration) {
	time.Sleep(d + time.Millisecond)
	synctest.Wait()
}

func TestSilenceIsJudgedByTheReportsToAllReceivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		all := []*reporting{newReporting(t, in), newReporting(t, in), newReporting(t, in)}
		for i := range 12 {
			all[i%len(all)].report("lab-01", "a")
			wait(5 * time.Minute) // each receiver hears it every 15 minutes, and silence begins after 15
			for j, r := range all {
				if r.silent("lab-01") {
					t.Fatalf("report %d: receiver %d finds the host silent", i, j)
				}
			}
		}
		wait(12 * time.Minute)
		for j, r := range all {
			record, _ := r.record("lab-01")
			if !r.silent("lab-01") || len(record.Machines) != 1 {
				t.Errorf("receiver %d: got silent %v and the machines %v, want silent, and one", j, r.silent("lab-01"), record.Machines)
			}
		}
	})
}

// What other receivers have heard is unknown while the object store does not answer.
func TestSilenceIsNotJudgedWithoutTheOthersReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		in := &buckettest.Memory{Fault: func(string, string) buckettest.Fault {
			if down.Load() {
				return buckettest.LostBefore
			}
			return buckettest.None
		}}
		r := newReporting(t, in)
		r.report("lab-01", "a")
		down.Store(true)
		wait(time.Hour)
		if r.silent("lab-01") {
			t.Error("the host is silent, while others may hear it")
		}
		r.report("lab-01", "a") // is kept here
		if record, _ := r.record("lab-01"); time.Since(record.ReceivedAt) > time.Second {
			t.Errorf("got the report of %v, want the last one", record.ReceivedAt)
		}
		down.Store(false)
		wait(time.Hour)
		if !r.silent("lab-01") {
			t.Error("the host is not silent after an hour")
		}
		for _, line := range []string{"reports to other receivers not read", "reports to this receiver not shared"} {
			if n := strings.Count(r.said.String(), line); n != 1 {
				t.Errorf("got %q %d times, want once: %s", line, n, r.said)
			}
		}
	})
}

// An outage of the object store is none of each host: what others heard meanwhile is lost.
func TestAnOutageOfTheBucketIsNotOneOfEachHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		in := &buckettest.Memory{Fault: func(string, string) buckettest.Fault {
			if down.Load() {
				return buckettest.LostBefore
			}
			return buckettest.None
		}}
		one, other := newReporting(t, in), newReporting(t, in)
		other.report("lab-01", "a")
		wait(2 * time.Minute)
		down.Store(true)
		wait(time.Hour)
		down.Store(false)
		for range 4 { // the host may be late by its limit, 15 minutes
			wait(3 * time.Minute)
			if one.silent("lab-01") {
				kept, err := fleet.ReadReceiver(one.data)
				t.Fatalf("the host is silent %v after the outage, %v", time.Since(kept.SharedSince), err)
			}
		}
		wait(5 * time.Minute)
		if !one.silent("lab-01") {
			t.Error("the host is not silent 17 minutes after the outage")
		}
	})
}

// Two machines that use one certificate are noticed although each talks to a receiver of its own.
func TestAHostIsClonedWhicheverReceiversItsMachinesUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		one, other := newReporting(t, in), newReporting(t, in)
		cloned := false
		for range 3 {
			cloned = one.report("lab-01", "a") || cloned
			wait(10 * time.Second) // sooner than records are copied
			cloned = other.report("lab-01", "b") || cloned
			wait(10 * time.Second)
		}
		if !cloned {
			t.Error("two machines in turn: got no clone")
		}
	})
}

// A report costs two requests, and a receiver without reports one per minute.
func TestRequestsOfReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		one, _ := newReporting(t, in), newReporting(t, in)
		for i := range 20 {
			one.report(episode.Name(fmt.Sprintf("lab-%d", i)), "a")
		}
		wait(2 * readInterval)
		before := in.Requests()
		wait(time.Hour)
		idle := in.Requests()
		if got := idle[buckettest.OpList] - before[buckettest.OpList]; got != 2*60 {
			t.Errorf("two receivers, an hour: got %d lists, want 120", got)
		}
		if got := idle[buckettest.OpOpen] - before[buckettest.OpOpen]; got != 0 {
			t.Errorf("nothing has changed: got %d records read, want none", got)
		}
		one.report("lab-1", "a")
		got := in.Requests()
		if opens, puts := got[buckettest.OpOpen]-idle[buckettest.OpOpen], got[buckettest.OpPut]-idle[buckettest.OpPut]; opens != 1 || puts != 1 {
			t.Errorf("a report: got %d reads and %d writes, want one each", opens, puts)
		}
		err := one.shared.Fetch(t.Context(), "lab-1", wire.Report{Instance: "a"}, time.Now())
		if p, _ := errors.AsType[*wire.Problem](err); p == nil || in.Requests()[buckettest.OpOpen] != got[buckettest.OpOpen] {
			t.Errorf("a report that comes too soon: got %v, want it refused without a request", err)
		}
		wait(2 * readInterval)
		if n := in.Requests()[buckettest.OpOpen] - got[buckettest.OpOpen]; n != 2 {
			t.Errorf("after a report: two receivers read %d records, want one each", n)
		}
	})
}

// One record that cannot be read, or is not one, keeps no receiver from the others.
func TestOneBadRecordHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &buckettest.Memory{Fault: func(op, name string) buckettest.Fault {
			if op == buckettest.OpOpen && name == reportName("lab-02") {
				return buckettest.LostAfter
			}
			return buckettest.None
		}}
		one := newReporting(t, in)
		for _, host := range []episode.Name{"lab-01", "lab-02", "lab-03"} {
			one.report(host, "a")
		}
		put(t, in, reportName("lab-00"), `{"schema_version":2}`)
		put(t, in, reportsPrefix+"x", "")
		other := newReporting(t, in)
		wait(15*time.Minute + readInterval)
		for host, want := range map[episode.Name]bool{"lab-00": false, "lab-01": true, "lab-02": false, "lab-03": true} {
			if _, known := other.record(host); known != want {
				t.Errorf("%s: got %v, want %v", host, known, want)
			}
		}
		if !other.silent("lab-01") || other.said.Len() > 0 {
			t.Errorf("got silent %v, and the log %q, want silent, and nothing", other.silent("lab-01"), other.said)
		}
	})
}

// A record that arrives late does not replace a newer copy.
func TestALateRecordReplacesNoNewerCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late atomic.Bool
		in := &buckettest.Memory{Fault: func(op, _ string) buckettest.Fault {
			if op == buckettest.OpPut && late.Load() {
				return buckettest.Late
			}
			return buckettest.None
		}}
		one, other := newReporting(t, in), newReporting(t, in)
		late.Store(true)
		one.report("lab-01", "a")
		late.Store(false)
		wait(5 * time.Minute)
		newer := time.Now().UTC().Truncate(time.Second)
		other.report("lab-01", "a")
		if in.Release() != 1 {
			t.Fatal("no request was late")
		}
		wait(2 * readInterval)
		if record, _ := other.record("lab-01"); !record.ReceivedAt.Equal(newer) {
			t.Errorf("got the report of %v, want %v", record.ReceivedAt, newer)
		}
	})
}
