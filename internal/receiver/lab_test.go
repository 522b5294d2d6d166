package receiver_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"cis490/internal/backendtest"
	"cis490/internal/ca"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/receiver"
	"cis490/internal/wire"
)

// lab is a receiver with its CA and its data directory.
type lab struct {
	backendtest.Lab
	pki string
	cfg receiver.Config
	log slog.Handler // of the next start; nil is Stops
	r   *receiver.Receiver
	b   *diskbackend.Backend
}

// newLab opens a receiver on a data directory, which change may replace.
func newLab(tb testing.TB, change func(*receiver.Config)) *lab {
	tb.Helper()
	l := &lab{Lab: backendtest.Lab{TB: tb, Data: fixture.MemoryDir(tb)}, pki: tb.TempDir()}
	fixture.Must(tb, ca.Init(l.pki, ca.InitOptions{Names: []string{"127.0.0.1"}}))
	l.cfg = receiver.DefaultConfig()
	l.cfg.MinFree = 0
	l.cfg.DataDir = config.Path(l.Data)
	l.cfg.TLS = receiver.TLSConfig{
		CertFile:     config.Path(filepath.Join(l.pki, "server.crt")),
		KeyFile:      config.Path(filepath.Join(l.pki, "server.key")),
		ClientCAFile: config.Path(filepath.Join(l.pki, "hosts-ca.crt")),
	}
	if change != nil {
		change(&l.cfg)
		l.Data = string(l.cfg.DataDir)
	}
	l.start()
	tb.Cleanup(l.stop)
	return l
}

func (l *lab) start() {
	l.Helper()
	log := l.log
	if log == nil {
		log = &l.Stops
	}
	r, err := receiver.OpenGateAndNew(l.Context(), l.cfg, "test", "the lab", slog.New(log))
	fixture.Must(l, err)
	l.use(r)
}

// use makes r the lab's receiver.
func (l *lab) use(r *receiver.Receiver) {
	l.r, l.b, l.Backend = r, r.Backend(), r.Backend()
}

func (l *lab) stop() {
	if l.r != nil {
		l.r.Close()
		l.r = nil
	}
}

// restart ends the receiver, changes what is on the disk and starts it again.
func (l *lab) restart(meanwhile func()) {
	l.Helper()
	l.stop()
	meanwhile()
	l.start()
}

func key(host, name string) episode.Key { return backendtest.Key(host, name) }

func uploadOf(k episode.Key, content []byte) wire.Upload { return backendtest.UploadOf(k, content) }

func packNoise(n int, seed byte) []byte { return backendtest.PackNoise(n, seed) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// listen serves the receiver and returns its address and what Serve returns.
func (l *lab) listen(ctx context.Context) (addr string, served <-chan error) {
	l.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(l, err)
	done := make(chan error, 1)
	go func() { done <- l.r.Serve(ctx, ln, nil) }()
	return ln.Addr().String(), done
}

// issueCredentials issues a new certificate to a host.
func (l *lab) issueCredentials(host episode.Name) *credentials.Client {
	l.Helper()
	out := l.TempDir()
	_, err := ca.IssueHost(l.pki, host, out, ca.IssueOptions{})
	fixture.Must(l, err)
	creds, err := credentials.Load(credentials.Config{
		CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, string(host)+".crt"), KeyFile: filepath.Join(out, string(host)+".key"),
	})
	fixture.Must(l, err)
	return creds
}

// newClient returns a shipper's client with a new certificate.
func (l *lab) newClient(addr string, host episode.Name) *wire.Client {
	l.Helper()
	return l.newClientWith(addr, host, l.issueCredentials(host))
}

func (l *lab) newClientWith(addr string, host episode.Name, creds *credentials.Client) *wire.Client {
	l.Helper()
	c, err := wire.NewClient(wire.ClientConfig{URL: "https://" + addr, Host: host, DialTLS: creds.DialTLS(wire.Dial), Conns: 8})
	fixture.Must(l, err)
	l.Cleanup(c.CloseIdle)
	return c
}
