package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// joinLab is the receiver's end of joining, which notes what it was asked for.
type joinLab struct {
	wire.JoinHandler
	log   bytes.Buffer
	asked []wire.JoinRequest
}

func newJoinLab() *joinLab {
	l := &joinLab{}
	l.JoinHandler = wire.JoinHandler{
		Issue: func(_ context.Context, r wire.JoinRequest, _ string) ([]byte, error) {
			l.asked = append(l.asked, r)
			return []byte("the chain"), nil
		},
		Log: slog.New(slog.NewTextHandler(&l.log, nil)),
	}
	return l
}

// serve answers what a client writes to the connection, and returns the answer.
func (l *joinLab) serve(t testing.TB, sent []byte) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		l.ServeConn(context.Background(), server)
	}()
	go client.Write(sent) // the rest is not read after a refusal
	answer, err := io.ReadAll(client)
	fixture.Must(t, err)
	client.Close()
	<-done
	return answer
}

func joinRequest(fields ...string) string {
	return "POST /v1/join HTTP/1.1\r\nHost: receiver.lab\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
}

const (
	joinToken = "Authorization: Bearer id.secret"
	joinType  = "Content-Type: application/pkcs10"
)

func TestJoinRequestArrivesAsItWasSent(t *testing.T) {
	l := newJoinLab()
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		l.ServeConn(t.Context(), server)
	}()
	want := wire.JoinRequest{Invitation: "id", Secret: "secret", CSR: bytes.Repeat([]byte{0, 1}, 1000)}
	chain, err := wire.Join(t.Context(), client, "receiver.lab:8443", want)
	if err != nil || string(chain) != "the chain" {
		t.Errorf("got %q, %v", chain, err)
	}
	if len(l.asked) != 1 || l.asked[0].Invitation != want.Invitation || l.asked[0].Secret != want.Secret || !bytes.Equal(l.asked[0].CSR, want.CSR) {
		t.Errorf("got %+v, want %+v", l.asked, want)
	}
}

func TestOtherRequestsToJoinAreRefused(t *testing.T) {
	body := func(n int) string { return strings.Repeat("x", n) }
	good := joinRequest(joinToken, joinType, "Content-Length: 1") + "x"
	for name, test := range map[string]struct {
		sent string
		want int
	}{
		"good":             {good, 200},
		"other path":       {strings.Replace(good, "/v1/join", "/v1/ping", 1), 404},
		"path below":       {strings.Replace(good, "/v1/join", "/v1/join/", 1), 404},
		"escaped path":     {strings.Replace(good, "/v1/join", "/v1/%6aoin", 1), 404},
		"episodes":         {strings.Replace(good, "/v1/join", "/v1/episodes/lab-01/x", 1), 404},
		"every path":       {strings.Replace(good, "/v1/join", "*", 1), 404},
		"GET":              {strings.Replace(good, "POST", "GET", 1), 405},
		"PUT":              {strings.Replace(good, "POST", "PUT", 1), 405},
		"CONNECT":          {strings.Replace(good, "POST /v1/join", "CONNECT receiver.lab:1", 1), 404},
		"no invitation":    {joinRequest(joinType, "Content-Length: 1") + "x", 401},
		"no secret":        {joinRequest("Authorization: Bearer id", joinType, "Content-Length: 1") + "x", 401},
		"other scheme":     {joinRequest("Authorization: Basic id.secret", joinType, "Content-Length: 1") + "x", 401},
		"other media type": {joinRequest(joinToken, "Content-Type: text/plain", "Content-Length: 1") + "x", 415},
		"no media type":    {joinRequest(joinToken, "Content-Length: 1") + "x", 415},
		"chunked":          {joinRequest(joinToken, joinType, "Transfer-Encoding: chunked") + "1\r\nx\r\n0\r\n\r\n", 411},
		"too large":        {joinRequest(joinToken, joinType, "Content-Length: 16385") + body(16385), 413},
		"huge":             {joinRequest(joinToken, joinType, "Content-Length: 99999999999") + body(100), 413},
		"negative length":  {joinRequest(joinToken, joinType, "Content-Length: -1"), 400},
		"two lengths":      {joinRequest(joinToken, joinType, "Content-Length: 1", "Content-Length: 2") + "xx", 400},
		"long header":      {joinRequest(joinToken, joinType, "X: "+body(30000), "Content-Length: 1") + "x", 400},
		"header and body":  {joinRequest(joinToken, joinType, "X: "+body(20000), "Content-Length: 16000") + body(16000), 400},
		"HTTP/2":           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404},
		"garbage":          {"\x16\x03\x01\x00\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			l := newJoinLab()
			answer := l.serve(t, []byte(test.sent))
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
			fixture.Must(t, err)
			if resp.StatusCode != test.want || !resp.Close {
				t.Errorf("got %s, close %v; want %d and an end", resp.Status, resp.Close, test.want)
			}
			if (len(l.asked) > 0) != (test.want == 200) {
				t.Errorf("issue was asked for %+v", l.asked)
			}
			if test.want != 200 {
				readProblem(t, resp)
				if !strings.Contains(l.log.String(), "refused to join a host") {
					t.Errorf("the log says %q", l.log.String())
				}
			}
		})
	}
}

// A connection carries one request: what follows is not read as another.
func TestJoinConnectionServesOneRequest(t *testing.T) {
	l := newJoinLab()
	good := joinRequest(joinToken, joinType, "Content-Length: 1") + "x"
	if answer := l.serve(t, []byte(good+good)); bytes.Count(answer, []byte("HTTP/1.1 200")) != 1 || len(l.asked) != 1 {
		t.Errorf("%d requests were served: %q", len(l.asked), answer)
	}
}

// A broken client may put its secret anywhere.
func TestSecretOfAJoinIsNeverLogged(t *testing.T) {
	for _, sent := range []string{
		"Authorization: Bearer id.secret\r\n\r\n",
		joinRequest("Authorization Bearer id.secret"),
		joinRequest(joinToken, "Content-Length: secret"),
		joinRequest(joinToken, joinType),
		joinRequest(joinToken, joinType, "Content-Length: 5") + "x\r\n",
	} {
		l := newJoinLab()
		l.Issue = func(context.Context, wire.JoinRequest, string) ([]byte, error) {
			return nil, wire.Refuse(wire.TokenRefused, "the token has expired")
		}
		client, server := net.Pipe()
		go func() {
			client.Write([]byte(sent))
			client.Close()
		}()
		l.ServeConn(t.Context(), server)
		server.Close()
		if text := l.log.String(); strings.Contains(text, "secret") || !strings.Contains(text, "refused to join") {
			t.Errorf("%q: the log says %q", sent, text)
		}
	}
}

// A sender that stops, or sends a byte now and then, holds a connection for 20 s only.
func TestSlowJoinEnds(t *testing.T) {
	for name, write := range map[string]func(net.Conn) error{
		"nothing": func(net.Conn) error { return nil },
		"half": func(conn net.Conn) error {
			_, err := io.WriteString(conn, joinRequest(joinToken, joinType, "Content-Length: 100"))
			return err
		},
		"drops": func(conn net.Conn) error {
			for _, b := range []byte(joinRequest(joinToken, joinType, "X: "+strings.Repeat("x", 1000), "Content-Length: 1")) {
				time.Sleep(time.Second)
				if _, err := conn.Write([]byte{b}); err != nil {
					return nil // the receiver has gone
				}
			}
			return errors.New("it took all bytes")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newJoinLab()
				client, server := net.Pipe()
				done := make(chan error)
				go func() { done <- write(client) }()
				began := time.Now()
				l.ServeConn(t.Context(), server)
				server.Close()
				if took := time.Since(began); took > 20*time.Second || len(l.asked) > 0 {
					t.Errorf("it took %v, and asked for %+v", took, l.asked)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A host that sends more than is read gets its answer nevertheless, over TCP, where closing with
// unread bytes resets a connection.
func TestRefusalArrivesBeforeTheConnectionEnds(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	defer ln.Close()
	l := newJoinLab()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			l.ServeConn(context.Background(), conn)
			conn.Close()
		}
	}()
	sent := joinRequest(joinToken, joinType, "Content-Length: 17000") + strings.Repeat("x", 17000)
	for range 20 {
		conn, err := net.Dial("tcp", ln.Addr().String())
		fixture.Must(t, err)
		_, err = io.WriteString(conn, sent)
		fixture.Must(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Fatalf("got %+v, %v", resp, err)
		}
		conn.Close()
	}
}

// A receiver that stops does not wait for a slow sender.
func TestJoinEndsWithTheReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newJoinLab()
		_, server := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		l.ServeConn(ctx, server)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v, want 1s", took)
		}
	})
}

// A receiver that never answers, or never ends its answer.
func TestHostDoesNotWaitForAnAnswerForever(t *testing.T) {
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\nContent-Type: application/pem-certificate-chain\r\nContent-Length: 10\r\n\r\nx"} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			go io.Copy(io.Discard, server)
			go io.WriteString(server, answer)
			began := time.Now()
			if _, err := wire.Join(t.Context(), client, "receiver.lab", wire.JoinRequest{}); err == nil {
				t.Error("no error")
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			server.Close() // ends the copy
		})
	}
}

// ask returns what Join makes of an answer.
func ask(t testing.TB, answer string) ([]byte, error) {
	t.Helper()
	client, server := net.Pipe()
	go io.Copy(io.Discard, server)
	go func() {
		io.WriteString(server, answer)
		server.Close()
	}()
	defer client.Close()
	return wire.Join(context.Background(), client, "receiver.lab", wire.JoinRequest{Invitation: "id", Secret: "secret", CSR: []byte("x")})
}

func TestOnlyAChainIsAnAnswer(t *testing.T) {
	const chain = "Content-Type: application/pem-certificate-chain\r\n"
	for name, answer := range map[string]string{
		"nothing":          "",
		"garbage":          "SSH-2.0-OpenSSH\r\n",
		"a page":           "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\nx",
		"no media type":    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
		"no content":       "HTTP/1.1 204 No Content\r\n" + chain + "\r\n",
		"a redirect":       "HTTP/1.1 302 Found\r\nLocation: https://evil/\r\n" + chain + "Content-Length: 1\r\n\r\nx",
		"cut":              "HTTP/1.1 200 OK\r\n" + chain + "Content-Length: 10\r\n\r\nx",
		"longer than 64 K": "HTTP/1.1 200 OK\r\n" + chain + "Content-Length: 70000\r\n\r\n" + strings.Repeat("x", 70000),
		"foreign problem":  "HTTP/1.1 403 Forbidden\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, answer)
			if _, problem := errors.AsType[*wire.Problem](err); err == nil || problem {
				t.Errorf("got %q, %v; want an error that is no refusal", got, err)
			}
		})
	}
}

func FuzzJoinRequest(f *testing.F) {
	f.Add([]byte(joinRequest(joinToken, joinType, "Content-Length: 1") + "x"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\r\n\r\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		l := newJoinLab()
		client, server := net.Pipe()
		go func() {
			client.Write(sent)
			client.Close()
		}()
		l.ServeConn(t.Context(), server)
		server.Close()
		if len(l.asked) > 1 || len(l.asked) == 1 && len(l.asked[0].CSR) > 16<<10 {
			t.Errorf("got %d requests", len(l.asked))
		}
		if strings.ContainsFunc(l.log.String(), func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
			t.Errorf("not printable: %q", l.log.String())
		}
	})
}

func FuzzJoinAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Type: application/pem-certificate-chain\r\nContent-Length: 1\r\n\r\nx")
	f.Add("HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\n\r\n{\"type\":\"urn:cis490:problem:token-refused\",\"status\":401}")
	f.Add("")
	f.Fuzz(func(t *testing.T, answer string) {
		chain, err := ask(t, answer)
		if len(chain) > 64<<10 {
			t.Errorf("%d bytes", len(chain))
		}
		if p, ok := errors.AsType[*wire.Problem](err); ok && strings.ContainsFunc(p.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("not printable: %q", fmt.Sprint(p))
		}
	})
}
