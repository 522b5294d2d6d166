package sharedhosts

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// disable disables hosts, each with a version of its own.
func (m *machine) disable(hosts ...episode.Name) {
	m.t.Helper()
	for _, host := range hosts {
		_, err := m.list.Disable(m.t.Context(), []episode.Name{host}, time.Now())
		fixture.Must(m.t, err)
	}
}

// restore gives a bucket the first n versions of another one.
func restore(t testing.TB, to, from *buckettest.Memory, n int64) {
	t.Helper()
	for _, name := range to.Names() {
		fixture.Must(t, to.Remove(t.Context(), name))
	}
	for number := range n {
		version, err := NewList(from).read(t.Context(), number+1)
		fixture.Must(t, err)
		put(t, to, accessName(number+1), string(version))
	}
}

// copyOf returns a bucket with the versions of another one.
func copyOf(t testing.TB, in *buckettest.Memory) *buckettest.Memory {
	t.Helper()
	all := new(buckettest.Memory)
	restore(t, all, in, int64(len(in.Names())))
	return all
}

// A bucket that was restored from a backup has an older list, and soon another one.
func TestABucketThatWasRestoredUnderAReceiverAdmitsNoHost(t *testing.T) {
	for what, change := range map[string]struct {
		later []episode.Name // disabled with the restored bucket
		after time.Duration  // until all hosts must be refused
	}{
		"older":                     {nil, verifyInterval + PollInterval},
		"as long, and another":      {[]episode.Name{"lab-04", "lab-05"}, verifyInterval + PollInterval},
		"longer, and another":       {[]episode.Name{"lab-04", "lab-05", "lab-06"}, PollInterval},
		"much longer, and the rest": {[]episode.Name{"lab-04", "lab-05", "lab-06", "lab-07"}, PollInterval},
	} {
		synctest.Test(t, func(t *testing.T) {
			in := new(buckettest.Memory)
			m := newMachine(t, in)
			f := mustFollow(m, in)
			m.disable("lab-01", "lab-02", "lab-03")
			time.Sleep(PollInterval)
			before := copyOf(t, in)
			restore(t, in, before, 1)
			newMachine(t, in).disable(change.later...)
			time.Sleep(change.after + time.Millisecond)
			synctest.Wait()
			now := m.watch.Current()
			if !errors.Is(now.Err, ErrVersionMissing) || !errors.Is(now.Err, datadir.ErrDisabledList) {
				t.Errorf("%s: got %v, want %v", what, now.Err, ErrVersionMissing)
			}
			fixture.Must(t, f.Check()) // it is not outdated
			if _, err := m.list.Enable(t.Context(), []episode.Name{"lab-01"}); !errors.Is(err, ErrVersionMissing) {
				t.Errorf("%s: enable: got %v, want %v", what, err, ErrVersionMissing)
			}
			time.Sleep(time.Hour)
			if n := strings.Count(m.said.String(), "all hosts are refused"); n != 1 || !strings.Contains(m.said.String(), "remove the line") {
				t.Errorf("%s: got %d lines, want one that says what to do: %s", what, n, m.said)
			}
			restore(t, in, before, 3) // the newest backup
			time.Sleep(PollInterval + time.Millisecond)
			synctest.Wait()
			if !m.refuses("lab-01") || !m.refuses("lab-03") || m.refuses("lab-04") || m.refuses("lab-08") {
				t.Errorf("%s: the known list is back: got %v", what, m.watch.Current())
			}
		})
	}
}

// What a command on this machine has changed a moment before is known too.
func TestARestoredBucketIsNoticedAfterACommandOnTheSameMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		m := newMachine(t, in)
		mustFollow(m, in)
		m.disable("lab-01")
		time.Sleep(PollInterval + time.Millisecond)
		before := copyOf(t, in)
		m.disable("lab-02")
		restore(t, in, before, 1)
		time.Sleep(verifyInterval + PollInterval)
		synctest.Wait()
		if now := m.watch.Current(); !errors.Is(now.Err, ErrVersionMissing) {
			t.Errorf("got %v, want %v", now.Err, ErrVersionMissing)
		}
	})
}

// A receiver does not start with a bucket that was restored, until its operator has done what the error says.
// Then no host is enabled that was disabled in the bucket or at a receiver.
func TestAfterARestoreWhatWasDisabledAnywhereStaysDisabled(t *testing.T) {
	in := new(buckettest.Memory)
	m := newMachine(t, in)
	m.disable("lab-01", "lab-02", "lab-03")
	restore(t, in, copyOf(t, in), 1)
	newMachine(t, in).disable("lab-04", "lab-05", "lab-06")
	if _, err := openMachine(t, in, m.dir).follow(in); !errors.Is(err, ErrVersionMissing) || !strings.Contains(err.Error(), `remove the line with "version"`) {
		t.Errorf("start: got %v, want %v and what to do", err, ErrVersionMissing)
	}
	path := filepath.Join(m.dir, "disabled-hosts.json")
	text := regexp.MustCompile(`(?m)^.*"version".*\n`).ReplaceAllString(fixture.ReadFile(t, path), "")
	fixture.WriteFile(t, path, text)
	again := openMachine(t, in, m.dir)
	_, err := again.follow(in)
	fixture.Must(t, err)
	for _, host := range []episode.Name{"lab-01", "lab-02", "lab-03", "lab-04", "lab-05", "lab-06"} {
		if !again.refuses(host) {
			t.Errorf("%s is enabled: %s", host, newest(t, in))
		}
	}
	if again.refuses("lab-07") {
		t.Errorf("lab-07 is refused: %s", newest(t, in))
	}
}
