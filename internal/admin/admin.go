// Package admin serves the metrics and the health of a daemon to programs on the same machine.
//
//	/metrics   in the format of Prometheus
//	/healthz   200 if the daemon answers within ten seconds, else 503
//	/readyz    200 while it can do its job, else 503 and why
//	/          what the daemon shows to people, or a list of the above
//
// Everyone who can connect can read everything. By default, that is each user of this machine, so
// nothing served here may be secret. No request changes anything.
//
// Invariant: this listener never keeps the daemon from its work. Its connections and the time of each
// request are limited, and its failure does not end the daemon. A web page that is open on this
// machine can neither read anything nor cause a scrape: requests are refused if their Host does not
// name this listener, or if a page of another site makes them.
package admin

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/net/netutil"

	"cis490/internal/unixsocket"
)

// Limits of the listener.
const (
	maxConns       = 16
	headerTimeout  = 5 * time.Second
	requestTimeout = 30 * time.Second // until the response is written
	healthTimeout  = 10 * time.Second
	closeTimeout   = time.Second
	socketMode     = 0o660
)

// Daemon is what a listener serves.
type Daemon struct {
	Name    string // such as "receiver"
	Metrics http.Handler
	Alive   func(context.Context) bool  // reports whether the daemon works, as for a watchdog
	Ready   func(context.Context) error // says why the daemon cannot do its job
	// Pages serves all other paths, for people. It is nil if there are none.
	Pages http.Handler
}

// Listen opens the listener of c, or returns nil if there is none. If the address is a default that
// cannot be used it logs a warning and returns nil; an address that the file names is an error.
func Listen(c Config, log *slog.Logger) (net.Listener, error) {
	if c.Listen.text == "" {
		return nil, nil
	}
	ln, err := listen(c.Listen)
	if err == nil {
		log.Info("serving metrics", "address", c.Listen.logPrefix()+ln.Addr().String())
		return ln, nil
	}
	if !c.Listen.named {
		log.Warn("no metrics served", "err", err, "hint", "name another address in admin.listen, or \"\" for none")
		return nil, nil
	}
	return nil, &ListenError{c.Listen, err}
}

// Probe tries the address of c, for a check while the daemon does not run. It returns an error if a
// start would fail, and a note if it would warn.
func (c Config) Probe() (note string, err error) {
	if c.Listen.text == "" {
		return "", nil
	}
	if path := c.Listen.socketPath(); path != "" {
		info, err := os.Lstat(path) // it is not opened: its directory may be made at the start
		if err == nil && info.Mode().Type() != fs.ModeSocket {
			return "", &ListenError{c.Listen, fmt.Errorf("%s is not a socket", path)}
		}
		return "", nil
	}
	ln, err := listen(c.Listen)
	switch {
	case err == nil:
		return "", ln.Close()
	case c.Listen.named:
		return "", &ListenError{c.Listen, err}
	}
	return fmt.Sprintf("no metrics would be served: %v", err), nil
}

// SocketPath returns the path of the Unix socket of c, or "".
func (c Config) SocketPath() string { return c.Listen.socketPath() }

func listen(a Address) (net.Listener, error) {
	if path := a.socketPath(); path != "" {
		return unixsocket.Listen(path, socketMode)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp", a.text)
}

// logPrefix returns what precedes the address of a listener in the log.
func (a Address) logPrefix() string {
	if a.socketPath() != "" {
		return unixPrefix
	}
	return ""
}

// Serve serves d from ln until ctx ends. Without a listener it returns at once. It logs a failure and
// returns nil then, because uploads matter more than metrics.
func (c Config) Serve(ctx context.Context, ln net.Listener, d Daemon, log *slog.Logger) error {
	if ln == nil {
		return nil
	}
	var one http.Protocols
	one.SetHTTP1(true)
	srv := &http.Server{
		Handler:                      c.Handler(d),
		Protocols:                    &one,
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  headerTimeout,
		WriteTimeout:                 requestTimeout,
		MaxHeaderBytes:               8 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	srv.SetKeepAlivesEnabled(false) // an idle connection would take the place of another client
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(netutil.LimitListener(ln, maxConns)) }()
	select {
	case err := <-failed:
		log.Error("no metrics served any more", "err", err, "hint", "restart the "+d.Name)
		return nil
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if srv.Shutdown(closing) != nil {
		return srv.Close()
	}
	return nil
}
