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
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"cis490/internal/printable"
)

// NotifyReady reports that the start, or the reload after [NotifyReloading], is complete. Systemctl
// shows the status.
func NotifyReady(status string) error {
	return sendState(daemon.SdNotifyReady + "\nSTATUS=" + printable.Text(status))
}

// NotifyStatus replaces the status that systemctl shows.
func NotifyStatus(status string) error { return sendState("STATUS=" + printable.Text(status)) }

// NotifyReloading reports that a reload has begun. [NotifyReady] must follow, even if the reload
// failed.
func NotifyReloading() error {
	return sendState(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// ExtendTimeout asks for d more time from now for a start that exceeds the unit's TimeoutStartSec.
func ExtendTimeout(d time.Duration) error {
	return sendState(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// NotifyStopping reports that the daemon is about to end.
func NotifyStopping() error { return sendState(daemon.SdNotifyStopping) }

func sendState(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// RunWatchdog calls alive three times per interval of the unit's WatchdogSec, and reports each true
// to systemd. alive must test the work itself (take the lock, touch the disk), not a timer, and
// honour its context, which ends after a third of the interval. Systemd restarts a daemon that
// reports nothing for the whole interval.
//
// Watchdog returns nil when ctx ends, and at once if the unit has no watchdog.
func RunWatchdog(ctx context.Context, alive func(context.Context) bool) error {
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
			_ = sendState(daemon.SdNotifyWatchdog)
		}
	}
}

func answersWithin(ctx context.Context, limit time.Duration, alive func(context.Context) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return alive(ctx) && ctx.Err() == nil
}

// InheritedListeners returns the sockets that systemd opened for this process, in the order of the
// unit. It returns none without socket activation. It must be called once.
func InheritedListeners() ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take the sockets of the service manager: %w", err)
	}
	for i, l := range listeners {
		if l == nil {
			for _, open := range slices.DeleteFunc(listeners, func(l net.Listener) bool { return l == nil }) {
				open.Close()
			}
			return nil, fmt.Errorf("socket %d of the service manager takes no connections: use ListenStream= in its unit", i+1)
		}
	}
	return listeners, nil
}
