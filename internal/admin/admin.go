// Package admin serves the metrics and the health of a daemon to programs on the same machine.
//
//	/metrics   in the format of Prometheus
//	/healthz   200 if the daemon answers within ten seconds, else 503
//	/readyz    200 while it can do its job, else 503 and why
//	/          what the daemon shows to people, or a list of the above
//
// Anyone who can connect can read. By default that is whoever runs programs on this machine, so
// nothing served here may be secret, and no request changes anything.
//
// Invariant: what is served here costs the daemon's work little. Connections, requests and the time of
// each are bounded in total, and its failure does not end the daemon. A page in a browser on this
// machine can neither read anything nor cause a scrape: a Host that does not name this listener is
// refused, and so are requests that a page of another site makes.
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
		log.Info("serving metrics", "address", c.Listen.network()+ln.Addr().String())
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
	if c.Listen.text == "" || c.Listen.path() != "" {
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
func (c Config) SocketPath() string { return c.Listen.path() }

func listen(a Address) (net.Listener, error) {
	if path := a.path(); path != "" {
		return unixsocket.Listen(path, socketMode)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp", a.text)
}

// network returns the prefix of an address in the log.
func (a Address) network() string {
	if a.path() != "" {
		return unixPrefix
	}
	return ""
}

// Serve serves d from ln until ctx ends. Without a listener it returns at once. Its failure is logged: it
// must not end the daemon.
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
