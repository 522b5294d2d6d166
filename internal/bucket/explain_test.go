package bucket_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/config"
	"cis490/internal/digest"
	"cis490/internal/fixture"
)

const (
	testAccess = "ACCESSKEYOFTEST"
	testSecret = "secretkeyoftest"
)

func open(t *testing.T, c bucket.Config) *bucket.S3 {
	t.Helper()
	s, err := bucket.Open(c)
	fixture.Must(t, err)
	return s
}

// engine starts a server that answers each request as a test says.
func engine(t *testing.T, answer http.HandlerFunc) bucket.Config {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return configFor(t, server.URL)
}

func configFor(t *testing.T, urls ...string) bucket.Config {
	t.Helper()
	c := bucket.DefaultConfig()
	c.Endpoints, c.Bucket, c.Prefix = urls, "receivers", "lab"
	c.CredentialsFile = buckettest.WriteCredentials(t, testAccess, testSecret)
	return c
}

// answerError answers as S3 engines do. The message has what it must not have.
func answerError(w http.ResponseWriter, status int, code, more string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>not signed by %s with %s</Message>%s</Error>", code, testAccess, testSecret, more)
}

func digestOf(text string) digest.Digest {
	d, _, _ := digest.Of(strings.NewReader(text))
	return d
}

func create(ctx context.Context, b bucket.Bucket, name, text string) error {
	return b.Create(ctx, name, strings.NewReader(text), int64(len(text)), digestOf(text))
}

// operations are all requests of a bucket.
var operations = map[string]func(context.Context, bucket.Bucket) error{
	"create": func(ctx context.Context, b bucket.Bucket) error { return create(ctx, b, "a", "x") },
	"put": func(ctx context.Context, b bucket.Bucket) error {
		return b.Put(ctx, "a", strings.NewReader("x"), 1, digestOf("x"))
	},
	"open": func(ctx context.Context, b bucket.Bucket) error {
		_, _, err := b.Open(ctx, "a")
		return err
	},
	"list": func(ctx context.Context, b bucket.Bucket) (err error) {
		for _, err = range b.List(ctx, "", "") {
		}
		return err
	},
	"remove": func(ctx context.Context, b bucket.Bucket) error { return b.Remove(ctx, "a") },
	"begin": func(ctx context.Context, b bucket.Bucket) error {
		_, err := b.Begin(ctx, "a")
		return err
	},
	"part": func(ctx context.Context, b bucket.Bucket) error {
		_, err := b.PutPart(ctx, "a", "id", 1, strings.NewReader("x"), 1, digestOf("x"))
		return err
	},
	"finish": func(ctx context.Context, b bucket.Bucket) error {
		return b.Finish(ctx, "a", "id", []bucket.Part{{Number: 1, ETag: "x"}})
	},
	"abort": func(ctx context.Context, b bucket.Bucket) error { return b.Abort(ctx, "a", "id") },
}

func TestErrorsOfEnginesAreTranslated(t *testing.T) {
	known := []error{fs.ErrExist, fs.ErrNotExist, bucket.ErrFull, bucket.ErrDigest, bucket.ErrNoUpload, bucket.ErrPart}
	for _, test := range []struct {
		status     int
		code       string
		operations string
		want       error // of all, or an error that says nothing of what was stored
	}{
		{412, "PreconditionFailed", "create", fs.ErrExist},
		{412, "PreconditionFailed", "put", nil},
		{404, "NoSuchKey", "open", fs.ErrNotExist},
		{404, "NoSuchBucket", "open create", nil},
		{404, "XAdminUserNotFound", "open create remove abort", nil},
		{400, "XAmzContentSHA256Mismatch", "create put part", bucket.ErrDigest},
		{400, "BadDigest", "create put part", bucket.ErrDigest},
		{400, "IncompleteBody", "create put part", bucket.ErrDigest},
		{403, "QuotaExceeded", "create put begin part finish", bucket.ErrFull},
		{507, "XMinioStorageFull", "create put", bucket.ErrFull},
		{507, "Other", "create put", bucket.ErrFull},
		{404, "NoSuchUpload", "part finish", bucket.ErrNoUpload},
		{400, "InvalidPart", "finish", bucket.ErrPart},
		{400, "InvalidPartOrder", "finish", bucket.ErrPart},
		{400, "EntityTooSmall", "finish", nil},
		{500, "InternalError", "create put open list remove begin part finish abort", nil},
		{503, "SlowDown", "create put open list remove begin part finish abort", nil},
		{403, "AccessDenied", "create put open list remove begin part finish abort", nil},
	} {
		s := open(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			answerError(w, test.status, test.code, "")
		}))
		for op := range strings.FieldsSeq(test.operations) {
			err := operations[op](t.Context(), s)
			if err == nil || strings.Contains(err.Error(), testAccess) || strings.Contains(err.Error(), testSecret) {
				t.Errorf("%s, %s: got %v, want an error without the keys", op, test.code, err)
			}
			for _, e := range known {
				if errors.Is(err, e) != (e == test.want) {
					t.Errorf("%s, %s: got %v, want %v", op, test.code, err, test.want)
				}
			}
		}
	}
}

// TestOnlyAnEngineSaysThatAnObjectIsMissing: to a wrong key, engines answer HEAD with 404 as well, and
// so does a proxy to everything.
func TestOnlyAnEngineSaysThatAnObjectIsMissing(t *testing.T) {
	for _, test := range []struct {
		answer  func(http.ResponseWriter)
		missing bool
	}{
		{func(w http.ResponseWriter) { answerError(w, 404, "NoSuchKey", "") }, true},
		{func(w http.ResponseWriter) { answerError(w, 404, "NoSuchBucket", "") }, false},
		{func(w http.ResponseWriter) { answerError(w, 404, "XAdminUserNotFound", "") }, false},
		{func(w http.ResponseWriter) { http.Error(w, "<html>not found</html>", 404) }, false},
		{func(w http.ResponseWriter) { w.WriteHeader(404) }, false},
	} {
		s := open(t, engine(t, func(w http.ResponseWriter, _ *http.Request) { test.answer(w) }))
		_, stat := s.Stat(t.Context(), "a")
		_, _, opened := s.Open(t.Context(), "a")
		removed := s.Remove(t.Context(), "a")
		if errors.Is(stat, fs.ErrNotExist) != test.missing || errors.Is(opened, fs.ErrNotExist) != test.missing || (removed == nil) != test.missing || stat == nil || opened == nil {
			t.Errorf("got %v, %v and %v, want a missing object %t", stat, opened, removed, test.missing)
		}
	}
}

// TestMissingIsNoErrorOfRemoval: removing and aborting are done once there is nothing.
func TestMissingIsNoErrorOfRemoval(t *testing.T) {
	for op, code := range map[string]string{"remove": "NoSuchKey", "abort": "NoSuchUpload"} {
		s := open(t, engine(t, func(w http.ResponseWriter, _ *http.Request) { answerError(w, 404, code, "") }))
		if err := operations[op](t.Context(), s); err != nil {
			t.Errorf("%s, %s: got %v, want none", op, code, err)
		}
	}
}

func TestErrorsForOperatorsSayWhatToDo(t *testing.T) {
	skewed := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		status int
		code   string
		more   string
		want   []string
	}{
		{403, "InvalidAccessKeyId", "", []string{"does not know the access key in /", "correct the file"}},
		{403, "SignatureDoesNotMatch", "", []string{"correct the secret key in /"}},
		{403, "AccessDenied", "", []string{`to get, put, delete and list objects of bucket receivers below "lab/"`}},
		{404, "NoSuchBucket", "", []string{"has no bucket receivers: create it"}},
		{403, "RequestTimeTooSkewed", "", []string{"2026-01-02T03:04:05Z at http://127.0.0.1", time.Now().UTC().Format("it is 2006-01-02T"), "synchronize both"}},
		{301, "PermanentRedirect", "<Region>eu-west-1</Region>", []string{"bucket receivers is in region eu-west-1, not in us-east-1: correct region"}},
		{400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>", []string{"is in region eu-west-1, not in us-east-1: correct region"}},
		{307, "TemporaryRedirect", "", []string{"correct region, endpoints or path_style"}},
		{503, "SlowDown", "", []string{"is overloaded"}},
		{418, "New<b>\x1b", "", []string{"HTTP 418"}},
	} {
		s := open(t, engine(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", skewed.Format(http.TimeFormat))
			answerError(w, test.status, test.code, test.more)
		}))
		err := create(t.Context(), s, "a", "x")
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", test.code, err, want)
			}
		}
		if err != nil && (strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), testAccess) || strings.Contains(err.Error(), "\x1b")) {
			t.Errorf("%s: got %q, want no keys and printable text", test.code, err)
		}
	}
}

func TestErrorsOfTheConnectionSayWhatToDo(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	fixture.Must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	for _, test := range []struct {
		url, ca, want string
	}{
		{secure.URL, "", "is not trusted: set ca_file"},
		{strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), ca, "is for another host"},
		{strings.Replace(plain.URL, "http:", "https:", 1), "", "does not speak TLS"},
		{closedURL(t), "", "refuses connections: start the object store"},
		{secure.URL, ca, "did not answer as an object store does: correct endpoints"}, // the certificate is trusted
	} {
		c := configFor(t, test.url)
		c.CAFile = config.Path(test.ca)
		_, err := open(t, c).Stat(t.Context(), "a")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.url, err, test.want)
		}
	}
}

// closedURL returns the URL of a port that no process listens on.
func closedURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	fixture.Must(t, l.Close())
	return "http://" + l.Addr().String()
}

// TestRequestsAreSigned: the signature covers the digest that the caller knows, and only Create is
// conditional.
func TestRequestsAreSigned(t *testing.T) {
	var mu sync.Mutex
	var got []string
	s := open(t, engine(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprint(r.Method, r.URL.Path, r.Header.Get("X-Amz-Content-Sha256"), r.Header["If-None-Match"], string(body)))
	}))
	fixture.Must(t, create(t.Context(), s, "a/b", "text"))
	fixture.Must(t, s.Put(t.Context(), "c", strings.NewReader("text"), 4, digestOf("text")))
	mu.Lock()
	defer mu.Unlock()
	d := digestOf("text").String()
	want := []string{"PUT/receivers/lab/a/b" + d + "[*]text", "PUT/receivers/lab/c" + d + "[]text"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestConflictOfCreatorsIsTriedAgain: it says that another request was in flight, not who won.
func TestConflictOfCreatorsIsTriedAgain(t *testing.T) {
	for _, test := range []struct {
		name      string
		conflicts int
		body      io.Reader
		attempts  int
		created   bool
	}{
		{"two conflicts", 2, strings.NewReader("text"), 3, true},
		{"only conflicts", 1000, strings.NewReader("text"), 5, false},
		{"a body that can be read once", 2, io.MultiReader(strings.NewReader("text")), 1, false},
	} {
		var mu sync.Mutex
		attempts := 0
		s := open(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			attempts++
			if string(body) != "text" {
				t.Errorf("%s: attempt %d: got %q, want the whole text", test.name, attempts, body)
			}
			if attempts <= test.conflicts {
				answerError(w, 409, "ConditionalRequestConflict", "")
			}
		}))
		err := s.Create(t.Context(), "a", test.body, 4, digestOf("text"))
		mu.Lock()
		if (err == nil) != test.created || errors.Is(err, fs.ErrExist) || attempts != test.attempts {
			t.Errorf("%s: got %v after %d attempts, want created %t after %d", test.name, err, attempts, test.created, test.attempts)
		}
		mu.Unlock()
	}
}

// TestEarlyConfirmationIsNone: an engine cannot have stored what it has not read.
func TestEarlyConfirmationIsNone(t *testing.T) {
	s := open(t, engine(t, func(http.ResponseWriter, *http.Request) {}))
	const size = 64 << 20 // more than the buffers in between
	if err := s.Put(t.Context(), "a", io.LimitReader(zeros{}, size), size, digestOf("x")); err == nil {
		t.Error("got no error for an object of which the engine has read nothing")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestObjectThatEndsEarlyFailsToRead(t *testing.T) {
	s := open(t, engine(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		fmt.Fprint(w, "half")
	}))
	r, info, err := s.Open(t.Context(), "a")
	fixture.Must(t, err)
	got, err := io.ReadAll(r)
	if !errors.Is(err, io.ErrUnexpectedEOF) || info.Size != 100 {
		t.Errorf("got %q, %v (%+v), want %v", got, err, info, io.ErrUnexpectedEOF)
	}
	fixture.Must(t, r.Close())
}

// countingEngine counts its requests and answers with a status, or by ending the connection.
func countingEngine(t *testing.T, status int, count *requestCount) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		count.add()
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

type requestCount struct {
	mu sync.Mutex
	n  int
}

func (c *requestCount) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *requestCount) value() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestEndpointThatRefusesConnectionsIsPassedOver(t *testing.T) {
	var count requestCount
	s := open(t, configFor(t, closedURL(t), countingEngine(t, http.StatusOK, &count)))
	for i := range 3 {
		if err := create(t.Context(), s, "a", "x"); err != nil || count.value() != i+1 {
			t.Fatalf("request %d: got %v after %d requests", i, err, count.value())
		}
	}
}

// TestEndpointThatDoesNotAnswerIsPassedOver: also if callers give up before the transport does.
func TestEndpointThatDoesNotAnswerIsPassedOver(t *testing.T) {
	for what, request := range map[string]func(context.Context, *bucket.S3) error{
		"create": func(ctx context.Context, s *bucket.S3) error { return create(ctx, s, "a", "x") },
		"list": func(ctx context.Context, s *bucket.S3) error {
			for _, err := range s.List(ctx, "a/", "") {
				return err
			}
			return nil
		},
	} {
		for _, end := range []error{context.DeadlineExceeded, context.Canceled} {
			arrived := make(chan struct{}, 1)
			hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				select {
				case arrived <- struct{}{}:
				default:
				}
				<-r.Context().Done()
			}))
			t.Cleanup(hanging.Close)
			t.Cleanup(hanging.CloseClientConnections)
			var count requestCount
			s := open(t, configFor(t, hanging.URL, countingEngine(t, http.StatusOK, &count)))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			if end == context.Canceled {
				ctx, cancel = context.WithCancel(t.Context())
				go func() { <-arrived; cancel() }()
			}
			if err := request(ctx, s); !errors.Is(err, end) {
				t.Errorf("%s: got %v, want %v", what, err, end)
			}
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), time.Second/2)
			_ = create(ctx, s, "a", "x")
			cancel()
			if passed := count.value() > 0; passed != (end == context.DeadlineExceeded) {
				t.Errorf("%s: %v: the other endpoint was asked: got %v", what, end, passed)
			}
		}
	}
}

// TestRequestIsNotSentTwice: the first engine may have stored the object.
func TestRequestIsNotSentTwice(t *testing.T) {
	for _, status := range []int{0, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		var first, second requestCount
		s := open(t, configFor(t, countingEngine(t, status, &first), countingEngine(t, http.StatusOK, &second)))
		if err := create(t.Context(), s, "a", "x"); err == nil || first.value() != 1 || second.value() != 0 {
			t.Errorf("status %d: got %v after %d and %d requests, want an error after 1 and 0", status, err, first.value(), second.value())
		}
		if err := create(t.Context(), s, "a", "x"); err != nil || second.value() != 1 {
			t.Errorf("status %d: the next request: got %v after %d requests at the other endpoint, want 1", status, err, second.value())
		}
	}
}

// TestCutUploadBlamesNoEndpoint: hosts that go away must not move all requests to another endpoint.
func TestCutUploadBlamesNoEndpoint(t *testing.T) {
	var first, second requestCount
	s := open(t, configFor(t, countingEngine(t, http.StatusOK, &first), countingEngine(t, http.StatusOK, &second)))
	err := s.Put(t.Context(), "a", strings.NewReader("half"), 8, digestOf("x"))
	if !errors.Is(err, bucket.ErrDigest) {
		t.Errorf("got %v, want %v", err, bucket.ErrDigest)
	}
	fixture.Must(t, create(t.Context(), s, "a", "x"))
	if second.value() != 0 {
		t.Errorf("got %d requests at the other endpoint, want 0", second.value())
	}
}

// TestListThatIsOutOfOrderFails: the caller would miss objects.
func TestListThatIsOutOfOrderFails(t *testing.T) {
	s := open(t, engine(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<ListBucketResult><Contents><Key>lab/b</Key></Contents><Contents><Key>lab/a</Key></Contents></ListBucketResult>")
	}))
	var names []string
	var failed error
	for info, err := range s.List(t.Context(), "", "") {
		names, failed = append(names, info.Name), err
	}
	if len(names) != 2 || names[0] != "b" || failed == nil {
		t.Errorf("got %q, %v, want b and an error", names, failed)
	}
}
