package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"cis490/internal/printable"
)

// IsRunning reports whether systemd is the service manager of the machine, as sd_booted(3) does.
func IsRunning() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// showTimeout bounds the wait for systemctl.
const showTimeout = 5 * time.Second

// UnitState has the properties of a unit, as systemctl prints them. A property may have several
// values.
type UnitState map[string][]string

// FirstValue returns the first value of a property, or "".
func (u UnitState) FirstValue(property string) string {
	if len(u[property]) == 0 {
		return ""
	}
	return u[property][0]
}

// RunsConfig reports whether the service in u starts its program with a configuration file. Without
// --config on its command line it uses the default. The property ExecStart is required.
func (u UnitState) RunsConfig(file, defaultFile string) bool {
	command := u.FirstValue("ExecStart")
	switch {
	case u.FirstValue("LoadState") != "loaded":
		return false
	case strings.Contains(command, "--config"):
		return strings.Contains(command, file)
	}
	return file == defaultFile
}

// ShowUnit returns properties of a unit from systemctl. It is for commands only: a daemon executes
// no programs.
func ShowUnit(ctx context.Context, unit string, properties ...string) (UnitState, error) {
	ctx, cancel := context.WithTimeout(ctx, showTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", "show", "--no-pager", "--property="+strings.Join(properties, ","), "--", unit)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("systemctl show %s: %w", unit, err)
	}
	u := UnitState{}
	for line := range strings.Lines(string(out)) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			u[key] = append(u[key], printable.Text(value))
		}
	}
	return u, nil
}

// controlTimeout bounds the wait for systemctl to start a service.
const controlTimeout = 2 * time.Minute

// Control runs systemctl with an action on a unit. It is for commands of root only.
func Control(ctx context.Context, action, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", "--quiet", action, "--", unit)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s %s: %w: %s", action, unit, err, printable.Text(strings.TrimSpace(string(out))))
	}
	return nil
}
