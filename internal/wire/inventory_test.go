package wire_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// Admit counts the inventories that are open.
func (d *fakeBackend) Admit(_ context.Context, host episode.Name) (func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full != nil {
		return nil, d.full
	}
	d.inventories++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.inventories--
	}, nil
}

// Inventory implements the contract of [wire.Backend.Inventory].
func (d *fakeBackend) Inventory(_ context.Context, host episode.Name, claims []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	if host != thisHost || len(claims) > wire.MaxQueries || readBack && len(claims) != 1 {
		d.tb.Errorf("the handler let %d claims of %s through (read back: %v)", len(claims), host, readBack)
	}
	if d.refuse != nil {
		return nil, d.refuse
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	said := make([]wire.InventoryEntry, 0, len(claims))
	for _, c := range claims {
		if _, err := episode.ParseName(string(c.Episode)); err != nil || c.Digest.IsZero() {
			d.tb.Errorf("the handler let %+v through", c)
		}
		h := wire.InventoryEntry{Episode: c.Episode, State: wire.Absent}
		if r, found := d.stored[episode.Key{Host: host, Name: c.Episode}]; found {
			h.State, h.Digest, h.Size, h.ReceivedAt = wire.Present, &r.Digest, r.Size, &r.ReceivedAt
			if r.Digest != c.Digest {
				h.State = wire.Divergent
			}
			if readBack {
				h.VerifiedAt = &wire.Timestamp{Time: received.Add(time.Hour)}
			}
		}
		said = append(said, h)
	}
	return said, nil
}

func queryFor(name string, content string) wire.InventoryQuery {
	return wire.InventoryQuery{Episode: episode.Name(name), Digest: sha256.Sum256([]byte(content))}
}

func TestInventoryGoesThereAndBack(t *testing.T) {
	d := &fakeBackend{tb: t}
	c := serve(t, newHandler(d)).newClient(t)
	_, err := c.Put(t.Context(), uploadOf([]byte("x")), strings.NewReader("x"))
	fixture.Must(t, err)
	said, _, err := c.Inventory(t.Context(), []wire.InventoryQuery{queryFor("run-7", "x"), queryFor("run-8", "x"), queryFor("run-7", "y")}, false)
	fixture.Must(t, err)
	var states []wire.State
	for _, h := range said {
		states = append(states, h.State)
	}
	if got := fmt.Sprint(states); got != "[present absent divergent]" || said[0].VerifiedAt != nil || !said[0].ReceivedAt.Equal(received) {
		t.Errorf("got %s, %+v", got, said)
	}
	said, _, err = c.Inventory(t.Context(), []wire.InventoryQuery{queryFor("run-7", "x")}, true)
	if err != nil || said[0].VerifiedAt == nil || !said[0].VerifiedAt.Equal(received.Add(time.Hour)) {
		t.Errorf("got %+v, %v", said, err)
	}
	if said, _, err := c.Inventory(t.Context(), nil, false); err != nil || len(said) != 0 {
		t.Errorf("of nothing: %+v, %v", said, err)
	}
	many := make([]wire.InventoryQuery, wire.MaxQueries)
	for i := range many {
		many[i] = queryFor(fmt.Sprintf("%s-%04d", strings.Repeat("x", 123), i), "x")
	}
	if said, _, err := c.Inventory(t.Context(), many, false); err != nil || len(said) != wire.MaxQueries {
		t.Errorf("of as many as are allowed, with the longest names: %d, %v", len(said), err)
	}
	if _, _, err := c.Inventory(t.Context(), append(many, many[0]), false); !errors.Is(err, wire.BadRequest) {
		t.Errorf("of one more: %v, want BadRequest", err)
	}
}

// sendInventory sends an inventory and returns the answer.
func sendInventory(t testing.TB, d *fakeBackend, body string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/inventory", strings.NewReader(body))
	r.Header.Set("Content-Length", fmt.Sprint(len(body))) // net/http leaves it there
	w := httptest.NewRecorder()
	newHandler(d).ServeHTTP(deadlineRecorder{w}, r)
	return w.Result()
}

func TestHostileInventoryIsRefused(t *testing.T) {
	sum := digest.Digest(sha256.Sum256(nil)).String()
	good := fmt.Sprintf(`{"episode_id":"run-7","sha256":"%s"}`, sum)
	for what, c := range map[string]struct {
		body   string
		status int
	}{
		"empty":               {"", 400},
		"no JSON":             {"x", 400},
		"an array":            {"[]", 400},
		"null":                {"null", 400},
		"no array":            {`{"episodes":{}}`, 400},
		"cut off":             {`{"episodes":[` + good, 400},
		"trailing":            {`{"episodes":[]}{}`, 400},
		"twice":               {`{"episodes":[],"episodes":[]}`, 400},
		"twice said":          {`{"read_back":true,"read_back":false,"episodes":[` + good + `]}`, 400},
		"a path":              {fmt.Sprintf(`{"episodes":[{"episode_id":"../run-7","sha256":"%s"}]}`, sum), 400},
		"no name":             {fmt.Sprintf(`{"episodes":[{"sha256":"%s"}]}`, sum), 400},
		"no digest":           {`{"episodes":[{"episode_id":"run-7"}]}`, 400},
		"a short digest":      {`{"episodes":[{"episode_id":"run-7","sha256":"00"}]}`, 400},
		"empty claims":        {`{"episodes":[` + strings.Repeat("{},", 300000) + `{}]}`, 400},
		"null claims":         {`{"episodes":[null]}`, 400},
		"too many":            {`{"episodes":[` + strings.Repeat(good+",", 1000) + good + `]}`, 400},
		"read back none":      {`{"read_back":true,"episodes":[]}`, 400},
		"read back two":       {`{"read_back":true,"episodes":[` + good + "," + good + `]}`, 400},
		"deep":                {`{"x":` + strings.Repeat("[", 200000) + strings.Repeat("]", 200000) + `}`, 400},
		"a long string":       {`{"x":"` + strings.Repeat("x", 20000) + `"}`, 400},
		"a long member name":  {`{"` + strings.Repeat("x", 20000) + `":1}`, 400},
		"a long number":       {`{"x":` + strings.Repeat("1", 20000) + `}`, 400},
		"much white space":    {`{"x":` + strings.Repeat(" ", 20000) + `1}`, 400},
		"a large claim":       {`{"episodes":[{"x":"` + strings.Repeat("x", 20000) + `"}]}`, 400},
		"a long unknown list": {`{"x":[` + strings.Repeat("1,", 300000) + `1]}`, 200},
		"too large":           {strings.Repeat(" ", 1<<20+1), 413},
		"of a later receiver": {`{"more":{"a":[1]},"episodes":[` + good + `]}`, 200},
		"no member":           {`{}`, 200},
		"good":                {`{"episodes":[` + good + `]}`, 200},
	} {
		resp := sendInventory(t, &fakeBackend{tb: t}, c.body)
		if resp.StatusCode != c.status {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("%s: %d %s, want %d", what, resp.StatusCode, b, c.status)
			continue
		}
		if c.status != 200 {
			readProblem(t, resp)
		}
	}
}

// A request that waits for its slot must not have its body in memory.
func TestInventoryIsAdmittedBeforeItsBodyIsRead(t *testing.T) {
	d := &fakeBackend{tb: t, full: wire.Refuse(wire.HostBusy, "busy")}
	r := httptest.NewRequest(http.MethodPost, "/v1/inventory", iotest.ErrReader(errors.New("read before it was admitted")))
	r.ContentLength = 1 << 20
	r.Header.Set("Content-Length", fmt.Sprint(r.ContentLength))
	w := httptest.NewRecorder()
	newHandler(d).ServeHTTP(deadlineRecorder{w}, r)
	if w.Code != http.StatusTooManyRequests {
		t.Errorf("got %d %s, want 429", w.Code, w.Body)
	}
}

// openWriter notes how many inventories are admitted while the answer is written.
type openWriter struct {
	deadlineRecorder
	d    *fakeBackend
	open int
}

func (w *openWriter) Write(p []byte) (int, error) {
	w.d.mu.Lock()
	w.open = w.d.inventories
	w.d.mu.Unlock()
	return w.deadlineRecorder.Write(p)
}

// The answer takes memory too, for as long as the sender does not read it.
func TestInventoryIsReleasedAfterItsAnswer(t *testing.T) {
	d := &fakeBackend{tb: t}
	r := httptest.NewRequest(http.MethodPost, "/v1/inventory", strings.NewReader("{}"))
	r.Header.Set("Content-Length", "2")
	w := &openWriter{deadlineRecorder{httptest.NewRecorder()}, d, 0}
	newHandler(d).ServeHTTP(w, r)
	if w.Code != 200 || w.open != 1 || d.inventories != 0 {
		t.Errorf("status %d, %d admitted during the answer and %d after it, want 200, 1 and 0", w.Code, w.open, d.inventories)
	}
}

func TestInventoryHasOneMethodAndALength(t *testing.T) {
	for _, c := range []struct {
		method string
		fields http.Header
		status int
	}{
		{http.MethodGet, http.Header{"Content-Length": {"2"}}, 405},
		{http.MethodPut, http.Header{"Content-Length": {"2"}}, 405},
		{http.MethodPost, http.Header{}, 411},
		{http.MethodPost, http.Header{"Content-Length": {"2"}, "Content-Encoding": {"gzip"}}, 415},
	} {
		r := httptest.NewRequest(c.method, "/v1/inventory", strings.NewReader("{}"))
		r.Header = c.fields
		w := httptest.NewRecorder()
		newHandler(&fakeBackend{tb: t}).ServeHTTP(w, r)
		if resp := w.Result(); resp.StatusCode != c.status {
			t.Errorf("%s %v: %d, want %d", c.method, c.fields, resp.StatusCode, c.status)
		} else {
			readProblem(t, resp)
		}
	}
}

// A stranger learns nothing, and asks for nothing.
func TestInventoryComesAfterIdentity(t *testing.T) {
	d := &fakeBackend{tb: t}
	h := newHandler(d)
	h.Identify = func(*http.Request) (wire.Caller, error) { return wire.Caller{}, wire.Refuse(wire.Forbidden, "no") }
	c := serve(t, h).newClient(t)
	if _, _, err := c.Inventory(t.Context(), []wire.InventoryQuery{queryFor("run-7", "x")}, false); !errors.Is(err, wire.Forbidden) {
		t.Errorf("got %v, want Forbidden", err)
	}
}

func TestInventoryRefusalsTravel(t *testing.T) {
	c := serve(t, newHandler(&fakeBackend{tb: t, refuse: wire.Refuse(wire.HostBusy, "busy")})).newClient(t)
	if _, _, err := c.Inventory(t.Context(), nil, false); !errors.Is(err, wire.HostBusy) {
		t.Errorf("got %v, want HostBusy", err)
	}
}

// Episodes are deleted because of these answers: an answer to another question, or one that
// contradicts itself, is refused.
func TestAnswerToAnInventoryMustFitIt(t *testing.T) {
	sum, other := digest.Digest(sha256.Sum256([]byte("x"))).String(), digest.Digest(sha256.Sum256([]byte("y"))).String()
	at := `"received_at_wall":"2026-11-23T07:17:41.000001+00:00"`
	for what, body := range map[string]string{
		"nothing":          ``,
		"no object":        `[]`,
		"another host":     `{"host_id":"lab-02","episodes":[{"episode_id":"run-7","state":"present","sha256":"` + sum + `",` + at + `}]}`,
		"fewer":            `{"host_id":"lab-01","episodes":[]}`,
		"another episode":  `{"host_id":"lab-01","episodes":[{"episode_id":"run-8","state":"present","sha256":"` + sum + `",` + at + `}]}`,
		"another sha256":   `{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"present","sha256":"` + other + `",` + at + `}]}`,
		"no sha256":        `{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"present",` + at + `}]}`,
		"no time":          `{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"present","sha256":"` + sum + `"}]}`,
		"the same differs": `{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"divergent","sha256":"` + sum + `",` + at + `}]}`,
		"a contradiction":  `{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"present","sha256":"` + sum + `",` + at + `,"verified_at_wall":"2026-11-23T07:17:42.000001+00:00","unreadable":true}]}`,
		"an unknown state": `{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"fine\u001b"}]}`,
	} {
		s := serve(t, respondWith(200, "application/json", body))
		said, _, err := s.newClient(t).Inventory(t.Context(), []wire.InventoryQuery{queryFor("run-7", "x")}, false)
		if _, ok := errors.AsType[*wire.UnexpectedResponseError](err); !ok || said != nil {
			t.Errorf("%s: %+v, %v, want a PathError", what, said, err)
		}
	}
}

func FuzzInventory(f *testing.F) {
	sum := digest.Digest(sha256.Sum256(nil)).String()
	for _, s := range []string{
		`{"episodes":[{"episode_id":"run-7","sha256":"` + sum + `"}],"read_back":true}`,
		`{"episodes":[]}`, `{}`, `{"episodes":[null]}`, `{"a":{"episodes":[]}}`, `{"episodes":[{}]} x`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		resp := sendInventory(t, &fakeBackend{tb: t}, string(body))
		switch resp.StatusCode {
		case 200:
			if !json.Valid(body) {
				t.Errorf("%q was taken", body)
			}
		case 400, 413:
			readProblem(t, resp)
		default:
			t.Errorf("%q: %d", body, resp.StatusCode)
		}
		if b, err := io.ReadAll(resp.Body); err == nil && bytes.ContainsFunc(b, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
			t.Errorf("%q: an answer that is not ASCII: %q", body, b)
		}
	})
}
