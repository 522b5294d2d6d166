package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cis490/internal/systemd"
)

// UnitNames names the units of a program.
type UnitNames struct {
	Daemon  string // the service of the daemon
	Starter string // the timer or socket that may start a service instead
	Started string // the service that Starter starts: with a timer, not that of the daemon
}

// Unit is what systemd knew about the service of a program when it was asked, once.
type Unit struct {
	Service string
	Starter string // the unit that starts the service; empty if the service starts at boot
	// Waiting says that the starter is active, so that the service need not run now.
	Waiting bool

	state   systemd.UnitState // of the service; nil if err is not
	starter systemd.UnitState // nil if Starter is empty
	err     error             // why systemd did not answer
	// usesConfig says that the service reads the configuration file of the command.
	usesConfig bool
}

// errNoSystemd is the error of a machine without units.
var errNoSystemd = errors.New("systemd does not run here")

// unitProperties are those of a service that [CheckUnit] and a bundle show.
var unitProperties = []string{"LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "ExecMainStatus", "ExecStart", "ActiveEnterTimestamp"}

// FindUnit asks systemd for the unit that starts a program with a configuration file. It runs programs:
// it is for commands only.
func FindUnit(ctx context.Context, names UnitNames, file, defaultFile string) Unit {
	if !systemd.IsRunning() {
		return Unit{Service: names.Daemon, err: errNoSystemd}
	}
	starter, err := systemd.ShowUnit(ctx, names.Starter, "ActiveState", "UnitFileState")
	if err != nil {
		starter = nil // the service may be known nevertheless
	}
	u := chooseUnit(names, starter)
	u.state, u.err = systemd.ShowUnit(ctx, u.Service, unitProperties...)
	u.usesConfig = u.err == nil && u.state.RunsConfig(file, defaultFile)
	u.Waiting = u.Waiting && u.usesConfig
	return u
}

// chooseUnit decides by the state of the starter which service is examined.
func chooseUnit(names UnitNames, starter systemd.UnitState) Unit {
	waiting := starter.FirstValue("ActiveState") == "active"
	if waiting || starter.FirstValue("UnitFileState") == "enabled" {
		return Unit{Service: names.Started, Starter: names.Starter, Waiting: waiting, starter: starter}
	}
	return Unit{Service: names.Daemon}
}

// CheckUnit reports the state of a service, or of the unit that starts it instead. It is skipped if the
// service does not use the configuration file.
func CheckUnit(u Unit) Finding {
	const check = "unit"
	switch {
	case u.err != nil:
		return Skippedf(check, "%v", u.err)
	case u.state.FirstValue("LoadState") != "loaded":
		return Skippedf(check, "%s is not installed", u.Service)
	case !u.usesConfig:
		return Skippedf(check, "%s uses another configuration file", u.Service)
	}
	return judgeUnit(u.Service, u.Starter, u.state, u.starter)
}

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
