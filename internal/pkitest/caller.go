package pkitest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"

	"cis490/internal/credentials"
)

// Caller makes requests over one connection, and dials again only after that has ended. An
// http.Transport drops a connection if more than 50 ms pass until a request is recorded as
// written, as on a busy machine.
type Caller struct {
	l     *Lab
	dial  credentials.Dial
	conn  net.Conn // nil if there is none
	r     *bufio.Reader
	Token string
}

// NewCaller returns a caller that dials by a configuration.
func (l *Lab) NewCaller(config *tls.Config) *Caller {
	return l.newCallerBy((&tls.Dialer{Config: config}).DialContext)
}

func (l *Lab) newCallerBy(dial credentials.Dial) *Caller {
	c := &Caller{l: l, dial: dial}
	l.T.Cleanup(c.HangUp)
	return c
}

// NewShipperCaller returns a caller that dials as a shipper does.
func (l *Lab) NewShipperCaller(client *credentials.Client) *Caller {
	var dialer net.Dialer
	return l.newCallerBy(client.DialTLS(dialer.DialContext))
}

// HangUp closes the connection, if there is one.
func (c *Caller) HangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// Reply is the answer to a request, or the reason why there is none.
type Reply struct {
	Status int
	Body   string
	Reused bool // the connection served an earlier request
	Err    error
}

// Call makes a request.
func (c *Caller) Call() (r Reply) {
	request, err := http.NewRequestWithContext(c.l.T.Context(), http.MethodGet, c.l.url, nil)
	if err != nil {
		c.l.T.Fatal(err)
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	r.Reused = c.conn != nil
	if !r.Reused {
		if c.conn, r.Err = c.dial(request.Context(), "tcp", request.URL.Host); r.Err != nil {
			c.conn = nil
			return r
		}
		c.r = bufio.NewReader(c.conn)
	}
	if r.Err = request.Write(c.conn); r.Err != nil {
		c.HangUp()
		return r
	}
	response, err := http.ReadResponse(c.r, request)
	if err != nil {
		c.HangUp()
		r.Err = err
		return r
	}
	body, err := io.ReadAll(response.Body)
	if r.Status, r.Body, r.Err = response.StatusCode, string(body), err; err != nil || response.Close {
		c.HangUp()
	}
	return r
}

// WantAccess fails the test unless the caller is admitted as host want.
func (c *Caller) WantAccess(want string) Reply {
	c.l.T.Helper()
	r := c.Call()
	if r.Err != nil || r.Status != http.StatusOK || r.Body != want {
		c.l.T.Fatalf("got %d %q, %v; want 200 %q", r.Status, r.Body, r.Err, want)
	}
	return r
}

// WantRefusedOnSameConnection fails the test unless the next request goes over the
// same connection and is answered with status.
func (c *Caller) WantRefusedOnSameConnection(status int) {
	c.l.T.Helper()
	r := c.Call()
	if r.Err != nil || r.Status != status || !r.Reused {
		c.l.T.Fatalf("got %d %q, %v, reused %v; want %d on the kept connection", r.Status, r.Body, r.Err, r.Reused, status)
	}
}
