package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// sendPut sends a PUT through the handler of a backend that refuses everything with Full.
func sendPut(t *testing.T, u *url.URL, fields http.Header) (*fakeBackend, *http.Response) {
	t.Helper()
	d := &fakeBackend{tb: t, refuse: wire.Refuse(wire.Full, "no")}
	r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader("x"))
	fields.Set("Content-Length", "1") // net/http leaves it there
	r.URL, r.Header = u, fields
	w := httptest.NewRecorder()
	newHandler(d).ServeHTTP(w, r)
	return d, w.Result()
}

func FuzzDigestField(f *testing.F) {
	good := formatDigest([]byte("x"))
	for _, s := range []string{good, good + ", " + good, "sha-512=:YQ==:, " + good, "sha-256=:YQ==:", "sha-256", "sha-256=1;a=" + good, good + ";p=1", ""} {
		f.Add(s)
	}
	where, err := url.Parse("/v1/episodes/lab-01/run-7")
	fixture.Must(f, err)
	f.Fuzz(func(t *testing.T, s string) {
		d, resp := sendPut(t, where, http.Header{"Repr-Digest": {s}})
		n, u := d.putCalls()
		if n == 0 {
			if p := readProblem(t, resp); resp.StatusCode != 400 {
				t.Errorf("%q: got %+v, want StatusCode 400", s, p)
			}
			return
		}
		// The last digit of base64 may have bits without meaning.
		if want := base64.StdEncoding.EncodeToString(u.Digest[:])[:42]; !strings.Contains(s, "sha-256=:"+want) || strings.Count(s, "sha-256") != 1 {
			t.Errorf("%q is taken for %s", s, u.Digest)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/v1/episodes/lab-01/run-7", "/v1/episodes/lab-01/run%2d7", "/v1/episodes/lab-01/..%2fb", "/v1/episodes/lab-01/a%252fb",
		"//v1/episodes/lab-01/a", "/v1/episodes/lab%2D01/a/", "/v1/episodes/lab-02/a", "/v1/ping", "*", "http://h/v1/episodes/lab-01/a?x#y",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		where, err := url.ParseRequestURI(s)
		if err != nil {
			return
		}
		d, resp := sendPut(t, where, http.Header{"Repr-Digest": {formatDigest([]byte("x"))}})
		readProblem(t, resp) // every answer is one here
		n, u := d.putCalls()
		if n == 0 {
			return
		}
		name, err := episode.ParseName(string(u.Key.Name))
		if err != nil || where.Path != "/v1/episodes/lab-01/"+string(name) {
			t.Errorf("%q is taken for %s", s, u.Key)
		}
	})
}

// FuzzRequest sends what no HTTP library would, over a connection of its own. The backend fails
// the test if the handler passes on an invalid request. What is stored must have the requested
// size, and be what was announced.
func FuzzRequest(f *testing.F) {
	good := putRequest("x", honest, field)
	for _, s := range []string{
		good, good + good, putRequest("1\r\nx\r\n0\r\n\r\n", honest, "Transfer-Encoding: chunked", field),
		putRequest("x", honest, "Content-Length: 2", field), putRequest("xPUT /v1/episodes/lab-02/a HTTP/1.1\r\nHost: r\r\n\r\n", honest, field),
		strings.Replace(good, "\r\n", "\n", -1), strings.Replace(good, "run-7", "..%2frun-7", 1),
		"POST /v1/ping HTTP/1.1\r\nHost: r\r\nContent-Length: 0\r\n\r\n" + good,
		putRequest("", "Content-Length: 9223372036854775807", field, "Expect: 100-continue"),
	} {
		f.Add(s)
	}
	socket := filepath.Join(f.TempDir(), "s") // with a port for each, the ports would soon be used up
	f.Fuzz(func(t *testing.T, s string) {
		d := &fakeBackend{tb: t}
		ln, err := net.Listen("unix", socket)
		fixture.Must(t, err)
		server := &http.Server{Handler: newHandler(d)}
		go server.Serve(ln)
		defer server.Close()
		conn, err := net.Dial("unix", socket)
		fixture.Must(t, err)
		defer conn.Close()
		fixture.Must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		io.WriteString(conn, s)
		conn.(*net.UnixConn).CloseWrite()
		answers, err := io.ReadAll(conn)
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			t.Errorf("%q: no end after %q", s, answers)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if strings.Count(string(answers), "HTTP/1.1 201 ") > len(d.stored) {
			t.Errorf("%q: 201, and %d stored: %q", s, len(d.stored), answers)
		}
		for k, r := range d.stored {
			if k.Host != thisHost || int64(len(s)) < r.Size || !strings.Contains(s, "PUT ") {
				t.Errorf("%q is taken for %+v", s, r)
			}
		}
	})
}

// FuzzPiece sends any method with any fields to any place below /v1/uploads/, and
// announcements. What reaches the backend must agree with the fields, and come once.
func FuzzPiece(f *testing.F) {
	for _, offset := range []string{"0", "1", "-1", "999999999999999", "9223372036854775807", "0.5", "0, 1", "0;a", " 0", ""} {
		f.Add("PATCH", "/v1/uploads/X", "application/partial-upload", offset, "?1", "5")
	}
	f.Add("PATCH", "/v1/uploads/X", "application/partial-upload; a=b", "0", "?0", "")
	f.Add("HEAD", "/v1/uploads/..%2fX", "", "", "", "")
	f.Add("DELETE", "/v1/uploads/%00", "", "", "", "")
	f.Add("PUT", "/v1/episodes/lab-01/run-7", "", "", "?0", "5")
	f.Add("OPTIONS", "/v1/episodes/lab-01/run-7", "", "", "", "")
	f.Fuzz(func(t *testing.T, method, where, media, offset, complete, length string) {
		u, err := url.ParseRequestURI(where)
		if err != nil {
			return
		}
		body := "x"
		if method != http.MethodPatch {
			body = ""
		}
		x := &part{Upload: wire.Upload{Key: key, Size: 1 << 40}}
		d := &fakeBackend{tb: t, parts: map[string]*part{"X": x}}
		r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader(body))
		r.Method, r.URL = method, u
		r.Header = http.Header{"Content-Length": {fmt.Sprint(len(body))}, "Repr-Digest": {formatDigest([]byte("x"))}}
		for name, value := range map[string]string{"Content-Type": media, "Upload-Offset": offset, "Upload-Complete": complete, "Upload-Length": length} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		newHandler(d).ServeHTTP(deadlineRecorder{w}, r)
		resp := w.Result()
		if resp.StatusCode/100 != 2 {
			readProblem(t, resp)
		}
		announced, asked := d.announcements()
		if puts, _ := d.putCalls(); puts+announced+len(asked) > 1 {
			t.Errorf("%s %q reached the backend %d times", method, where, puts+announced+len(asked))
		}
		said, err := strconv.ParseInt(strings.Trim(strings.SplitN(offset, ";", 2)[0], " "), 10, 64)
		if len(x.content) > 0 && (err != nil || said != 0) {
			t.Errorf("a piece at %q was taken for one at 0", offset)
		}
	})
}

// deadlineRecorder is a recorder that accepts deadlines, as a connection does.
type deadlineRecorder struct{ *httptest.ResponseRecorder }

func (deadlineRecorder) SetReadDeadline(time.Time) error  { return nil }
func (deadlineRecorder) SetWriteDeadline(time.Time) error { return nil }

func FuzzReceipt(f *testing.F) {
	u := uploadOf([]byte("x"))
	good, err := json.Marshal(receiptOf(u))
	fixture.Must(f, err)
	f.Add(200, "application/json", string(good))
	f.Add(201, "", string(good)+" ")
	f.Add(200, "application/json", strings.Replace(string(good), "host_id", "HOST_ID", 1))
	f.Add(409, "application/problem+json", `{"type":"urn:cis490:problem:episode-conflict","status":409}`)
	f.Add(502, "text/html", "<html>")
	f.Add(204, "", "")
	f.Fuzz(func(t *testing.T, status int, kind, body string) {
		if status < 200 || status > 999 || strings.ContainsAny(kind, "\r\n") {
			return
		}
		head := fmt.Sprintf("HTTP/1.1 %03d X\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", status, kind, len(body))
		c := newClientWith(t, "https://receiver.lab", func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				if r, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
					io.Copy(io.Discard, r.Body)
					io.WriteString(theirs, head+body)
				}
			}()
			return ours, nil
		})
		r, err := c.Put(t.Context(), u, bytes.NewReader([]byte("x")))
		if err == nil && (r.Covers(u) != nil || status != 200 && status != 201) {
			t.Errorf("%d %q is taken for a receipt", status, body)
		}
		if p, ok := errors.AsType[*wire.Problem](err); ok && (p.Code == "" || !strings.Contains(kind, "problem+json")) {
			t.Errorf("%d %q %q is taken for %v", status, kind, body, err)
		}
		if r != (wire.Receipt{}) && err != nil {
			t.Errorf("%+v beside %v", r, err)
		}
	})
}
