package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"cis490/internal/wire"
)

// put is a request line and the fields of a valid request.
const honest = "Content-Length: 1"

var field = "Repr-Digest: " + formatDigest([]byte("x"))

// TestHostileRequestsComeToNothing sends bytes that no shipper sends. None may reach the
// backend. A row without a code is refused by net/http itself.
func TestHostileRequestsComeToNothing(t *testing.T) {
	other := "Repr-Digest: " + formatDigest([]byte("y"))
	base64 := strings.TrimPrefix(field, "Repr-Digest: sha-256=")
	for _, c := range []struct {
		what   string
		text   string
		status int
		code   wire.Code
	}{
		{"two lengths", putRequest("x", honest, "Content-Length: 2", field), 400, ""},
		{"two lengths in one", putRequest("x", "Content-Length: 1, 2", field), 400, ""},
		{"negative length", putRequest("x", "Content-Length: -1", field), 400, ""},
		{"length beyond all bounds", putRequest("x", "Content-Length: 99999999999999999999", field), 400, ""},
		{"no length", putRequest("", field), 411, wire.LengthRequired},
		{"chunked", putRequest("1\r\nx\r\n0\r\n\r\n", "Transfer-Encoding: chunked", field), 411, wire.LengthRequired},
		{"chunked and a length", putRequest("1\r\nx\r\n0\r\n\r\n", honest, "Transfer-Encoding: chunked", field), 411, wire.LengthRequired},
		{"unknown transfer coding", putRequest("x", honest, "Transfer-Encoding: gzip", field), 501, ""},
		{"no digest", putRequest("x", honest), 400, wire.DigestMissing},
		{"two digests", putRequest("x", honest, field, field), 400, wire.DigestInvalid},
		{"two digests in one", putRequest("x", honest, field+", sha-256="+base64), 400, wire.DigestInvalid},
		{"fields that differ", putRequest("x", honest, field, "Content"+strings.TrimPrefix(other, "Repr")), 400, wire.DigestInvalid},
		{"another algorithm", putRequest("x", honest, "Repr-Digest: sha-512="+base64), 400, wire.DigestInvalid},
		{"short digest", putRequest("x", honest, "Repr-Digest: sha-256=:YQ==:"), 400, wire.DigestInvalid},
		{"digest of zeros", putRequest("x", honest, "Repr-Digest: sha-256=:"+strings.Repeat("A", 43)+"=:"), 400, wire.DigestInvalid},
		{"digest as a string", putRequest("x", honest, `Repr-Digest: sha-256="`+strings.Trim(base64, ":")+`"`), 400, wire.DigestInvalid},
		{"digest in a list", putRequest("x", honest, "Repr-Digest: sha-256=("+base64+")"), 400, wire.DigestInvalid},
		{"digest that does not parse", putRequest("x", honest, "Repr-Digest: sha-256=:"), 400, wire.DigestInvalid},
		{"empty digest", putRequest("x", honest, "Repr-Digest: "), 400, wire.DigestInvalid},
		{"coded", putRequest("x", honest, field, "Content-Encoding: gzip"), 415, wire.Unsupported},
		{"coded behind identity", putRequest("x", honest, field, "Content-Encoding: identity", "Content-Encoding: gzip"), 415, wire.Unsupported},
		{"coded behind nothing", putRequest("x", honest, field, "Content-Encoding:", "Content-Encoding: gzip"), 415, wire.Unsupported},
		{"a range", putRequest("x", honest, field, "Content-Range: bytes 0-0/2"), 400, wire.BadRequest},
		{"a range behind nothing", putRequest("x", honest, field, "Content-Range:", "Content-Range: bytes 0-0/2"), 400, wire.BadRequest},
		{"an offset", putRequest("x", honest, field, "Upload-Offset: 0"), 400, wire.BadRequest},
		{"an announcement with a body", putRequest("x", honest, field, "Upload-Complete: ?0", "Upload-Length: 5"), 400, wire.BadRequest},
		{"an announcement without a length", putRequest("", "Content-Length: 0", field, "Upload-Complete: ?0"), 400, wire.BadRequest},
		{"an announcement of two lengths", putRequest("", "Content-Length: 0", field, "Upload-Complete: ?0", "Upload-Length: 5", "Upload-Length: 5"), 400, wire.BadRequest},
		{"an announcement of less than nothing", putRequest("", "Content-Length: 0", field, "Upload-Complete: ?0", "Upload-Length: -5"), 400, wire.BadRequest},
		{"an announcement of no number", putRequest("", "Content-Length: 0", field, "Upload-Complete: ?0", "Upload-Length: 5;a=1, 6"), 400, wire.BadRequest},
		{"an announcement without a digest", putRequest("", "Content-Length: 0", "Upload-Complete: ?0", "Upload-Length: 5"), 400, wire.DigestMissing},
		{"neither complete nor not", putRequest("x", honest, field, "Upload-Complete: 1"), 400, wire.BadRequest},
		{"complete twice", putRequest("x", honest, field, "Upload-Complete: ?1", "Upload-Complete: ?1"), 400, wire.BadRequest},
		{"another length than the body", putRequest("x", honest, field, "Upload-Complete: ?1", "Upload-Length: 2"), 400, wire.LengthMismatch},
		{"skipped is no number", putRequest("x", honest, field, "Episode-Skipped: many"), 400, wire.BadRequest},
		{"skipped is negative", putRequest("x", honest, field, "Episode-Skipped: -1"), 400, wire.BadRequest},
		{"skipped twice", putRequest("x", honest, field, "Episode-Skipped: 1", "Episode-Skipped: 1"), 400, wire.BadRequest},
		{"field without end", putRequest("x", honest, field, "X-Bomb: "+strings.Repeat("x", 1<<20)), 431, ""},
		{"fields without end", putRequest("x", honest, field, strings.Repeat("X-Bomb: x\r\n", 10_000)+"X: x"), 431, ""},
		{"no host", "PUT /v1/episodes/lab-01/run-7 HTTP/1.1\r\n" + honest + "\r\n" + field + "\r\n\r\nx", 400, ""},
	} {
		t.Run(c.what, func(t *testing.T) { wantRefused(t, c.text, c.status, c.code) })
	}
}

// wantRefused sends text, which must be refused and change nothing.
func wantRefused(t *testing.T, text string, status int, code wire.Code) {
	t.Helper()
	d := &fakeBackend{tb: t}
	resp := serve(t, newHandler(d)).sendRaw(t, text)
	if resp.StatusCode != status {
		t.Errorf("%s, want %d", resp.Status, status)
	}
	if resp.Header.Get("Location") != "" {
		t.Errorf("a redirect to %s", resp.Header.Get("Location"))
	}
	if code != "" {
		if doc := readProblem(t, resp); !strings.HasSuffix(doc.Type, string(code)) {
			t.Errorf("type %s, want %s", doc.Type, code)
		}
	}
	if n, u := d.putCalls(); n > 0 {
		t.Errorf("the backend got %+v", u)
	}
	if n, ids := d.announcements(); n > 0 || len(ids) > 0 {
		t.Errorf("the backend got %d announcements and requests about %q", n, ids)
	}
}

// pieceRequest returns the text of a request about an upload.
func pieceRequest(method, id, content string, fields ...string) string {
	return method + " /v1/uploads/" + id + " HTTP/1.1\r\nHost: r\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n" + content
}

// TestHostilePiecesComeToNothing is the same for requests that continue an upload.
func TestHostilePiecesComeToNothing(t *testing.T) {
	const (
		partial = "Content-Type: application/partial-upload"
		from    = "Upload-Offset: 0"
		last    = "Upload-Complete: ?1"
	)
	for _, c := range []struct {
		what   string
		text   string
		status int
		code   wire.Code
	}{
		{"no length", pieceRequest("PATCH", "X", "", partial, from, last), 411, wire.LengthRequired},
		{"chunked", pieceRequest("PATCH", "X", "1\r\nx\r\n0\r\n\r\n", "Transfer-Encoding: chunked", partial, from, last), 411, wire.LengthRequired},
		{"negative length", pieceRequest("PATCH", "X", "x", "Content-Length: -1", partial, from, last), 400, ""},
		{"two lengths", pieceRequest("PATCH", "X", "x", honest, "Content-Length: 2", partial, from, last), 400, ""},
		{"no type", pieceRequest("PATCH", "X", "x", honest, from, last), 415, wire.WrongType},
		{"another type", pieceRequest("PATCH", "X", "x", honest, "Content-Type: application/zstd", from, last), 415, wire.WrongType},
		{"coded", pieceRequest("PATCH", "X", "x", honest, partial, from, last, "Content-Encoding: gzip"), 415, wire.Unsupported},
		{"a range", pieceRequest("PATCH", "X", "x", honest, partial, from, last, "Content-Range: bytes 0-0/2"), 400, wire.BadRequest},
		{"no offset", pieceRequest("PATCH", "X", "x", honest, partial, last), 400, wire.BadRequest},
		{"an empty offset", pieceRequest("PATCH", "X", "x", honest, partial, "Upload-Offset: ", last), 400, wire.BadRequest},
		{"a negative offset", pieceRequest("PATCH", "X", "x", honest, partial, "Upload-Offset: -1", last), 400, wire.BadRequest},
		{"a giant offset", pieceRequest("PATCH", "X", "x", honest, partial, "Upload-Offset: 9223372036854775807", last), 400, wire.BadRequest},
		{"an offset beyond all bounds", pieceRequest("PATCH", "X", "x", honest, partial, "Upload-Offset: 18446744073709551616", last), 400, wire.BadRequest},
		{"half an offset", pieceRequest("PATCH", "X", "x", honest, partial, "Upload-Offset: 0.5", last), 400, wire.BadRequest},
		{"an offset as a string", pieceRequest("PATCH", "X", "x", honest, partial, `Upload-Offset: "0"`, last), 400, wire.BadRequest},
		{"an offset in hex", pieceRequest("PATCH", "X", "x", honest, partial, "Upload-Offset: 0x10", last), 400, wire.BadRequest},
		{"two offsets", pieceRequest("PATCH", "X", "x", honest, partial, from, from, last), 400, wire.BadRequest},
		{"two offsets in one", pieceRequest("PATCH", "X", "x", honest, partial, "Upload-Offset: 0, 1", last), 400, wire.BadRequest},
		{"no end", pieceRequest("PATCH", "X", "x", honest, partial, from), 400, wire.BadRequest},
		{"an end that is a number", pieceRequest("PATCH", "X", "x", honest, partial, from, "Upload-Complete: 1"), 400, wire.BadRequest},
		{"two ends", pieceRequest("PATCH", "X", "x", honest, partial, from, last, "Upload-Complete: ?0"), 400, wire.BadRequest},
		{"no upload", pieceRequest("PATCH", "", "x", honest, partial, from, last), 404, wire.NoUpload},
		{"an upload below another", pieceRequest("PATCH", "X/Y", "x", honest, partial, from, last), 404, wire.NoUpload},
		{"an upload with a slash", pieceRequest("PATCH", "X%2fY", "x", honest, partial, from, last), 404, wire.NoUpload},
		{"another folder's", pieceRequest("PATCH", "..%2f..%2fetc", "x", honest, partial, from, last), 404, wire.NoUpload},
		{"how far, with a body", pieceRequest("HEAD", "X", "x", honest), 400, ""},
		{"give it up, with a body", pieceRequest("DELETE", "X", "x", honest), 400, wire.BadRequest},
		{"read it", pieceRequest("GET", "X", ""), 405, wire.BadMethod},
		{"make it", pieceRequest("POST", "X", "x", honest), 405, wire.BadMethod},
		{"a giant announcement", putRequest("", "Content-Length: 0", field, "Upload-Complete: ?0", "Upload-Length: 9223372036854775808"), 400, wire.BadRequest},
		{"an announcement for another host", "PUT /v1/episodes/lab-02/a HTTP/1.1\r\nHost: r\r\nContent-Length: 0\r\n" + field +
			"\r\nUpload-Complete: ?0\r\nUpload-Length: 5\r\n\r\n", 403, wire.HostMismatch},
	} {
		t.Run(c.what, func(t *testing.T) { wantRefused(t, c.text, c.status, c.code) })
	}
}

func TestHostilePathsComeToNothing(t *testing.T) {
	for _, c := range []struct {
		path   string
		status int
		code   wire.Code
	}{
		{"/v1/episodes/lab-01/..", 400, wire.BadName},
		{"/v1/episodes/lab-01/.", 400, wire.BadName},
		{"/v1/episodes/lab-01/%2e%2e", 400, wire.BadName},
		{"/v1/episodes/lab-01/a%2fb", 400, wire.BadName},
		{"/v1/episodes/lab-01/..%2fb", 400, wire.BadName},
		{"/v1/episodes/lab-01/a%252fb", 400, wire.BadName},
		{"/v1/episodes/lab-01/a%00", 400, wire.BadName},
		{"/v1/episodes/lab-01/a%0a", 400, wire.BadName},
		{"/v1/episodes/lab-01/%c3%a4", 400, wire.BadName},
		{"/v1/episodes/lab-01/.hidden", 400, wire.BadName},
		{"/v1/episodes/lab-01/a~b", 400, wire.BadName},
		{"/v1/episodes/lab-01/" + strings.Repeat("a", 129), 400, wire.BadName},
		{"/v1/episodes/" + strings.Repeat("a", 129) + "/a", 400, wire.BadName},
		{"/v1/episodes/%2e%2e/a", 400, wire.BadName},
		{"/v1/episodes//a", 400, wire.BadName},
		{"/v1/episodes/lab-01/", 400, wire.BadName},
		{"/v1/episodes/lab-02/a", 403, wire.HostMismatch},
		{"/v1/episodes/LAB-01/a", 403, wire.HostMismatch},
		{"/v1/episodes/lab-01/a/", 404, wire.NotFound},
		{"/v1/episodes/lab-01/a/b", 404, wire.NotFound},
		{"/v1/episodes/lab-01", 404, wire.NotFound},
		{"/v1/episodes/", 404, wire.NotFound},
		{"//v1/episodes/lab-01/a", 404, wire.NotFound},
		{"/v1//episodes/lab-01/a", 404, wire.NotFound},
		{"/v1/episodes/lab-01//a", 404, wire.NotFound},
		{"/v1/x/../episodes/lab-01/a", 404, wire.NotFound},
		{"/v1/ping/", 404, wire.NotFound},
		{"/V1/episodes/lab-01/a", 404, wire.NotFound},
		{"/", 404, wire.NotFound},
		{"/v1/episodes/lab-01/a%zz", 400, ""},
		{"v1/episodes/lab-01/a", 400, ""},
	} {
		t.Run(fmt.Sprintf("%.40q", c.path), func(t *testing.T) {
			wantRefused(t, "PUT "+c.path+" HTTP/1.1\r\nHost: r\r\n"+honest+"\r\n"+field+"\r\n\r\nx", c.status, c.code)
		})
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "/v1/episodes/lab-01/a", "HEAD, OPTIONS, PUT"},
		{"POST", "/v1/episodes/lab-01/a", "HEAD, OPTIONS, PUT"},
		{"DELETE", "/v1/episodes/lab-01/a", "HEAD, OPTIONS, PUT"},
		{"PATCH", "/v1/episodes/lab-01/a", "HEAD, OPTIONS, PUT"},
		{"put", "/v1/episodes/lab-01/a", "HEAD, OPTIONS, PUT"},
		{"GET", "/v1/uploads/X", "DELETE, HEAD, PATCH"},
		{"PUT", "/v1/uploads/X", "DELETE, HEAD, PATCH"},
		{"GET", "/v1/ping", "POST"},
		{"PUT", "/v1/ping", "POST"},
	} {
		d := &fakeBackend{tb: t}
		resp := serve(t, newHandler(d)).sendRaw(t, c.method+" "+c.path+" HTTP/1.1\r\nHost: r\r\n"+honest+"\r\n"+field+"\r\n\r\nx")
		if doc := readProblem(t, resp); doc.Type != ourType+"method-not-allowed" || resp.StatusCode != 405 || resp.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %s, Allow: %q, %+v", c.method, c.path, resp.Status, resp.Header.Get("Allow"), doc)
		}
		if n, _ := d.putCalls(); n > 0 {
			t.Errorf("%s %s reached the backend", c.method, c.path)
		}
	}
}

func TestHonestFormsAreTaken(t *testing.T) {
	escaped := "PUT /v1/episodes/%6cab-01/run%2D7 HTTP/1.1\r\nHost: r\r\n" + honest + "\r\n" + field + "\r\n\r\nx"
	for what, text := range map[string]string{
		"plain":                 putRequest("x", honest, field),
		"the other field":       putRequest("x", honest, "Content"+strings.TrimPrefix(field, "Repr")),
		"both fields":           putRequest("x", honest, field, "Content"+strings.TrimPrefix(field, "Repr")),
		"beside another digest": putRequest("x", honest, "Repr-Digest: sha-512=:YQ==:, "+strings.TrimPrefix(field, "Repr-Digest: ")),
		"identity":              putRequest("x", honest, field, "Content-Encoding: identity"),
		"skipped":               putRequest("x", honest, field, "Episode-Skipped: 3"),
		"empty":                 putRequest("", "Content-Length: 0", "Repr-Digest: "+formatDigest(nil)),
		"escaped once":          escaped,
	} {
		d := &fakeBackend{tb: t}
		resp := serve(t, newHandler(d)).sendRaw(t, text)
		n, u := d.putCalls()
		if resp.StatusCode != 201 || n != 1 || u.Key != key {
			t.Errorf("%s: %s, %d calls, %+v", what, resp.Status, n, u)
		}
		if what == "skipped" && u.Skipped != 3 {
			t.Errorf("skipped %d", u.Skipped)
		}
	}
}

// TestLargeRefusedBodyIsNotRead: the answer comes although the large body does not, and nothing
// waits for it.
func TestLargeRefusedBodyIsNotRead(t *testing.T) {
	for _, length := range []string{"9223372036854775807", "300000"} {
		d := &fakeBackend{tb: t, refuse: wire.Refuse(wire.TooLarge, "no")}
		resp := serve(t, newHandler(d)).sendRaw(t, putRequest("", "Content-Length: "+length, field))
		if resp.StatusCode != 413 || !resp.Close {
			t.Errorf("%s bytes: %s, closes: %v", length, resp.Status, resp.Close)
		}
	}
}

// TestRefusalComesInsteadOf100 is what curl relies on.
func TestRefusalComesInsteadOf100(t *testing.T) {
	refusing := &fakeBackend{tb: t, refuse: wire.Refuse(wire.Full, "no")}
	resp := serve(t, newHandler(refusing)).sendRaw(t, putRequest("", "Content-Length: 1000000", field, "Expect: 100-continue"))
	if resp.StatusCode != 507 {
		t.Errorf("%s, want 507", resp.Status)
	}
	taking := &fakeBackend{tb: t}
	resp = serve(t, newHandler(taking)).sendRaw(t, putRequest("", "Content-Length: 1000000", field, "Expect: 100-continue"))
	if resp.StatusCode != 100 {
		t.Errorf("%s, want 100", resp.Status)
	}
}
