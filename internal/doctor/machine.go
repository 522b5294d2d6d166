package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/serviceuser"
	"cis490/internal/systemd"
)

// CheckUser names the user that the other checks run as.
func CheckUser(wasRoot bool) Finding {
	us := serviceuser.Current()
	if wasRoot {
		return OKf("user", "%s, who owns the data of the daemon; root started this", us.Name())
	}
	return OKf("user", "%s", us.Name())
}

// CheckKernel names the kernel. Refused is what a check of its system calls found.
func CheckKernel(refused error) Finding {
	if refused != nil {
		return FromError("kernel", fmt.Errorf("kernel %s: %w", KernelRelease(), refused), "use a newer kernel")
	}
	return OKf("kernel", "Linux %s has the system calls that are needed", KernelRelease())
}

// KernelRelease returns the release of the kernel, such as 6.12.48+deb13-amd64.
func KernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// CheckClock reports whether the kernel counts the clock as synchronized.
func CheckClock() Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return judgeClock(state, t, err)
}

// timeError is the state of a clock that is not synchronized (adjtimex(2)).
const timeError = 5

func judgeClock(state int, t unix.Timex, err error) Finding {
	switch {
	case err != nil:
		return Skippedf("clock", "adjtimex: %v (a container may refuse it)", err)
	case state == timeError || t.Status&unix.STA_UNSYNC != 0:
		return Warningf("clock", "run 'timedatectl set-ntp true', or install chrony: certificates depend on the clock",
			"not synchronized, as far as the kernel knows")
	}
	return OKf("clock", "synchronized, at most %s off", formatTime(time.Duration(t.Maxerror)*time.Microsecond))
}

// Unit is a service, and the unit that starts it instead: a timer or a socket.
type Unit struct {
	Service string
	Starter string
	// Waiting says that the starter is active, so that the service needs not run now.
	Waiting bool
}

// FindUnit returns the unit that starts a program with a configuration file. Started is the service of
// the starter: with a timer, that is a service other than the daemon.
func FindUnit(ctx context.Context, file, defaultFile, daemon, starter, started string) Unit {
	if !systemd.IsRunning() {
		return Unit{Service: daemon}
	}
	by, err := systemd.ShowUnit(ctx, starter, "ActiveState", "UnitFileState")
	if err != nil {
		return Unit{Service: daemon}
	}
	u := chooseUnit(daemon, starter, started, by)
	if u.Waiting {
		s, err := systemd.ShowUnit(ctx, u.Service, "LoadState", "ExecStart")
		u.Waiting = err == nil && s.RunsConfig(file, defaultFile)
	}
	return u
}

func chooseUnit(daemon, starter, started string, by systemd.UnitState) Unit {
	waiting := by.FirstValue("ActiveState") == "active"
	if waiting || by.FirstValue("UnitFileState") == "enabled" {
		return Unit{Service: started, Starter: starter, Waiting: waiting}
	}
	return Unit{Service: daemon}
}

// CheckUnit reports the state of a service, or of a unit that starts it instead. It is skipped if the
// service does not use the configuration file.
func CheckUnit(ctx context.Context, file, defaultFile string, u Unit) Finding {
	service, starter := u.Service, u.Starter
	if !systemd.IsRunning() {
		return Skippedf("unit", "systemd does not run here")
	}
	s, err := systemd.ShowUnit(ctx, service, UnitProperties...)
	if err != nil {
		return Skippedf("unit", "%v", err)
	}
	var by systemd.UnitState
	if starter != "" {
		if by, err = systemd.ShowUnit(ctx, starter, "ActiveState", "UnitFileState"); err != nil {
			by = nil
		}
	}
	if s.FirstValue("LoadState") != "loaded" {
		return Skippedf("unit", "%s is not installed", service)
	}
	if !s.RunsConfig(file, defaultFile) {
		return Skippedf("unit", "%s uses another configuration file", service)
	}
	return judgeUnit(service, starter, s, by)
}

// UnitProperties are those that [CheckUnit] reads.
var UnitProperties = []string{"LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "ExecMainStatus", "ExecStart", "ActiveEnterTimestamp"}

func judgeUnit(service, starter string, s, by systemd.UnitState) Finding {
	name := strings.TrimSuffix(service, ".service")
	const check = "unit"
	active, enabled := s.FirstValue("ActiveState"), s.FirstValue("UnitFileState")
	byActive, byEnabled := by.FirstValue("ActiveState") == "active", by.FirstValue("UnitFileState") == "enabled"
	switch {
	case active == "failed" && s.FirstValue("ExecMainStatus") == "74":
		return Failedf(check, "see 'A storage fault' in docs/operations.md before you start it again", "%s has ended with a storage fault", service)
	case active == "failed":
		return Failedf(check, fmt.Sprintf("run 'journalctl -u %[1]s -n 20', fix what it says, then 'systemctl restart %[1]s'", name),
			"%s has failed (%s, exit code %s)", service, s.FirstValue("Result"), s.FirstValue("ExecMainStatus"))
	case s.FirstValue("SubState") == "auto-restart":
		return Failedf(check, fmt.Sprintf("run 'journalctl -u %s -n 20' and fix what it says", name),
			"%s keeps failing: systemd has restarted it %s times (exit code %s)", service, s.FirstValue("NRestarts"), s.FirstValue("ExecMainStatus"))
	case active == "active" && (enabled == "enabled" || byEnabled):
		return OKf(check, "%s is active and starts at boot", service)
	case active == "active" && enabled == "disabled":
		return Warningf(check, "run 'systemctl enable "+name+"'", "%s is active, but does not start at boot", service)
	case active == "active" || active == "activating":
		return OKf(check, "%s is %s (%s)", service, active, enabled)
	case byActive:
		return OKf(check, "%s is active, and starts %s", starter, service)
	case byEnabled:
		return Warningf(check, "run 'systemctl start "+starter+"'", "%s is enabled, but not active: nothing starts %s", starter, service)
	}
	return Warningf(check, "run 'systemctl enable --now "+name+"'", "%s is %s", service, active)
}

// CheckCanceled returns the finding of a check that ^C or a timeout ended, and whether err is one.
func CheckCanceled(check string, err error) (Finding, bool) {
	if errors.Is(err, context.Canceled) {
		return Skippedf(check, "interrupted"), true
	}
	return Finding{}, false
}
