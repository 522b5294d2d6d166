package wire_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// TestEveryReceiptNamesItsStore covers each way in which a sender gets a receipt, and the two
// questions whose answers decide about deletions.
func TestEveryReceiptNamesItsStore(t *testing.T) {
	small, large := []byte("x"), bytes.Repeat([]byte("y"), wire.MinAnnounced)
	s := serve(t, newHandler(&fakeBackend{tb: t}))
	c := s.newClient(t)
	want := func(what string, got *wire.Store, err error) {
		t.Helper()
		if err != nil || got == nil || got.ID != store.ID || got.IndexBytes != store.IndexBytes || !got.Follows("STORE0") {
			t.Errorf("%s names the store %+v (%v), want %+v", what, got, err, store)
		}
	}
	for _, way := range []struct {
		what    string
		content []byte
		status  wire.Status
	}{
		{"201 to a PUT", small, wire.Stored}, {"200 to a PUT", small, wire.AlreadyPresent},
	} {
		r, err := c.Put(t.Context(), uploadOf(way.content), bytes.NewReader(way.content))
		want(way.what, r.Store, err)
		if r.Status != way.status {
			t.Errorf("%s: %s", way.what, r.Status)
		}
	}
	s = serve(t, newHandler(&fakeBackend{tb: t}))
	c = s.newClient(t)
	for _, what := range []string{"the last piece", "an announcement of what is there"} {
		r, err := c.Put(t.Context(), uploadOf(large), bytes.NewReader(large))
		want(what, r.Store, err)
	}
	pong, err := c.Ping(t.Context())
	want("a ping", pong.Store, err)
	_, named, err := c.Inventory(t.Context(), []wire.InventoryQuery{queryFor("run-7", "x")}, false)
	want("an inventory", named, err)
}

// TestReceiptWaitsForTheNameOfTheStore: a receipt without one would be taken for that of
// an older receiver.
func TestReceiptWaitsForTheNameOfTheStore(t *testing.T) {
	c := serve(t, newHandler(&fakeBackend{tb: t, unnamed: errors.New("no name")})).newClient(t)
	if _, err := c.Put(t.Context(), uploadOf([]byte("x")), strings.NewReader("x")); !errors.Is(err, wire.Internal) {
		t.Errorf("a receipt without a store: %v", err)
	}
	if _, err := c.Ping(t.Context()); !errors.Is(err, wire.Internal) {
		t.Errorf("a ping without a store: %v", err)
	}
	if _, _, err := c.Inventory(t.Context(), nil, false); !errors.Is(err, wire.Internal) {
		t.Errorf("an inventory without a store: %v", err)
	}
}

// storeAnswers are what a hostile receiver may claim about its store.
var storeAnswers = []string{
	`{"id":""}`, `{"id":"a/b"}`, `{"id":"a\u001b[2J"}`, `{"id":"ok","index_bytes":-1}`, `{"id":"unnamed"}`,
	`{"id":"` + strings.Repeat("a", 65) + `"}`, `{"id":"ok","replaces":["x y"]}`,
	`{"id":"ok","replaces":[` + strings.Repeat(`"a",`, 64) + `"a"]}`,
}

func TestStoreThatIsNoneIsAFaultOfThePath(t *testing.T) {
	u := uploadOf([]byte("x"))
	good, err := json.Marshal(receiptOf(u))
	fixture.Must(t, err)
	for _, said := range storeAnswers {
		body := func(s string) string { return strings.TrimSuffix(s, "}") + `,"store":` + said + "}" }
		answer := ""
		s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, answer)
		}))
		c := s.newClient(t)
		answer = body(string(good))
		if _, err := c.Put(t.Context(), u, strings.NewReader("x")); !isPath(err) {
			t.Errorf("%s in a receipt: %v", said, err)
		}
		answer = body(`{"status":"ok","host_id":"lab-01"}`)
		if _, err := c.Ping(t.Context()); !isPath(err) {
			t.Errorf("%s in a pong: %v", said, err)
		}
		s2 := serve(t, respondWith(412, "application/problem+json", body(`{"type":"urn:cis490:problem:other-store","status":412}`)))
		if _, err := s2.newClient(t).Put(t.Context(), u, strings.NewReader("x")); !isPath(err) {
			t.Errorf("%s in a refusal: %v", said, err)
		}
		answer = body(`{"host_id":"lab-01","episodes":[]}`)
		if _, _, err := c.Inventory(t.Context(), nil, false); !isPath(err) {
			t.Errorf("%s in an inventory: %v", said, err)
		}
	}
}

// TestReceiverThatNamesNoStoreIsTaken covers receivers before 2026-11-29.
func TestReceiverThatNamesNoStoreIsTaken(t *testing.T) {
	s := serve(t, respondWith(200, "application/json", `{"status":"ok","host_id":"lab-01"}`))
	if pong, err := s.newClient(t).Ping(t.Context()); err != nil || pong.Store != nil {
		t.Errorf("%+v, %v", pong.Store, err)
	}
}

// TestRequestsOfAHostThatKnowsAnotherStoreAreRefused before their bodies are read, and the
// refusal names the store.
func TestRequestsOfAHostThatKnowsAnotherStoreAreRefused(t *testing.T) {
	d := &fakeBackend{tb: t}
	c := serve(t, newHandler(d)).newClient(t)
	large := bytes.Repeat([]byte("y"), wire.MinAnnounced)
	requests := map[string]func(ctx context.Context) error{
		"put": func(ctx context.Context) error {
			_, err := c.Put(ctx, uploadOf([]byte("x")), strings.NewReader("x"))
			return err
		},
		"announcement": func(ctx context.Context) error {
			_, err := c.Put(ctx, uploadOf(large), bytes.NewReader(large))
			return err
		},
		"open":      func(ctx context.Context) error { _, err := c.OpenUpload(ctx, key.Name); return err },
		"ping":      func(ctx context.Context) error { _, err := c.Ping(ctx); return err },
		"inventory": func(ctx context.Context) error { _, _, err := c.Inventory(ctx, nil, false); return err },
	}
	for what, do := range requests {
		for _, known := range []wire.Store{{ID: "STORE2"}, {ID: store.ID, IndexBytes: store.IndexBytes + 1, IndexTail: "ab"}} {
			err := do(wire.WithKnownStore(t.Context(), known))
			p, ok := errors.AsType[*wire.Problem](err)
			if !ok || p.Code != wire.OtherStore || p.Store == nil || p.Store.ID != store.ID || p.Store.IndexBytes != store.IndexBytes {
				t.Errorf("%s that knows %+v: %v", what, known, err)
			}
		}
	}
	if n, _ := d.putCalls(); n != 0 {
		t.Errorf("%d uploads came through", n)
	}
	for _, known := range []wire.Store{{}, {ID: "STORE0", IndexBytes: 1 << 40}, {ID: store.ID, IndexBytes: 300}, {ID: "a b"}} {
		if err := requests["put"](wire.WithKnownStore(t.Context(), known)); err != nil {
			t.Errorf("a host that knows %+v: %v", known, err)
		}
	}
}

func FuzzKnownField(f *testing.F) {
	for _, s := range []string{`"STORE1";index-bytes=300;index-tail="abcd"`, `"STORE2"`, `STORE1`, `"a b"`, `"S";index-bytes=-1`, `"S";index-tail="\"`, `"S", "T"`, ""} {
		f.Add(s)
	}
	where, err := url.Parse("/v1/episodes/lab-01/run-7")
	fixture.Must(f, err)
	f.Fuzz(func(t *testing.T, s string) {
		d, resp := sendPut(t, where, http.Header{"Repr-Digest": {formatDigest([]byte("x"))}, "Store-Known": {s}})
		n, _ := d.putCalls()
		p := readProblem(t, resp)
		if own := strings.Contains(s, `"STORE1"`) || strings.Contains(s, `"STORE0"`); n > 0 != (resp.StatusCode == 507) || n > 0 && !own {
			t.Errorf("%q: %d calls, %+v", s, n, p)
		}
	})
}

func FuzzStore(f *testing.F) {
	for _, s := range storeAnswers {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"id":"4TQ7ZC5WJ2M3N6PXVB1KD8RHSE","index_bytes":9,"replaces":["A"],"more":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s wire.Store
		if json.Unmarshal(b, &s) != nil || s.Validate() != nil {
			return
		}
		for _, id := range append(s.Replaces, s.ID) {
			for _, c := range []byte(id) {
				if c < '0' || c > 'z' {
					t.Fatalf("%q has the byte %#x", id, c)
				}
			}
			if id == "" || len(id) > 64 || !s.Follows(id) {
				t.Fatalf("%q is an id", id)
			}
		}
		if s.IndexBytes < 0 || len(s.Replaces) > wire.MaxReplaced {
			t.Fatalf("%+v", s)
		}
	})
}
