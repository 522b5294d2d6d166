package shipper_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// inspectStatus returns what 'shipper status' shows.
func (l *lab) inspectStatus() backlog.Status {
	l.Helper()
	cfg := l.cfg
	cfg.EpisodesDir = config.Path(l.episodes)
	st, err := backlog.InspectStatus(cfg.Backlog())
	fixture.Must(l, err)
	return st
}

// refuseOnly makes the receiver refuse some episodes, or none.
func (l *lab) refuseOnly(err error, names ...episode.Name) {
	l.receiver.update(func() {
		l.receiver.before = func(_ context.Context, u wire.Upload) error {
			for _, n := range names {
				if u.Key.Name == n {
					return err
				}
			}
			return nil
		}
	})
}

// A receiver fails repeatedly for one episode. Status shows its name, the number of attempts,
// since when and why, until it is delivered.
func TestStatusShowsWhatFails(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1", "run-2", "run-3")
		start := time.Now()
		l.refuseOnly(wire.Refuse(wire.Internal, "no such table"), "run-2")
		s, stop := l.startDaemon()
		time.Sleep(time.Hour)
		st := l.inspectStatus()
		for range 10 { // a failed attempt leaves the state of the receiver uncertain until the next ping
			if st.Receiver == nil {
				break
			}
			time.Sleep(30 * time.Second)
			st = l.inspectStatus()
		}
		if len(st.Failing) != 1 || st.FailingTotal != 1 || st.Receiver != nil || len(st.Held) != 0 {
			l.Fatalf("status shows %+v", st)
		}
		f := st.Failing[0]
		if f.Episode != "run-2" || f.Attempts < 5 || !strings.Contains(f.Cause, "no such table") ||
			f.Since.Sub(start) > time.Minute || f.LastAt.Before(f.Since) || f.NextAt.IsZero() {
			l.Errorf("status shows %+v", f)
		}
		if age := time.Since(st.ReportedAt); age > time.Minute {
			l.Errorf("that is %v old, beside a shipper that runs", age)
		}
		l.refuseOnly(nil)
		time.Sleep(3 * time.Hour)
		if n := s.Tally().Shipped; n != 3 {
			l.Errorf("%d are home", n)
		}
		if st := l.inspectStatus(); len(st.Failing) != 0 || st.FailingTotal != 0 {
			l.Errorf("at home, it is shown as %+v", st.Failing)
		}
		fixture.Must(l, stop())
	})
}

// TestAnOutageIsShownByStatus with its cause and its beginning, even when the shipper that saw
// it has ended.
func TestAnOutageIsShownByStatus(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		l.receiver.update(func() { l.receiver.down = &wire.UnexpectedResponseError{Status: 502} })
		start := time.Now()
		_, stop := l.startDaemon()
		time.Sleep(10 * time.Hour)
		running := l.inspectStatus()
		fixture.Must(l, stop())
		for _, st := range []backlog.Status{running, l.inspectStatus()} {
			if st.Receiver == nil || !strings.Contains(st.Receiver.Cause, "502") || st.Receiver.Since.Sub(start) > time.Minute {
				l.Errorf("status shows %+v", st.Receiver)
			}
		}
		l.receiver.update(func() { l.receiver.down = nil })
		l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
		if st := l.inspectStatus(); st.Receiver != nil || st.FailingTotal != 0 || st.AnsweredAt.Before(start.Add(10*time.Hour)) {
			l.Errorf("it is back, and status shows %+v, answered at %v", st.Receiver, st.AnsweredAt)
		}
	})
}

// TestAPassSaysWhyEachEpisodeStays: its user sees only what it prints.
func TestAPassSaysWhyEachEpisodeStays(t *testing.T) {
	l := newLab(t)
	all := numberedNames("run", 30)
	l.finishEpisodes(all...)
	l.refuseOnly(wire.Refuse(wire.Internal, "no such table"), all[:25]...)
	l.wantOnce(shipper.Tally{Scanned: 30, Shipped: 5, Transient: 25})
	if told := l.logs.linesContaining(" WARN will try again "); len(told) != 20 || !strings.Contains(told[0], "no such table") {
		t.Errorf("%d causes are in the log: %q", len(told), told)
	}
	if rest := l.logs.linesContaining("more episodes failed count=5"); len(rest) != 1 {
		t.Errorf("of the others the log has %q\n%s", rest, l.logs)
	}
}

// A host that ships by cron counts attempts across passes, and no pass waits for the backoff of
// the one before.
func TestFailuresAreCountedAcrossPasses(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2")
	l.refuseOnly(wire.Refuse(wire.Internal, "no such table"), "run-1")
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Transient: 1})
	first := l.inspectStatus().Failing
	for range 3 {
		l.wantOnce(shipper.Tally{Scanned: 1, Transient: 1})
	}
	now := l.inspectStatus().Failing
	if len(first) != 1 || len(now) != 1 || now[0].Attempts != 4 || !now[0].Since.Equal(first[0].Since) {
		t.Errorf("first %+v, then %+v", first, now)
	}
	if n := l.receiver.attemptsOf("run-1"); n != 4 {
		t.Errorf("it was sent %d times in 4 passes", n)
	}
	// What was removed is forgotten.
	fixture.Must(l, os.RemoveAll(l.path("episodes", "run-1")))
	fixture.Must(l, os.Remove(l.path("outbox", "run-1.tar.zst")))
	delete(l.contents, "run-1")
	if st := l.inspectStatus(); len(st.Failing) != 0 || st.FailingTotal != 0 {
		t.Errorf("it is gone, and status shows %+v", st.Failing)
	}
	l.wantOnce(shipper.Tally{})
	if r, err := os.ReadFile(l.path("outbox", ".status.json")); err != nil || bytes.Contains(r, []byte("run-1")) {
		t.Errorf("the report says %s, %v", r, err)
	}
}

// TestNoMoreFailThanWait: the report names the first of those that failed, and others may have
// been delivered since.
func TestNoMoreFailThanWait(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.openShipper().Close())
	l.finishEpisodes("run-1", "run-2", "run-3")
	fixture.WriteFile(l, l.path("outbox", ".status.json"), `{"written_at": "2026-11-29T10:00:00Z", "failing_total": 303, "failing": [
		{"episode_id": "run-1", "attempts": 1}, {"episode_id": "run-9", "attempts": 1}]}`)
	if st := l.inspectStatus(); st.Waiting != 3 || len(st.Failing) != 1 || st.FailingTotal != 3 {
		t.Errorf("%d wait, %d of %d fail", st.Waiting, len(st.Failing), st.FailingTotal)
	}
}

// TestADiskErrorIsNoMatterOfPermissions: the advice in the log fits the cause.
func TestADiskErrorIsNoMatterOfPermissions(t *testing.T) {
	for says, errs := range map[string][]error{
		"fix the disk": {
			&durable.ReadError{Op: "open", Path: "run-1", Err: unix.EIO}, &fs.PathError{Op: "lstat", Path: "run-1", Err: unix.EUCLEAN},
		},
		"rename it or fix its permissions": {&fs.PathError{Op: "open", Path: "run-1", Err: unix.EACCES}, errors.New("is no name")},
	} {
		for _, err := range errs {
			l := newLab(t)
			s := l.openShipper()
			s.ReportUnshippable(err)
			if loud := l.logs.warnings(); len(loud) != 1 || !strings.Contains(loud[0], says) {
				t.Errorf("%v: the log says %q, want %q", err, loud, says)
			}
			fixture.Must(l, s.Close())
		}
	}
}

// TestADamagedReportIsNoLoss, nor is one that another program wrote.
func TestADamagedReportIsNoLoss(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, os.MkdirAll(l.path("outbox"), 0o755))
	fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
	for i, text := range []string{"", "{", `{"failing":[{"episode_id":"../x","attempts":1}],"failing_total":1}`, strings.Repeat("x", 1<<20)} {
		fixture.WriteFile(l, l.path("outbox", ".status.json"), text)
		l.finishEpisodes(numberedNames("run", i+1)[i])
		if st := l.inspectStatus(); st.Waiting != 1 || len(st.Failing) != 0 {
			t.Errorf("%.20q: status shows %+v", text, st)
		}
		l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	}
}

// setImmutable makes a directory immutable, or mutable again. Not even root can move anything
// into it.
func setImmutable(t testing.TB, dir string, yes bool) {
	t.Helper()
	f, err := os.Open(dir)
	fixture.Must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		const immutable = 0x10
		flags &^= immutable
		if yes {
			flags |= immutable
		}
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags))
	}
	if err != nil {
		fixture.RequireMount(t, err)
	}
	t.Cleanup(func() {
		if yes && fixture.Exists(dir) {
			setImmutable(t, dir, false)
		}
	})
}

// An episode that is delivered and cannot be moved is held, and retried automatically: soon at
// first, because a service gives a folder its owner a moment later, then each hour.
func TestStuckIsTriedAgain(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
		setImmutable(l, l.path("shipped"), true)
		s, stop := l.startDaemon()
		time.Sleep(time.Second)
		if h := l.held()["run-1"]; h.Reason != outbox.Stuck {
			l.Fatalf("held as %+v\n%s", h, l.logs)
		}
		at := l.held()["run-1"].HeldAt
		time.Sleep(12 * time.Hour)
		if n := l.receiver.attemptsOf("run-1"); n < 12 || n > 60 {
			l.Errorf("it was sent %d times in 12 hours", n)
		}
		if h := l.held()["run-1"]; !h.HeldAt.Equal(at) {
			l.Errorf("held since %v, want %v", h.HeldAt, at)
		}
		if loud := l.logs.warnings(); len(loud) != 1 {
			l.Errorf("the log has %q", loud)
		}
		if st := l.inspectStatus(); len(st.Failing) != 0 {
			l.Errorf("held and failing: %+v", st.Failing)
		}
		setImmutable(l, l.path("shipped"), false)
		time.Sleep(2 * time.Hour)
		if len(l.held()) != 0 || !fixture.Exists(l.path("shipped", "run-1")) || s.Tally().Shipped+s.Tally().AlreadyPresent != 1 {
			l.Errorf("mended, it is not shipped: %v\n%s", s.Tally(), l.logs)
		}
		fixture.Must(l, stop())
		l.wantFiles("outbox")
		l.checkNothingLost()
	})
}

// A folder that is repaired a second later is shipped seconds later.
func TestStuckForASecondIsShippedSoon(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
		setImmutable(l, l.path("shipped"), true)
		_, stop := l.startDaemon()
		time.Sleep(time.Second)
		setImmutable(l, l.path("shipped"), false)
		time.Sleep(time.Minute)
		if !fixture.Exists(l.path("shipped", "run-1")) {
			l.Errorf("it is not shipped\n%s", l.logs)
		}
		fixture.Must(l, stop())
	})
}

// TestAPassTriesWhatIsStuck: every pass retries the episode, and counts it as held until it is
// moved. A manual retry works as well, and does not wait.
func TestAPassTriesWhatIsStuck(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2")
	fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
	setImmutable(t, l.path("shipped"), true)
	l.wantOnce(shipper.Tally{Scanned: 2, Held: 2})
	l.wantOnce(shipper.Tally{Scanned: 2, Held: 2})
	if n := l.receiver.attemptsOf("run-1"); n != 2 {
		t.Errorf("sent %d times in two passes", n)
	}
	l.receiver.down = os.ErrDeadlineExceeded
	if tally, unreachable := l.runOnce(); tally != (shipper.Tally{Scanned: 2, Held: 2}) || unreachable == nil {
		t.Errorf("without a receiver: %v, %v", tally, unreachable)
	}
	l.receiver.down = nil
	setImmutable(t, l.path("shipped"), false)
	fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-2", false))
	l.wantOnce(shipper.Tally{Scanned: 2, AlreadyPresent: 2})
	l.wantFiles("outbox")
}

// A released episode does not wait for the time of its next try.
func TestRetryOfWhatIsStuckDoesNotWait(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
		setImmutable(l, l.path("shipped"), true)
		_, stop := l.startDaemon()
		time.Sleep(24 * time.Hour)
		setImmutable(l, l.path("shipped"), false)
		cfg := l.cfg
		cfg.EpisodesDir = config.Path(l.episodes)
		fixture.Must(l, shipped.ReleaseHold(cfg.DirsConfig(), "run-1", false))
		time.Sleep(l.cfg.ScanInterval.Std() + time.Second)
		if !fixture.Exists(l.path("shipped", "run-1")) {
			l.Errorf("it is not shipped\n%s", l.logs)
		}
		fixture.Must(l, stop())
	})
}

// mountUnreadable mounts a file system that fill has filled. It detects that the first file with
// the text is damaged, and fails its reads with EIO.
func mountUnreadable(t *testing.T, text string, fill func(dir string)) (dir string) {
	t.Helper()
	dir = mountBtrfs(t)
	image := filepath.Join(filepath.Dir(dir), "image")
	do := func(program string, args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	fill(dir)
	do("umount", dir)
	b, err := os.ReadFile(image)
	fixture.Must(t, err)
	at := bytes.Index(b, []byte(text))
	if at < 0 {
		t.Fatal("the text is not in the image")
	}
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	fixture.Must(t, err)
	if _, err := f.WriteAt([]byte{'?'}, int64(at)+1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	do("mount", "-o", "loop", image, dir)
	return dir
}

const unreadableText = "THE FIRST SECTOR OF THE FILE THAT THE DISK DOES NOT GIVE"

// mountUnreadableEpisode mounts a file system with an unreadable file in run-1.
func mountUnreadableEpisode(t *testing.T) string {
	return mountUnreadable(t, unreadableText, func(dir string) {
		l := newLabAt(t, dir)
		l.finishEpisodes("run-1", "run-2")
		fixture.WriteFile(l, l.path("episodes", "run-1", "blob.bin"), strings.Repeat(unreadableText, 1000))
	})
}

// newUnreadableLab returns a lab in such a directory.
func newUnreadableLab(t *testing.T, dir string) *lab {
	l := newLabOn(t, dir)
	for _, n := range []episode.Name{"run-1", "run-2"} {
		l.contents[n] = "data of " + string(n)
	}
	return l
}

// One file gives EIO: its episode fails for some minutes and is then held, with the name of the
// file. It is retried about once per hour, and ships when the file can be read. The other
// episodes ship.
func TestWhatTheDiskDoesNotGiveIsHeld(t *testing.T) {
	dir := mountUnreadableEpisode(t)
	defer time.AfterFunc(60*time.Second, func() { panic("virtual time stands still: something spins") }).Stop()
	synctest.Test(t, func(t *testing.T) {
		l := newUnreadableLab(t, dir)
		s, stop := l.startDaemon()
		time.Sleep(5 * time.Minute)
		st := l.inspectStatus()
		if len(st.Failing) != 1 || len(st.Held) != 0 || !strings.Contains(st.Failing[0].Cause, `read "blob.bin": input/output error`) {
			l.Fatalf("after 5 minutes: %+v\n%s", st, l.logs)
		}
		time.Sleep(time.Hour)
		h := l.held()["run-1"]
		if h.Reason != outbox.Unreadable || !strings.Contains(h.Cause, `read "blob.bin": input/output error`) ||
			strings.Contains(h.Cause, "by itself") { // status says so
			l.Errorf("after an hour: %+v\n%s", h, l.logs)
		}
		if s.Tally().Shipped != 1 {
			l.Errorf("the other one: %v", s.Tally())
		}
		loud := len(l.logs.warnings())
		time.Sleep(24 * time.Hour)
		if n := len(l.logs.warnings()); n != loud {
			l.Errorf("a day in which nothing changes has %d lines in the log: %q", n-loud, l.logs.warnings()[loud:])
		}
		fixture.Must(l, os.Remove(l.path("episodes", "run-1", "blob.bin")))
		time.Sleep(2 * time.Hour)
		if len(l.held()) != 0 || s.Tally().Shipped != 2 {
			l.Errorf("mended: %v, %v\n%s", l.held(), s.Tally(), l.logs)
		}
		fixture.Must(l, stop())
		l.checkNothingLost()
	})
}

// The same by cron: the attempts of all passes add up.
func TestPassesHoldWhatTheDiskDoesNotGive(t *testing.T) {
	dir := mountUnreadableEpisode(t)
	synctest.Test(t, func(t *testing.T) {
		l := newUnreadableLab(t, dir)
		l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Transient: 1})
		if told := l.logs.linesContaining(`WARN will try again`); len(told) != 1 || !strings.Contains(told[0], "blob.bin") {
			l.Errorf("the log says %q", told)
		}
		for range 3 {
			time.Sleep(4 * time.Minute)
			l.wantOnce(shipper.Tally{Scanned: 1, Transient: 1})
		}
		time.Sleep(4 * time.Minute)
		l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
		l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
		if h := l.held()["run-1"]; h.Reason != outbox.Unreadable {
			l.Errorf("held as %+v", h)
		}
		fixture.Must(l, os.Remove(l.path("episodes", "run-1", "blob.bin")))
		l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	})
}
