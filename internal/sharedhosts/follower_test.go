package sharedhosts

import (
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// run runs a follower until the test ends.
func (m *machine) run(f *Follower) {
	m.t.Helper()
	ctx, cancel := context.WithCancel(m.t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := f.Run(ctx); err != nil {
			m.t.Errorf("the follower ended: %v", err)
		}
	})
	m.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

func mustFollow(m *machine, in *buckettest.Memory) *Follower {
	m.t.Helper()
	f, err := m.follow(in)
	fixture.Must(m.t, err)
	m.run(f)
	return f
}

func TestAChangeReachesAllReceivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		one, other := newMachine(t, in), newMachine(t, in)
		mustFollow(one, in)
		mustFollow(other, in)
		for _, disable := range []bool{true, false} {
			var err error
			if disable {
				_, err = one.list.Disable(t.Context(), []episode.Name{"lab-01", "lab-02"}, time.Now())
			} else {
				_, err = other.list.Enable(t.Context(), []episode.Name{"lab-01"})
			}
			fixture.Must(t, err)
			time.Sleep(PollInterval + time.Millisecond)
			synctest.Wait()
			for i, m := range []*machine{one, other} {
				if m.refuses("lab-01") != disable || !m.refuses("lab-02") {
					t.Errorf("disable %v, receiver %d: got %v and %v", disable, i, m.refuses("lab-01"), m.refuses("lab-02"))
				}
				if n, err := datadir.CountDisabled(m.dir); err != nil || (n == 2) != disable {
					t.Errorf("disable %v, receiver %d: its copy has %d hosts, %v", disable, i, n, err)
				}
			}
		}
		if n := strings.Count(other.said.String(), "list of disabled hosts changed"); n != 2 {
			t.Errorf("got %d lines about changes, want 2: %s", n, other.said)
		}
	})
}

// One request per interval, and one per minute for the known version, however long the list's history is.
func TestAnIdleFollowerCostsOneRequestPerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		m := newMachine(t, in)
		for range 10 {
			_, err := m.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
			fixture.Must(t, err)
			_, err = m.list.Enable(t.Context(), []episode.Name{"lab-01"})
			fixture.Must(t, err)
		}
		mustFollow(m, in)
		before := in.Requests()
		time.Sleep(time.Hour + time.Millisecond)
		synctest.Wait()
		got := in.Requests()
		if n := got[buckettest.OpOpen] - before[buckettest.OpOpen]; n != int(time.Hour/PollInterval+time.Hour/verifyInterval) {
			t.Errorf("got %d requests in an hour, want %d", n, time.Hour/PollInterval+time.Hour/verifyInterval)
		}
		if got[buckettest.OpList] != before[buckettest.OpList] {
			t.Errorf("got %d lists, want none", got[buckettest.OpList]-before[buckettest.OpList])
		}
	})
}

func TestAnOutageKeepsTheListAndIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		in := &buckettest.Memory{Fault: func(string, string) buckettest.Fault {
			if down.Load() {
				return buckettest.LostBefore
			}
			return buckettest.None
		}}
		m := newMachine(t, in)
		_, err := m.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
		fixture.Must(t, err)
		f := mustFollow(m, in)
		down.Store(true)
		time.Sleep(outdatedAfter - 2*PollInterval)
		fixture.Must(t, f.Check())
		time.Sleep(time.Hour)
		if err := f.Check(); err == nil || !errors.Is(err, buckettest.ErrLost) {
			t.Errorf("after an hour: got %v, want %v", err, buckettest.ErrLost)
		}
		if !m.refuses("lab-01") || m.refuses("lab-02") {
			t.Errorf("got %v and %v, want the last known list", m.refuses("lab-01"), m.refuses("lab-02"))
		}
		down.Store(false)
		time.Sleep(PollInterval + time.Millisecond)
		synctest.Wait()
		fixture.Must(t, f.Check())
		for _, line := range []string{"disabled hosts may be outdated", "disabled hosts are current again"} {
			if n := strings.Count(m.said.String(), line); n != 1 {
				t.Errorf("got %q %d times, want once: %s", line, n, m.said)
			}
		}
	})
}

// A receiver that starts while the object store does not answer refuses whom it refused before.
func TestAStartDuringAnOutageAdmitsNoDisabledHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		m := newMachine(t, in)
		_, err := newMachine(t, in).list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
		fixture.Must(t, err)
		if _, err := m.follow(in); err != nil || !m.refuses("lab-01") {
			t.Fatalf("got %v, %v, want lab-01 refused", m.refuses("lab-01"), err)
		}
		in.Fault = func(string, string) buckettest.Fault { return buckettest.LostBefore }
		again := openMachine(t, in, m.dir)
		if _, err := again.follow(in); err != nil || !again.refuses("lab-01") {
			t.Errorf("got %v, %v, want lab-01 refused", again.refuses("lab-01"), err)
		}
		if _, err := newMachine(t, in).follow(in); !errors.Is(err, buckettest.ErrLost) {
			t.Errorf("a receiver that knows no list: got %v, want no start", err)
		}
	})
}

// A version that cannot be understood lets no host in.
func TestADamagedVersionRefusesAllHosts(t *testing.T) {
	for what, version := range map[string]string{
		"no JSON":        "x",
		"newer":          `{"schema_version":2,"disabled":[],"version":2}`,
		"another number": `{"schema_version":1,"disabled":[],"version":1}`,
		"a bad name":     `{"schema_version":1,"disabled":[],"version":2,"replaced":[{"host_id":"../x","not_before":"2026-11-29T10:00:00Z","by":"0A"}]}`,
		"too large":      `{"schema_version":1,"disabled":[],"version":2}` + strings.Repeat(" ", datadir.MaxDisabledBytes),
	} {
		synctest.Test(t, func(t *testing.T) {
			in := new(buckettest.Memory)
			m := newMachine(t, in)
			_, err := m.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
			fixture.Must(t, err)
			mustFollow(m, in)
			put(t, in, accessName(2), version)
			time.Sleep(10 * PollInterval)
			synctest.Wait()
			if now := m.watch.Current(); !errors.Is(now.Err, datadir.ErrDisabledList) {
				t.Errorf("%s: got %v, want %v", what, now.Err, datadir.ErrDisabledList)
			}
			if n := strings.Count(m.said.String(), "all hosts are refused"); n != 1 {
				t.Errorf("%s: got %d lines, want one: %s", what, n, m.said)
			}
			if _, err := m.list.Enable(t.Context(), []episode.Name{"lab-01"}); !errors.Is(err, datadir.ErrDisabledList) {
				t.Errorf("%s: enable: got %v, want %v", what, err, datadir.ErrDisabledList)
			}
			late := newMachine(t, in)
			mustFollow(late, in)
			if !late.refuses("lab-02") {
				t.Errorf("%s: a receiver that starts serves a host", what)
			}
			fixture.Must(t, in.Remove(t.Context(), accessName(2)))
			time.Sleep(PollInterval + time.Millisecond)
			synctest.Wait()
			for _, m := range []*machine{m, late} {
				if !m.refuses("lab-01") || m.refuses("lab-02") {
					t.Errorf("%s: removed: got %v and %v, want the former version", what, m.refuses("lab-01"), m.refuses("lab-02"))
				}
			}
		})
	}
}

// Without a version in the middle, those after it may have disabled more hosts than the one before it.
func TestRemovingAVersionInTheMiddleAdmitsNoHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		m := newMachine(t, in)
		_, err := m.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
		fixture.Must(t, err)
		mustFollow(m, in)
		for _, name := range []string{accessName(2), accessName(3)} {
			put(t, in, name, "of a newer release")
		}
		put(t, in, accessPrefix+"x.bak", "of nobody")
		follow := func(step string, refused, damaged bool) {
			t.Helper()
			time.Sleep(10 * PollInterval)
			synctest.Wait()
			now := m.watch.Current()
			if m.refuses("lab-02") != refused || (now.Err != nil) != damaged {
				t.Errorf("%s: got %v, %v, want refused %v", step, m.refuses("lab-02"), now.Err, refused)
			}
		}
		follow("two versions of a newer release", true, true)
		fixture.Must(t, in.Remove(t.Context(), accessName(2)))
		follow("the first one is removed", true, true)
		if n := strings.Count(m.said.String(), "all hosts stay refused"); n != 1 {
			t.Errorf("got %d lines, want one: %s", n, m.said)
		}
		fixture.Must(t, in.Remove(t.Context(), accessName(3)))
		follow("both are removed", false, false)
		_, err = m.list.Disable(t.Context(), []episode.Name{"lab-02"}, time.Now())
		fixture.Must(t, err)
		follow("disabled again", true, false)
	})
}

// What a receiver of an older release refused is refused by all.
func TestAListOfOneReceiverIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		one, other := newMachine(t, in), newMachine(t, in)
		for i, m := range []*machine{one, other} {
			own := m.list
			own.Shared = nil
			_, err := own.Disable(t.Context(), []episode.Name{episode.Name("lab-0" + string(rune('1'+i)))}, time.Now())
			fixture.Must(t, err)
			mustFollow(m, in)
		}
		time.Sleep(PollInterval + time.Millisecond)
		synctest.Wait()
		for i, m := range []*machine{one, other} {
			if !m.refuses("lab-01") || !m.refuses("lab-02") {
				t.Errorf("receiver %d: got %v and %v, want both refused", i, m.refuses("lab-01"), m.refuses("lab-02"))
			}
		}
		_, err := one.list.Enable(t.Context(), []episode.Name{"lab-02"})
		fixture.Must(t, err)
		again := openMachine(t, in, other.dir) // it must not add the host once more
		mustFollow(again, in)
		if again.refuses("lab-02") {
			t.Errorf("an adopted host cannot be enabled: %s", newest(t, in))
		}
	})
}

// A list that was shared in another bucket is adopted once its version is removed.
func TestAListOfAnotherBucketIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := new(buckettest.Memory)
		m := newMachine(t, old)
		mustFollow(m, old)
		_, err := m.list.Disable(t.Context(), []episode.Name{"lab-02"}, time.Now())
		fixture.Must(t, err)
		ended := time.Now()
		fixture.Must(t, m.list.Readmit(t.Context(), "lab-01", "new", ended))
		path := filepath.Join(m.dir, "disabled-hosts.json")
		text := regexp.MustCompile(`"version": ?\d+,?`).ReplaceAllString(fixture.ReadFile(t, path), "")
		dir := t.TempDir()
		fixture.WriteFile(t, filepath.Join(dir, "disabled-hosts.json"), text)
		in := new(buckettest.Memory)
		moved := openMachine(t, in, dir)
		mustFollow(moved, in)
		if !moved.refuses("lab-02") || !moved.watch.Current().HasReplaced("lab-01", "old", ended) {
			t.Errorf("got lab-02 refused %t, the former certificate of lab-01 ended %t; want both: %s",
				moved.refuses("lab-02"), moved.watch.Current().HasReplaced("lab-01", "old", ended), newest(t, in))
		}
	})
}

// A command before the first start of the new release loses nothing of the list of the old one, which may
// say that a host is removed where others say disabled.
func TestACommandBeforeTheFirstStartKeepsTheListOfOneReceiver(t *testing.T) {
	for what, command := range map[string]func(datadir.HostList) error{
		"disable": func(l datadir.HostList) error {
			_, err := l.Disable(t.Context(), []episode.Name{"lab-09"}, time.Now())
			return err
		},
		"an idle enable": func(l datadir.HostList) error {
			_, err := l.Enable(t.Context(), []episode.Name{"lab-09"})
			return err
		},
		"none": func(datadir.HostList) error { return nil },
	} {
		in := new(buckettest.Memory)
		_, err := newMachine(t, in).list.Disable(t.Context(), []episode.Name{"lab-08"}, time.Now())
		fixture.Must(t, err)
		m := newMachine(t, in)
		own := m.list
		own.Shared = nil
		_, err = own.Disable(t.Context(), []episode.Name{"lab-07"}, time.Now())
		fixture.Must(t, err)
		_, err = own.Remove(t.Context(), []episode.Name{"lab-08"}, time.Now())
		fixture.Must(t, err)
		fixture.Must(t, command(m.list))
		_, err = m.follow(in)
		fixture.Must(t, err)
		now := m.watch.Current()
		if !now.Has("lab-07") || !now.IsRemoved("lab-08") || now.Has("lab-09") != (what == "disable") {
			t.Errorf("%s: got %s, want lab-07 disabled, lab-08 removed", what, newest(t, in))
		}
	}
}

// The clock of the receiver with the issuing CA was ahead when it ended certificates.
func TestReplacedCertificatesOfTheFutureStayEnded(t *testing.T) {
	in := new(buckettest.Memory)
	m := newMachine(t, in)
	now := time.Now()
	fixture.Must(t, m.list.Readmit(t.Context(), "lab-01", "0B", now.Add(time.Hour)))
	fixture.Must(t, m.list.Readmit(t.Context(), "lab-01", "0C", now))
	list := m.watch.Current()
	for serial, want := range map[string]bool{"0A": true, "0B": true, "0C": false} {
		if got := list.HasReplaced("lab-01", serial, now.Add(time.Hour)); got != want {
			t.Errorf("%s: got %v, want %v", serial, got, want)
		}
	}
}

// A certificate from before a host joined again ends at each receiver.
func TestReplacedCertificatesEndEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		one, other := newMachine(t, in), newMachine(t, in)
		mustFollow(other, in)
		_, err := one.list.Remove(t.Context(), []episode.Name{"lab-01"}, time.Now())
		fixture.Must(t, err)
		joined := time.Now()
		fixture.Must(t, one.list.Readmit(t.Context(), "lab-01", "0B", joined))
		time.Sleep(PollInterval + time.Millisecond)
		synctest.Wait()
		// What records said before the list was shared is added, and nothing newer is changed.
		fixture.Must(t, one.list.AdoptReplaced(t.Context(), one.watch.Current(), map[episode.Name]datadir.Replaced{
			"lab-01": {NotBefore: joined.Add(time.Hour), By: "0A"}, "lab-03": {NotBefore: joined, By: "0B"},
		}))
		time.Sleep(PollInterval + time.Millisecond)
		synctest.Wait()
		now := other.watch.Current()
		if now.Has("lab-01") {
			t.Error("lab-01 is refused still")
		}
		for _, c := range []struct {
			host, serial string
			notBefore    time.Time
			want         bool
		}{
			{"lab-01", "0A", joined.Add(-time.Hour), true},
			{"lab-01", "0C", joined, true},
			{"lab-01", "0B", joined, false},
			{"lab-01", "0D", joined.Add(time.Second), false},
			{"lab-02", "0A", joined.Add(-time.Hour), false},
			{"lab-03", "0A", joined, true},
			{"lab-03", "0B", joined, false},
		} {
			if got := now.HasReplaced(episode.Name(c.host), c.serial, c.notBefore); got != c.want {
				t.Errorf("%s of %s: got %v, want %v", c.serial, c.host, got, c.want)
			}
		}
	})
}
