package notify

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"cis490/internal/retry"
)

const (
	// heartbeatRetry is how soon a heartbeat that failed is sent again. Monitors count a heartbeat as
	// missing only after a while.
	heartbeatRetry = 30 * time.Second
	// readyWait is how soon a daemon that cannot do its job is asked again. A shipper must reach its receiver
	// first.
	readyWait = 5 * time.Second
)

// Heartbeat calls a URL while a daemon can do its job. A monitor such as healthchecks.io raises the alarm
// when the calls stop, also because the machine is off.
type Heartbeat struct {
	Config HeartbeatConfig
	Agent  string                      // names the program in requests
	Ready  func(context.Context) error // says why the daemon cannot do its job
	Log    *slog.Logger

	last atomic.Int64 // Unix nanoseconds of the last success
}

// LastSuccess returns when a call of the URL last succeeded, or the zero time.
func (h *Heartbeat) LastSuccess() time.Time {
	if n := h.last.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// Run calls the URL until ctx ends. It never fails: a daemon works without its monitor.
func (h *Heartbeat) Run(ctx context.Context) {
	if h.Config.URLFile == "" {
		return
	}
	client := newClient()
	defer client.CloseIdleConnections()
	failing := false
	for {
		next := h.Config.Interval.Std()
		if h.Ready(ctx) != nil {
			next = min(next, readyWait)
		} else {
			to, err := h.call(ctx, client)
			if ctx.Err() != nil {
				return
			}
			h.logChange(failing, to, err)
			failing = err != nil
			if failing {
				next = min(next, heartbeatRetry)
			}
		}
		if !retry.Sleep(ctx, next) {
			return
		}
	}
}

// call reads the URL from its file, which may have been changed, and calls it.
func (h *Heartbeat) call(ctx context.Context, client *http.Client) (to endpoint, err error) {
	if to, err = loadEndpoint(string(h.Config.URLFile), ""); err != nil {
		return to, err
	}
	if err = sendRequest(ctx, client, http.MethodGet, to, nil, map[string]string{"User-Agent": h.Agent}); err == nil {
		h.last.Store(time.Now().UnixNano())
	}
	return to, err
}

func (h *Heartbeat) logChange(failing bool, to endpoint, err error) {
	switch {
	case err != nil && !failing:
		h.Log.Warn("heartbeat fails", "url", to.public, "err", err, "hint", "the monitor will report this daemon as down; check heartbeat.url_file and the network")
	case err == nil && failing:
		h.Log.Info("heartbeat works again", "url", to.public)
	}
}
