package receiver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"cis490/internal/access"
	"cis490/internal/admission"
	"cis490/internal/gate"
	"cis490/internal/refusal"
	"cis490/internal/unixsocket"
	"cis490/internal/wire"
)

// checkInterval is how often the storage is checked while there is no request.
const checkInterval = 2 * time.Second

// Waits of the server. A body has none: see [wire.StallLimits].
const (
	headerTimeout = 10 * time.Second // also for the TLS handshake
	idleTimeout   = 3 * time.Minute  // longer than the shippers'
	rateWindow    = time.Minute

	// Uploads in flight may continue for drainTimeout after a shutdown begins. Their senders get a
	// response within closeTimeout after that.
	drainTimeout = 3 * time.Second
	closeTimeout = time.Second
	// handlerTimeout is how long handlers may outlive their server before its directories stay open.
	handlerTimeout = 500 * time.Millisecond
)

// Run serves requests from ln, and from proxy unless it is nil. In the background it verifies the
// store, drops expired uploads, follows what other receivers share, renews the receiver's certificate,
// records the free space and delivers events to the webhook. It returns when ctx ends or one of these
// fails.
func (r *Receiver) Run(ctx context.Context, ln, proxy net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.Serve(ctx, ln, proxy) })
	g.Go(func() error { return r.backend.Run(ctx) })
	g.Go(func() error { return r.renewOwn(ctx) })
	g.Go(func() error { return r.shared.run(ctx, r.backend) })
	g.Go(func() error {
		r.recordSpace(ctx)
		return nil
	})
	g.Go(func() error {
		r.events.hooks.Deliver(ctx)
		return nil
	})
	return g.Wait()
}

// Serve serves requests from ln, and from proxy unless it is nil, until ctx ends, and returns
// nil then. It returns an error wrapping [durable.ErrFault] if the storage can no longer be
// trusted, and a [*pathwatch.MovedError] if one of its directories is no longer at its path.
func (r *Receiver) Serve(ctx context.Context, ln, proxy net.Listener) error {
	port := r.newServer(r.gate.IdentifyCaller)
	if r.join != nil {
		port.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){wire.JoinProtocol: r.join.serveConn}
	}
	all := servers{port}
	failed := make(chan error, 2)
	go func() { failed <- port.Serve(tls.NewListener(r.conns.LimitListener(ln), r.gate.TLSConfig())) }()
	if proxy != nil {
		forwarded := func(req *http.Request) (gate.Caller, error) { return r.gate.IdentifyForwarded(req, r.cfg.Proxy.Header) }
		behind := r.newServer(forwarded)
		all = append(all, behind)
		go func() { failed <- behind.Serve(r.conns.LimitProxy(proxy)) }()
	}
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case err := <-failed:
			return errors.Join(fmt.Errorf("serve: %w", err), all.Close())
		case err := <-r.backend.Faults():
			// No request is answered any more.
			return errors.Join(err, all.Close())
		case <-tick.C:
			_ = r.backend.CheckStorage() // its error arrives on Faults
		case <-ctx.Done():
			return r.shutDown(all)
		}
	}
}

// servers are the servers of the TLS port and of the proxy socket.
type servers []*http.Server

func (s servers) Shutdown(ctx context.Context) error {
	var g errgroup.Group
	for _, srv := range s {
		g.Go(func() error { return srv.Shutdown(ctx) })
	}
	return g.Wait()
}

func (s servers) Close() error {
	var errs []error
	for _, srv := range s {
		errs = append(errs, srv.Close())
	}
	return errors.Join(errs...)
}

// shutDown lets uploads finish for drainTimeout, and then asks their senders to retry.
func (r *Receiver) shutDown(srv servers) error {
	interrupt := time.AfterFunc(drainTimeout, func() { r.cancelBase(wire.ErrDraining) })
	defer interrupt.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout+closeTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		r.log.Warn("shutdown timeout: closed active connections")
		return srv.Close()
	}
	return nil
}

func (r *Receiver) newServer(caller func(*http.Request) (gate.Caller, error)) *http.Server {
	var one http.Protocols
	one.SetHTTP1(true)
	return &http.Server{
		Handler: r.access.WrapHandler(r.baseCtx, &wire.Handler{
			Backend:     r.backend,
			Identify:    func(req *http.Request) (wire.Caller, error) { return r.identifyCaller(req, caller) },
			StallLimits: wire.StallLimits{Idle: r.cfg.Limits.IdleTimeout.Std(), MinRate: int64(r.cfg.Limits.MinRate), Window: rateWindow},
			Limits:      r.cfg.wireLimits(),
			Authority:   r.certificateAuthority(),
			Reports:     r,
			Observe:     r.events.counters.countRequest,
			About:       wire.ServerInfo{Version: r.version, Protocol: []string{"v1"}},
			Log:         r.log,
		}),
		Protocols:         &one,
		ReadHeaderTimeout: r.headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		// It would answer before the client was identified.
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return r.baseCtx },
		ConnContext:                  admission.WithConn,
		ErrorLog:                     log.New(&handshakeLog{log: r.log, limit: rate.NewLimiter(1, 10)}, "", 0),
	}
}

// identifyCaller identifies the caller of a request and admits the request. Callers without a host
// share one budget.
func (r *Receiver) identifyCaller(req *http.Request, callerOf func(*http.Request) (gate.Caller, error)) (wire.Caller, error) {
	caller, err := callerOf(req)
	if err := r.requests.Wait(req.Context(), caller.Host); err != nil {
		return wire.Caller{Host: caller.Host}, err
	}
	if err == nil {
		err = r.access.Admit(req, caller)
	}
	release := func() {}
	if err == nil {
		var refused error
		release, refused = r.conns.BindHost(req.Context(), caller.Host)
		if refused != nil {
			return wire.Caller{Host: caller.Host}, refusal.FromAdmission(refused)
		}
	}
	if err != nil {
		return wire.Caller{Host: caller.Host}, access.RefuseCaller(err)
	}
	r.noteContact(caller)
	return wire.Caller{
		Host: caller.Host,
		Auth: wire.Auth{Method: caller.Method, CertNotAfter: caller.NotAfter},

		Release: release,
	}, nil
}

// handshakeLog logs the errors of package net/http for connections without a request: a wrong
// certificate, a port scan. Anyone can cause these lines, so their rate is limited.
type handshakeLog struct {
	log        *slog.Logger
	limit      *rate.Limiter
	suppressed int // net/http serializes writes
}

// handshakeHint returns what to do about a failed TLS handshake, or "". Package net/http
// passes only the text of the error.
func handshakeHint(text string) string {
	switch {
	case strings.Contains(text, "unknown authority"):
		return "its certificate is not of a CA in tls.client_ca_file: issue it with this receiver's 'receiver pki issue'; " +
			"the receiver's own certificate is no host's"
	case strings.Contains(text, "incompatible key usage"):
		return "its certificate is for TLS servers, and no host's: issue one with 'receiver pki issue'"
	case strings.Contains(text, "didn't provide a certificate"):
		return "it showed no certificate: another program connects, or a proxy that ends TLS; every shipper shows one"
	case strings.Contains(text, "has expired or is not yet valid"):
		return "issue a new certificate with 'receiver pki issue --force', or set the clock of whichever machine is wrong"
	}
	return ""
}

func (h *handshakeLog) Write(p []byte) (int, error) {
	if !h.limit.Allow() {
		h.suppressed++
		return len(p), nil
	}
	text := string(bytes.TrimSpace(p))
	attrs := []any{"err", text, "others", h.suppressed}
	if hint := handshakeHint(text); hint != "" {
		attrs = append(attrs, "hint", hint)
	}
	h.log.Info("refused a connection", attrs...)
	h.suppressed = 0
	return len(p), nil
}

// proxyMode allows the group of the socket's directory to connect. The proxy's user must be in it.
const proxyMode = 0o660

// ListenProxy opens the socket for a proxy, or returns nil if none is configured. The lock of the data
// directory prevents two receivers from using one socket.
func (r *Receiver) ListenProxy() (net.Listener, error) {
	if r.cfg.Proxy.Socket == "" {
		return nil, nil
	}
	return unixsocket.Listen(string(r.cfg.Proxy.Socket), proxyMode)
}
