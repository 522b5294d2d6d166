package bucket

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"cis490/internal/pki"
)

// Limits of requests.
const (
	dialTimeout    = 10 * time.Second
	stallTimeout   = time.Minute // without a byte in either direction, also while the engine commits
	idleTimeout    = 50 * time.Second
	maxConnections = 256 // to each endpoint; an upload that is not spooled holds one
	maxHeader      = 64 << 10
	maxErrorBody   = 64 << 10 // bytes of a response in which an engine's error is looked for
)

// errStalled says that an engine has made no progress for stallTimeout.
var errStalled = errors.New("the object store did not respond in time")

// newTransport returns the transport of all requests.
func newTransport(c Config) (*http.Transport, error) {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		MaxConnsPerHost:        maxConnections,
		MaxIdleConnsPerHost:    maxConnections / 4,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // an archive must arrive as it was stored
	}
	if c.CAFile != "" {
		_, pool, err := pki.ReadPool(string(c.CAFile))
		if err != nil {
			return nil, fmt.Errorf("ca_file of the object store: %w", err)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}

// exchange is what only a transport sees of a response.
type exchange struct {
	serverTime time.Time // of the last response; zero if there was none
	server     string
	missing    bool // an engine, and not what is in between, said that an object does not exist
}

type exchangeKey struct{}

// watchedTransport cuts off requests that stall. It sees each request of package minio.
type watchedTransport struct {
	next  http.RoundTripper
	stall time.Duration
}

func (t watchedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{limit: t.stall, timer: time.AfterFunc(t.stall, func() { cancel(errStalled) })}
	w.end = func() {
		w.timer.Stop()
		cancel(nil)
	}
	w.stalled = func() bool { return errors.Is(context.Cause(ctx), errStalled) }
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedBody{ReadCloser: req.Body, watch: w, source: true}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		if w.stalled() {
			err = errStalled
		}
		w.end()
		return nil, err
	}
	w.timer.Stop()
	resp.Body = &watchedBody{ReadCloser: resp.Body, watch: w}
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		x.record(resp)
	}
	return resp, nil
}

// record keeps what package minio does not tell of a response. It takes each 404 for one of a missing
// object, also that of a proxy or of a wrong key.
func (x *exchange) record(resp *http.Response) {
	x.serverTime, _ = http.ParseTime(resp.Header.Get("Date"))
	x.server = resp.Header.Get("Server")
	if resp.StatusCode != http.StatusNotFound {
		return
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // an error stays one for the next reader
	x.missing = bytes.Contains(text, []byte("<Code>NoSuchKey</Code>"))
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), resp.Body), resp.Body}
}

// watch is the timer of one request, which runs while the engine is awaited.
type watch struct {
	limit   time.Duration
	timer   *time.Timer
	stalled func() bool // whether it has cut off the request
	end     func()
}

// watchedBody is the body of a request, whose source may be slow, or of a response, whose reader may
// be.
type watchedBody struct {
	io.ReadCloser
	watch  *watch
	source bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.source {
		b.watch.timer.Stop()
		defer b.watch.timer.Reset(b.watch.limit)
		return b.ReadCloser.Read(p)
	}
	b.watch.timer.Reset(b.watch.limit)
	n, err := b.ReadCloser.Read(p)
	b.watch.timer.Stop()
	if err != nil && err != io.EOF && b.watch.stalled() {
		err = errStalled
	}
	return n, err
}

func (b *watchedBody) Close() error {
	if !b.source {
		b.watch.end()
	}
	return b.ReadCloser.Close()
}
