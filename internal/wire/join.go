package wire

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// JoinProtocol is the ALPN name of a connection on which a machine without a certificate asks for
// its first one. A connection carries one request:
//
//	POST /v1/join
//	Authorization: Bearer INVITATION.SECRET
//	Content-Type: application/pkcs10
//
// The body is a PKCS#10 request in DER. The response is the certificate and the CAs between it and
// the root, in PEM, or a problem document.
const JoinProtocol = "cis490-join/1"

const (
	joinPath     = "/v1/join"
	requestMedia = "application/pkcs10"
	chainMedia   = "application/pem-certificate-chain"

	maxJoinHeader  = 8 << 10  // bytes of a request without its body
	maxJoinRequest = 16 << 10 // bytes of a body
	maxJoinAnswer  = 64 << 10
	joinTimeout    = 20 * time.Second // for all of a connection after its handshake
	maxLinger      = 2 * time.Second  // after the answer
)

// JoinRequest asks for a certificate by an invitation.
type JoinRequest struct {
	Invitation string // its id
	Secret     string
	CSR        []byte // PKCS#10 in DER
}

// JoinHandler answers requests to join.
type JoinHandler struct {
	// Issue returns the certificate chain for a request, in PEM, or refuses it with a [*Problem].
	Issue func(ctx context.Context, r JoinRequest, remote string) ([]byte, error)
	Log   *slog.Logger
}

// ServeConn answers the one request of a connection. The caller must close it.
func (h *JoinHandler) ServeConn(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn.SetDeadline(time.Now().Add(joinTimeout))
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	w := &bufferedResponse{header: make(http.Header), status: http.StatusOK}
	chain, err := h.readAndIssue(ctx, conn)
	if err != nil {
		problem, level := problemFor(ctx, err)
		h.Log.Log(ctx, level, "refused to join a host", "remote", conn.RemoteAddr().String(), "err", err)
		problem.writeTo(w)
	} else {
		writeChain(w, chain)
	}
	w.writeTo(conn) // an error means that the host is gone, and it asks again
	lingerClose(conn)
}

// lingerClose says that nothing follows, and waits until the host has closed its end. Closing with
// unread bytes, or before a middlebox has passed the answer on, may reset the connection, and the
// host would lose the answer.
func lingerClose(conn net.Conn) {
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	conn.SetDeadline(time.Now().Add(maxLinger))
	io.Copy(io.Discard, io.LimitReader(conn, maxJoinRequest))
}

// readAndIssue reads a request and returns the answer.
func (h *JoinHandler) readAndIssue(ctx context.Context, conn net.Conn) ([]byte, error) {
	limited := &io.LimitedReader{R: conn, N: maxJoinHeader + maxJoinRequest}
	r, err := http.ReadRequest(bufio.NewReader(limited))
	if err != nil {
		return nil, Refuse(BadRequest, "the request is not one of HTTP/1.1") // err may quote the secret, and is logged
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	id, secret, two := strings.Cut(token, ".")
	switch {
	case r.URL.EscapedPath() != joinPath:
		return nil, Refuse(NotFound, "a connection for %s serves %s only", JoinProtocol, joinPath)
	case r.Method != http.MethodPost:
		return nil, Refuse(BadMethod, "use POST")
	case !bearer || !two:
		return nil, Refuse(TokenRefused, "the request has no invitation")
	}
	if err := checkRequestBody(r); err != nil {
		return nil, err
	}
	der, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, Refuse(BadRequest, "the body ended early")
	}
	return h.Issue(ctx, JoinRequest{Invitation: id, Secret: secret, CSR: der}, conn.RemoteAddr().String())
}

// bufferedResponse keeps a short response until it is complete.
type bufferedResponse struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *bufferedResponse) Header() http.Header         { return w.header }
func (w *bufferedResponse) WriteHeader(status int)      { w.status = status }
func (w *bufferedResponse) Write(b []byte) (int, error) { return w.body.Write(b) }

func (w *bufferedResponse) writeTo(conn io.Writer) error {
	resp := &http.Response{
		StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Header: w.header,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Close: true,
	}
	return resp.Write(conn)
}

// Join sends a request over a connection that was opened for [JoinProtocol], and returns the
// certificate chain in PEM. The error is a [*Problem] if the receiver refused.
func Join(ctx context.Context, conn net.Conn, host string, j JoinRequest) ([]byte, error) {
	conn.SetDeadline(time.Now().Add(joinTimeout))
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+joinPath, bytes.NewReader(j.CSR))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+j.Invitation+"."+j.Secret)
	r.Header.Set("Content-Type", requestMedia)
	r.Close = true
	if err := r.Write(conn); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxJoinAnswer)), r)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	defer resp.Body.Close()
	return readChain(resp)
}
