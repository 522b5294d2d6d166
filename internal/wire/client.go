package wire

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"

	"golang.org/x/sys/unix"
)

// Client is the shipper's end of the protocol. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	host    episode.Name
	token   func() string
	trusted func() []string
	pinged  func(PingResponse)
	agent   string
	http    *http.Client
}

// ClientConfig is the configuration of a [Client].
type ClientConfig struct {
	URL  string       // https://receiver.lab:8443
	Host episode.Name // this host's name
	// DialTLS opens a mutually authenticated connection. It should dial with [Dial].
	DialTLS func(ctx context.Context, network, addr string) (net.Conn, error)
	Token   func() string // returns the bearer token, or ""; called for each request
	// TrustedCAs returns the roots by which the host recognizes the receiver, in the form of
	// [CAs.Server]. It is called for each ping and report, and may be nil.
	TrustedCAs func() []string
	// Pinged is called with each response to a ping or report. It may be nil.
	Pinged  func(PingResponse)
	Version string // of the program
	Conns   int    // maximum number of connections
}

// Timeouts of the client. None bounds a whole upload, because a slow link is not a fault.
const (
	dialTimeout = 10 * time.Second
	// responseTimeout bounds the wait for a response after the body is sent. The receiver may have
	// to read a stored copy first.
	responseTimeout = 5 * time.Minute
	bodyTimeout     = 30 * time.Second // from the headers of a response to its end
	unackedTimeout  = 90 * time.Second // for bytes that the peer's kernel has not acknowledged
	idleTimeout     = 90 * time.Second // shorter than the receiver's, so that the client closes first
)

// NewClient returns a client, or an error if the URL is not valid.
func NewClient(c ClientConfig) (*Client, error) {
	base, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	return &Client{base: base, host: c.Host, token: c.Token, trusted: c.TrustedCAs, pinged: c.Pinged, agent: "shipper/" + c.Version, http: &http.Client{
		Transport: newTransport(c),
		// A redirect does not come from a receiver, and must not send a recording elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func newTransport(c ClientConfig) *http.Transport {
	// HTTP/2 was 25 % slower on loopback and 2.5 times slower at 50 ms.
	var one http.Protocols
	one.SetHTTP1(true)
	return &http.Transport{
		DialTLSContext:        c.DialTLS,
		Protocols:             &one,
		ResponseHeaderTimeout: responseTimeout,
		IdleConnTimeout:       idleTimeout,
		MaxConnsPerHost:       c.Conns,
		MaxIdleConnsPerHost:   c.Conns,
		DisableCompression:    true,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        4 << 10,
	}
}

// Dial opens a TCP connection that detects a dead peer.
func Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3},
		Control:         setUserTimeout,
	}
	return d.DialContext(ctx, network, addr)
}

// setUserTimeout ends a connection whose peer vanishes during an upload. Keep-alives do not: they
// pause while data is unacknowledged, and the kernel would retry for a quarter of an hour.
func setUserTimeout(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedTimeout/time.Millisecond))
	})
	return errors.Join(err, failed)
}

// CloseIdle closes the idle connections, so that the next ones present new certificates.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Stat returns the digest and the size of the archive stored under an episode's name. It returns
// [NotFound] if there is none.
func (c *Client) Stat(ctx context.Context, name episode.Name) (digest.Digest, int64, error) {
	req, err := c.newRequest(ctx, http.MethodHead, c.episodeURL(episode.Key{Host: c.host, Name: name}), nil)
	if err != nil {
		return digest.Digest{}, 0, err
	}
	resp, err := c.sendRequest(req)
	if err != nil {
		return digest.Digest{}, 0, err
	}
	defer resp.Body.Close()
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusOK:
		d, err := parseDigest(resp.Header)
		if err != nil || resp.ContentLength < 0 {
			return d, 0, &UnexpectedResponseError{Status: resp.StatusCode, Err: errors.New("response to HEAD without digest or length")}
		}
		return d, resp.ContentLength, nil
	case media == problemMediaType: // a response to HEAD has no body
		return digest.Digest{}, 0, &Problem{Code: codeForStatus(resp.StatusCode), RetryAfter: parseRetryAfter(resp)}
	}
	return digest.Digest{}, 0, &UnexpectedResponseError{Status: resp.StatusCode}
}

// Ping asks the receiver how it sees this host, and for its limits and free space.
func (c *Client) Ping(ctx context.Context) (PingResponse, error) {
	req, err := c.newRequest(ctx, http.MethodPost, c.base.JoinPath(pingPath), http.NoBody)
	if err != nil {
		return PingResponse{}, err
	}
	resp, err := c.ping(req, http.StatusOK)
	if err != nil {
		return PingResponse{}, err
	}
	return *resp, nil
}

// ping sends a request that a receiver responds to as to a ping. A response without a body is nil.
func (c *Client) ping(req *http.Request, statuses ...int) (*PingResponse, error) {
	c.setTrustedCAs(req)
	var resp PingResponse
	status, err := c.doRequest(req, &resp, statuses...)
	if err != nil || status == http.StatusNoContent {
		return nil, err
	}
	if resp.Status != "ok" || resp.Host != c.host {
		return nil, &UnexpectedResponseError{Status: status, Err: fmt.Errorf("response to a ping of host %+q", string(resp.Host))}
	}
	if err := resp.Store.Validate(); err != nil {
		return nil, &UnexpectedResponseError{Status: status, Err: err}
	}
	if c.pinged != nil {
		c.pinged(resp)
	}
	return &resp, nil
}

func (c *Client) episodeURL(key episode.Key) *url.URL {
	return c.base.JoinPath(episodesPath, string(key.Host), string(key.Name))
}

func (c *Client) newRequest(ctx context.Context, method string, u *url.URL, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.agent)
	if method != http.MethodPatch {
		// net/http may retry the request. The header allows that; without a value it is not sent. A
		// PATCH must not be retried: its upload may continue elsewhere by then.
		req.Header["Idempotency-Key"] = nil
	}
	setKnownStore(req)
	if c.token != nil {
		if token := c.token(); token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	return req, nil
}

// sendRequest sends a request. It removes the URL from an error, because the caller knows it.
func (c *Client) sendRequest(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return resp, contextCause(req.Context(), err)
}

// contextCause returns the cause with which ctx was cancelled if err comes from that, and err
// otherwise. Callers take context.Canceled for a cancellation of their own.
func contextCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
		return cause
	}
	return err
}

// errBodyTimeout says that a response began and did not end.
var errBodyTimeout = fmt.Errorf("response did not end within %v: %w", bodyTimeout, os.ErrDeadlineExceeded)

// doRequest sends a request and decodes the JSON of a response that has one of the statuses. If
// into is nil, the response must have no body.
func (c *Client) doRequest(req *http.Request, into any, statuses ...int) (int, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	resp, err := c.sendRequest(req.WithContext(ctx))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// The body of the response must end too.
	defer time.AfterFunc(bodyTimeout, func() { cancel(errBodyTimeout) }).Stop()
	status := resp.StatusCode
	if !slices.Contains(statuses, status) {
		return status, readProblem(resp)
	}
	if into == nil || status == http.StatusNoContent {
		return status, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxResponseBody)).Decode(into); err != nil {
		return status, &UnexpectedResponseError{Status: status, Err: fmt.Errorf("decode response: %w", contextCause(ctx, err))}
	}
	io.CopyN(io.Discard, resp.Body, 1<<10) // to its end, so that the connection can be reused
	return status, nil
}

// ipv6Zone matches the zone of an IPv6 address, which must be escaped (RFC 6874).
var ipv6Zone = regexp.MustCompile(`\[([^]%]+)%([^]]*)\]`)

// AddressOf returns the host and port of a receiver's URL, as a [Client] dials them.
func AddressOf(text string) (string, error) {
	base, err := parseURL(text)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(base.Hostname(), cmp.Or(base.Port(), "443")), nil
}

// parseURL parses the URL of a receiver. The error says how to write it.
func parseURL(text string) (*url.URL, error) {
	invalid := func(why string) error {
		return fmt.Errorf("%+q is not a valid receiver URL: %s", text, why)
	}
	if m := ipv6Zone.FindStringSubmatch(text); m != nil && !strings.HasPrefix(m[2], "25") {
		return nil, invalid(fmt.Sprintf("write the zone as %+q", ipv6Zone.ReplaceAllString(text, "[$1%25$2]")))
	}
	if !strings.Contains(text, "://") {
		return nil, invalid(fmt.Sprintf("write %+q", "https://"+text))
	}
	base, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, invalid(fmt.Sprintf("%v: write https://NAME:PORT", err))
	}
	switch {
	case base.Scheme != "https", base.Path != "" && base.Path != "/", base.RawQuery != "", base.User != nil:
		return nil, invalid("write https://NAME:PORT")
	case base.Hostname() == "":
		return nil, invalid("it names no host: write https://NAME:PORT")
	}
	if port := base.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, invalid("a port is between 1 and 65535")
		}
	}
	return base, nil
}
