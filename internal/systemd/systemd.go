// Package systemd talks to the service manager: readiness, watchdog, status and sockets that
// it opened. Its functions do nothing where no service manager started the program, so that
// a program behaves the same under systemd, cron and a shell.
//
// Invariant: text for the service manager is one line of printable ASCII, whatever bytes an
// episode put into a name. A forged status line would be a command to the service manager.
package systemd

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"cis490/internal/printable"
)

// Ready reports that the start, or the reload after [Reloading], is complete. Systemctl shows the
// status.
func Ready(status string) error {
	return notify(daemon.SdNotifyReady + "\nSTATUS=" + printable.Text(status))
}

// Status replaces the status that systemctl shows.
func Status(status string) error { return notify("STATUS=" + printable.Text(status)) }

// Reloading reports that a reload has begun. [Ready] must follow, even if the reload failed.
func Reloading() error {
	return notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// ExtendTimeout asks for d more time from now for a start that exceeds the unit's TimeoutStartSec.
func ExtendTimeout(d time.Duration) error {
	return notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// Stopping reports that the daemon is about to end.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Watchdog calls alive three times per interval of the unit's WatchdogSec, and reports each true to
// systemd. alive must test the work itself (take the lock, touch the disk), not a timer, and honour
// its context, which ends after a third of the interval. Systemd restarts a daemon that reports
// nothing for the whole interval.
//
// Watchdog returns nil when ctx ends, and at once if the unit has no watchdog.
func Watchdog(ctx context.Context, alive func(context.Context) bool) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the watchdog's interval: %w", err)
	}
	if interval == 0 {
		return nil
	}
	third := max(interval/3, time.Microsecond)
	tick := time.NewTicker(third)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if answersWithin(ctx, third, alive) {
			// A failure has the effect of a false: systemd acts if it lasts.
			_ = notify(daemon.SdNotifyWatchdog)
		}
	}
}

func answersWithin(ctx context.Context, limit time.Duration, alive func(context.Context) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return alive(ctx) && ctx.Err() == nil
}

// Listeners returns the sockets that systemd opened for this process, in the order of the unit. It
// returns none without socket activation. It must be called once.
func Listeners() ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take the sockets of the service manager: %w", err)
	}
	for i, l := range listeners {
		if l == nil {
			closeAll(listeners)
			return nil, fmt.Errorf("socket %d of the service manager takes no connections: use ListenStream= in its unit", i+1)
		}
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		if l != nil {
			l.Close()
		}
	}
}
