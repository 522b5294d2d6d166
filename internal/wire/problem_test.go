package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

const (
	ianaType = "https://iana.org/assignments/http-problem-types#"
	ourType  = "urn:cis490:problem:"
)

// codes repeats by hand what each refusal looks like: other programs rely on it.
var codes = []struct {
	code   wire.Code
	status int
	kind   string
	fields http.Header
}{
	{wire.BadName, 400, ourType + "bad-name", nil},
	{wire.BadRequest, 400, ourType + "bad-request", nil},
	{wire.DigestMissing, 400, ourType + "digest-required", http.Header{"Want-Repr-Digest": {"sha-256=10"}}},
	{wire.DigestInvalid, 400, ianaType + "digest-invalid-values", http.Header{"Want-Repr-Digest": {"sha-256=10"}}},
	{wire.DigestMismatch, 400, ianaType + "digest-mismatched-values", nil},
	{wire.TokenRefused, 401, ourType + "token-refused", http.Header{"Www-Authenticate": {"Bearer"}}},
	{wire.Forbidden, 403, ourType + "forbidden", nil},
	{wire.HostMismatch, 403, ourType + "host-mismatch", nil},
	{wire.NotFound, 404, ourType + "not-found", nil},
	{wire.NoUpload, 404, ourType + "no-such-upload", nil},
	{wire.OffsetMismatch, 409, ianaType + "mismatching-upload-offset", nil},
	{wire.LengthMismatch, 400, ianaType + "inconsistent-upload-length", nil},
	{wire.Superseded, 409, ourType + "upload-superseded", http.Header{"Connection": {"close"}}},
	{wire.WrongType, 415, ourType + "unsupported-media-type", nil},
	{wire.BadMethod, 405, ourType + "method-not-allowed", nil},
	{wire.Stalled, 408, ourType + "stalled", http.Header{"Connection": {"close"}}},
	{wire.Conflict, 409, ourType + "episode-conflict", nil},
	{wire.OtherStore, 412, ourType + "other-store", nil},
	{wire.LengthRequired, 411, ourType + "length-required", nil},
	{wire.TooLarge, 413, ourType + "too-large", nil},
	{wire.Unsupported, 415, ourType + "unsupported-encoding", nil},
	{wire.HostBusy, 429, ourType + "host-busy", nil},
	{wire.Internal, 500, ourType + "internal-server-error", nil},
	{wire.Damaged, 500, ourType + "stored-copy-damaged", nil},
	{wire.Busy, 503, ourType + "busy", nil},
	{wire.Draining, 503, ourType + "draining", http.Header{"Connection": {"close"}}},
	{wire.Full, 507, ourType + "insufficient-storage", nil},
}

func TestEveryCodeTravels(t *testing.T) {
	stored := digest.Digest{1, 2, 3}
	content := []byte("x")
	for _, c := range codes {
		t.Run(string(c.code), func(t *testing.T) {
			refusal := &wire.Problem{Code: c.code, Detail: "why it was refused", Stored: stored, RetryAfter: 2500 * time.Millisecond}
			if c.code == wire.OtherStore { // without one it is an error
				refusal.Store = &store
			}
			s := serve(t, newHandler(&fakeBackend{tb: t, refuse: refusal}))
			resp := s.sendRaw(t, putRequest("x", "Content-Length: 1", "Repr-Digest: "+formatDigest(content)))
			doc := readProblem(t, resp)
			if resp.StatusCode != c.status || doc.Type != c.kind || doc.Detail != refusal.Detail || doc.Stored != stored.String() {
				t.Errorf("%s: %+v", resp.Status, doc)
			}
			if got := resp.Header.Get("Retry-After"); got != "3" { // never sooner than asked for
				t.Errorf("Retry-After: %q, want 3", got)
			}
			for name := range c.fields {
				if got := resp.Header.Get(name); name == "Connection" && !resp.Close || name != "Connection" && got != c.fields.Get(name) {
					t.Errorf("%s: %q, want %q", name, got, c.fields.Get(name))
				}
			}
			_, err := s.newClient(t).Put(t.Context(), uploadOf(content), bytes.NewReader(content))
			p, ok := errors.AsType[*wire.Problem](err)
			if !ok || !errors.Is(err, c.code) {
				t.Fatalf("the client makes of it %v", err)
			}
			if p.Detail != refusal.Detail || p.Stored != stored || p.RetryAfter != 3*time.Second {
				t.Errorf("the client reads %+v", p)
			}
		})
	}
}

// TestEveryCodeHasARow keeps the table above complete.
func TestEveryCodeHasARow(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	fixture.Must(t, err)
	rows := map[string]bool{}
	for _, c := range codes {
		rows[string(c.code)] = true
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Code" {
			n++
			if value := strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`); !rows[value] {
				t.Errorf("%s has no row", value)
			}
		}
		return true
	})
	if n != len(codes) {
		t.Errorf("%d codes, %d rows", n, len(codes))
	}
}

// TestOtherErrorsTellNothing: errors that are not refusals go to the log alone.
func TestOtherErrorsTellNothing(t *testing.T) {
	for _, refusal := range []error{errors.New("open /var/lib/secret: denied"), &wire.Problem{Code: "new", Detail: "secret"}} {
		s := serve(t, newHandler(&fakeBackend{tb: t, refuse: refusal}))
		resp := s.sendRaw(t, putRequest("x", "Content-Length: 1", "Repr-Digest: "+formatDigest([]byte("x"))))
		if doc := readProblem(t, resp); doc.Type != ourType+"internal-server-error" || strings.Contains(fmt.Sprint(doc), "secret") {
			t.Errorf("%+v", doc)
		}
	}
}

// TestStrangerLearnsNothing: the caller's identity is checked first.
func TestStrangerLearnsNothing(t *testing.T) {
	d := &fakeBackend{tb: t}
	h := newHandler(d)
	h.Identify = func(*http.Request) (wire.Caller, error) { return wire.Caller{}, wire.Refuse(wire.Forbidden, "no") }
	s := serve(t, h)
	for _, line := range []string{
		"PUT /v1/episodes/lab-01/run-7", "HEAD /v1/episodes/lab-01/run-7", "POST /v1/ping", "GET /", "PUT /v1/episodes/a%2f/b",
	} {
		resp := s.sendRaw(t, line+" HTTP/1.1\r\nHost: r\r\nContent-Length: 0\r\n\r\n")
		if strings.HasPrefix(line, "HEAD") {
			continue // it has no body
		}
		if doc := readProblem(t, resp); doc.Type != ourType+"forbidden" {
			t.Errorf("%s: %+v", line, doc)
		}
	}
	if n, _ := d.putCalls(); n > 0 {
		t.Error("a stranger reached the backend")
	}
}

// A gateway may write problem documents as well: they must not judge an episode.
func TestForeignProblemIsNoRefusal(t *testing.T) {
	for _, typ := range []string{"about:blank", "", "urn:new", "https://example.org/problems/conflict"} {
		for _, status := range []int{400, 409, 413} {
			s := serve(t, respondWith(status, "application/problem+json", fmt.Sprintf(`{"type":%q,"status":%d}`, typ, status)))
			_, err := s.newClient(t).Put(t.Context(), uploadOf([]byte("x")), strings.NewReader("x"))
			if path, ok := errors.AsType[*wire.UnexpectedResponseError](err); !ok || path.Status != status {
				t.Errorf("%d of the type %q: %v, want a PathError", status, typ, err)
			}
		}
	}
}

func TestUnknownTypeIsThePlainestOfItsStatus(t *testing.T) {
	for status, want := range map[int]wire.Code{
		400: wire.BadRequest, 401: wire.TokenRefused, 403: wire.Forbidden, 404: wire.NotFound, 409: wire.Conflict, 413: wire.TooLarge,
		415: wire.Unsupported, 429: wire.HostBusy, 500: wire.Internal, 503: wire.Busy, 507: wire.Full, 599: wire.Internal,
	} {
		s := serve(t, respondWith(status, "application/problem+json; charset=utf-8", fmt.Sprintf(`{"type":"urn:cis490:problem:new","status":%d,"detail":"\u001b[31mred"}`, status)))
		_, err := s.newClient(t).Put(t.Context(), uploadOf([]byte("x")), strings.NewReader("x"))
		p, ok := errors.AsType[*wire.Problem](err)
		if !ok || p.Code != want {
			t.Errorf("%d: %v, want %s", status, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\x1b") {
			t.Errorf("what the other end wrote is shown as it is: %q", err)
		}
	}
}

// TestDetailIsEscapedOnce: both ends quote names.
func TestDetailIsEscapedOnce(t *testing.T) {
	s := serve(t, respondWith(400, "application/problem+json", `{"type":"urn:cis490:problem:bad-name","status":400,"detail":"\"a\\x1b\" is no name \u001b"}`))
	_, err := s.newClient(t).Put(t.Context(), uploadOf([]byte("x")), strings.NewReader("x"))
	if want := `"a\x1b" is no name \x1b`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "1e3": 0, "999999999": 15 * time.Minute, "99999999999999999999": 0,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):       0,
		time.Now().Add(1000 * time.Hour).UTC().Format(http.TimeFormat): 15 * time.Minute,
	} {
		s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", value)
			respondWith(503, "application/problem+json", `{"type":"urn:cis490:problem:busy","status":503}`)(w, r)
		}))
		_, err := s.newClient(t).Put(t.Context(), uploadOf([]byte("x")), strings.NewReader("x"))
		if p, ok := errors.AsType[*wire.Problem](err); !ok || p.RetryAfter != want {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// respondWith returns the handler of a server that is not a receiver.
func respondWith(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}

// TestTransportPageHasEachProblemType compares the table of docs/transport.md with the types that
// are sent: each is in a row with its status, and has a † if IANA has registered it.
func TestTransportPageHasEachProblemType(t *testing.T) {
	page := fixture.ReadFile(t, "../../docs/transport.md")
	row := regexp.MustCompile(`(?m)^\| ([0-9, ]+) \| (.+?) \|`)
	type documented struct {
		statuses string
		iana     bool
	}
	table := make(map[wire.Code]documented)
	for _, r := range row.FindAllStringSubmatch(page, -1) {
		for _, name := range regexp.MustCompile("`([a-z-]+)`(†?)").FindAllStringSubmatch(r[2], -1) {
			table[wire.Code(name[1])] = documented{r[1], name[2] != ""}
		}
	}
	for _, c := range codes {
		d, ok := table[c.code]
		if !ok || !strings.Contains(d.statuses, strconv.Itoa(c.status)) || d.iana != strings.HasPrefix(c.kind, ianaType) {
			t.Errorf("%s is sent with %d as %s, documented as %+v", c.code, c.status, c.kind, d)
		}
	}
}
