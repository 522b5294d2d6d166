package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/admin"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/gate"
	"cis490/internal/logging"
	"cis490/internal/notify"
	"cis490/internal/receiver"
	"cis490/internal/systemd"
)

// runDaemon receives episodes until SIGTERM.
func runDaemon(c *cobra.Command, o *options) error {
	hup := cli.NotifyHangup()
	if err := receiver.CheckKernel(); err != nil {
		return err
	}
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	log, flush := logging.NewDaemon(o.verbose, cfg.LogFormat)
	defer flush()
	gate, err := gate.Open(cfg.TrustConfig())
	if err != nil {
		return trustError(err, cfg, o.config)
	}
	ln, activated, lerr := openListener(cfg.Listen) // now, because only root may listen on a port below 1024
	if ln != nil {
		defer ln.Close()
	}
	state := stateOf(cfg)
	state.Create = true
	missing := cli.MissingDirs(cfg.DataDir)
	if err := cli.BecomeServiceUser(c, state); err != nil {
		return err
	}
	reloads := &cli.Reloader{Log: log, Files: cfg.TrustConfig().Files(), Config: o.config, Check: cli.CheckLine(c)}
	reloads.Prepare()
	recovery := &recoveryProgress{log: log}
	r, err := receiver.New(c.Context(), gate, cfg, cli.Version(), cli.LockHolder("receiver"), log, recovery.addBytes)
	if err != nil {
		return startError(c.Context(), err, o.config)
	}
	defer r.Close()
	cli.LogFolders(log, missing, config.LiteralPaths(cfg))
	if lerr != nil { // that another receiver has the data directory is the better error
		return lerr
	}
	if activated {
		warnListen(log, cfg.Listen, ln.Addr())
	}
	cli.WarnAtStart(log, receiver.BareSizes(o.config), string(cfg.DataDir), secretFiles(cfg)...)
	proxy, err := r.ListenProxy()
	if err != nil {
		return fmt.Errorf("proxy.socket: %w", err)
	}
	adminLn, err := admin.Listen(cfg.Admin, log)
	if err != nil {
		return err
	}
	source := &factSource{cfg: cfg, bucket: r.Bucket()}
	heartbeat := &notify.Heartbeat{Config: cfg.Heartbeat, Agent: hookAgent(), Ready: r.Ready, Log: log}
	served, err := newDaemonAdmin(r, source, heartbeat, log)
	if err != nil {
		return err
	}
	log.Info("receiver started", "version", cli.Version(), "listen", ln.Addr().String(), "data_dir", string(cfg.DataDir))
	reloads.Load = r.Reload
	expiry := &expiryLog{log: log, receiver: r}
	return reloads.RunDaemon(c.Context(), hup, "listening on "+ln.Addr().String(), r.Alive, expiry.warnOfExpiry, func(ctx context.Context) error {
		if err := r.Run(ctx, ln, proxy); err != nil {
			return err
		}
		log.Info("receiver stopped")
		return nil
	}, func(ctx context.Context) error { return cfg.Admin.Serve(ctx, adminLn, served, log) },
		func(ctx context.Context) error { return runHooks(ctx, r.Hooks(), source, heartbeat) })
}

// expiryLog warns of certificates that expire: the receiver's own, without which all hosts stop
// shipping, and those of the hosts.
type expiryLog struct {
	log      *slog.Logger
	receiver *receiver.Receiver
	own      cli.ExpiryWarner
	hosts    map[episode.Name]*cli.ExpiryWarner
}

func (e *expiryLog) warnOfExpiry() {
	now := time.Now()
	hint := slog.String("hint", "issue a new one with 'receiver pki renew', then reload")
	switch ends := e.receiver.CertNotAfter(); {
	case now.After(ends): // daily: no host can ship
		e.log.Error("certificate has expired", "not_after", ends, hint)
	case now.Before(e.receiver.CertNotBefore()):
		e.log.Error("certificate is not valid yet", "not_before", e.receiver.CertNotBefore(), "hint", "is the clock of this machine right?")
	case e.own.IsDue(ends, now):
		e.log.Warn("certificate expires soon", "days", cli.DaysLeft(ends, now), hint)
	}
	e.warnOfHosts(now)
}

// warnOfHosts warns of the certificates with which hosts were here last. A host that has not been here
// since its certificate expired a month ago is left to 'receiver hosts'.
func (e *expiryLog) warnOfHosts(now time.Time) {
	warned := e.hosts
	e.hosts = make(map[episode.Name]*cli.ExpiryWarner)
	for host, ends := range e.receiver.HostExpiries() {
		if now.Sub(ends) > cli.FirstExpiryWarning {
			continue
		}
		w := warned[host]
		if w == nil {
			w = new(cli.ExpiryWarner)
		}
		e.hosts[host] = w
		if !w.IsDue(ends, now) {
			continue
		}
		log := e.log.With("host", host, "not_after", ends.Format(time.RFC3339),
			"hint", fmt.Sprintf("the log of that host says why it was not renewed; to let it join again, run 'receiver invite %s --again'", host))
		if now.After(ends) {
			log.Warn("host certificate has expired")
		} else {
			log.Warn("host certificate expires soon", "days", cli.DaysLeft(ends, now))
		}
	}
}

// openListener returns systemd's socket if there is one, and reports that in activated. Otherwise
// it listens on the address of the configuration.
func openListener(addr string) (ln net.Listener, activated bool, err error) {
	sockets, err := systemd.InheritedListeners()
	if err != nil {
		return nil, false, err
	}
	if len(sockets) > 1 {
		return nil, false, cli.UsageError(errors.New("the service manager gave more than one socket: keep one ListenStream="))
	}
	if len(sockets) == 1 {
		return sockets[0], true, nil
	}
	ln, err = listenOn(addr)
	return ln, false, err
}

func listenOn(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // plain TCP is what the timeouts are known for
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, listenError(err)
	}
	return ln, nil
}

// listenError adds what to do about an address that cannot be used.
func listenError(err error) error {
	err = fmt.Errorf("listen: %w", err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; another program listens there; find it with 'ss -ltnp', or change listen", err)
	case errors.Is(err, syscall.EACCES):
		return cli.UsageError(fmt.Errorf("%w; only root can use ports below 1024; change listen", err))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; no interface has that address yet; change listen, or leave the address out: \":8443\"", err)
	}
	if _, dns := errors.AsType[*net.DNSError](err); dns {
		return fmt.Errorf("%w; the name in listen cannot be resolved; use an IP address, or leave it out: \":8443\"", err)
	}
	if _, address := errors.AsType[*net.AddrError](err); address || errors.Is(err, syscall.EAFNOSUPPORT) {
		return cli.UsageError(fmt.Errorf("%w; listen must be \"ADDRESS:PORT\" or \":PORT\"", err))
	}
	return err
}
