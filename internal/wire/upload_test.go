package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// large is an archive that is announced.
var large = fixture.Noise(3<<20, 1)

// TestCutUploadContinuesAtItsOffset: wherever the connection breaks, no byte that the receiver has
// is sent again.
func TestCutUploadContinuesAtItsOffset(t *testing.T) {
	d := &fakeBackend{tb: t}
	var cuts atomic.Int64
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch && cuts.Add(1) <= 5 {
			r.Body = io.NopCloser(&tornReader{r: r.Body, left: 600_000})
			defer panic(http.ErrAbortHandler)
		}
		newHandler(d).ServeHTTP(w, r)
	})
	in := &countedReader{ReaderAt: bytes.NewReader(large)}
	r, err := serve(t, h).newClient(t).Put(t.Context(), uploadOf(large), in)
	fixture.Must(t, err)
	if r.Status != wire.Stored || cuts.Load() != 6 {
		t.Errorf("%+v after %d pieces", r, cuts.Load())
	}
	// Bytes in the buffers of a connection that breaks are read twice.
	if most := int64(len(large)) + 5*8<<20; in.n.Load() > most {
		t.Errorf("%d bytes were read for an archive of %d", in.n.Load(), len(large))
	}
}

// tornReader ends a body as a cut does.
type tornReader struct {
	r    io.Reader
	left int
}

func (c *tornReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// TestUploadThatComesNoFurtherEnds: a link that passes only announcements must not occupy a
// sender forever.
func TestUploadThatComesNoFurtherEnds(t *testing.T) {
	d := &fakeBackend{tb: t}
	pieces := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			pieces++
			panic(http.ErrAbortHandler)
		}
		newHandler(d).ServeHTTP(w, r)
	})
	_, err := serve(t, h).newClient(t).Put(t.Context(), uploadOf(large), bytes.NewReader(large))
	if _, further := errors.AsType[*wire.InterruptedError](err); err == nil || further || pieces != 2 {
		t.Errorf("%v after %d pieces, want an error after 2", err, pieces)
	}
}

// TestInterruptedSaysThatItCameFurther, and why it ended.
func TestInterruptedSaysThatItCameFurther(t *testing.T) {
	d := &fakeBackend{tb: t}
	pieces := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			pieces++
			if pieces == 1 {
				r.Body = io.NopCloser(&tornReader{r: r.Body, left: 100_000})
			} else {
				d.refuse = wire.Refuse(wire.Draining, "later")
				r.Body = io.NopCloser(&tornReader{r: r.Body})
			}
			defer panic(http.ErrAbortHandler)
		}
		newHandler(d).ServeHTTP(w, r)
	})
	_, err := serve(t, h).newClient(t).Put(t.Context(), uploadOf(large), bytes.NewReader(large))
	if i, ok := errors.AsType[*wire.InterruptedError](err); !ok || i.Offset != 100_000 {
		t.Errorf("%v, want it interrupted behind 100000 bytes", err)
	}
}

// TestLostUploadIsAnnouncedAgain: a restarted receiver knows nothing
// of it.
func TestLostUploadIsAnnouncedAgain(t *testing.T) {
	d := &fakeBackend{tb: t}
	lost := false
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch && !lost {
			lost = true
			d.parts = nil
		}
		newHandler(d).ServeHTTP(w, r)
	})
	r, err := serve(t, h).newClient(t).Put(t.Context(), uploadOf(large), bytes.NewReader(large))
	fixture.Must(t, err)
	if r.Status != wire.Stored || !lost {
		t.Errorf("%+v, lost: %v", r, lost)
	}
}

// TestAnnouncementCostsNoByte of an archive that is stored already, or refused.
func TestAnnouncementCostsNoByte(t *testing.T) {
	for _, code := range []wire.Code{wire.Conflict, wire.TooLarge, wire.Full, wire.HostBusy, wire.Busy, wire.Draining} {
		s := serve(t, newHandler(&fakeBackend{tb: t, refuse: wire.Refuse(code, "no")}))
		in := &countedReader{ReaderAt: bytes.NewReader(large)}
		for range 3 {
			if _, err := s.newClient(t).Put(t.Context(), uploadOf(large), in); !errors.Is(err, code) {
				t.Errorf("%v, want %s", err, code)
			}
		}
		if in.n.Load() != 0 {
			t.Errorf("%s: %d bytes were read", code, in.n.Load())
		}
	}
}

// TestAnnouncementMustBeAnswered: any other answer counts as a fault of the path.
func TestAnnouncementMustBeAnswered(t *testing.T) {
	u := uploadOf(large)
	said := func(status, more string) string {
		return fmt.Sprintf(`{"status":%q,"host_id":%q,"episode_id":%q,"sha256":"%x","size_bytes":%d,"received_at_wall":"2026-11-23T07:17:41.000001+00:00"%s}`,
			status, u.Key.Host, u.Key.Name, u.Digest, u.Size, more)
	}
	for what, body := range map[string]string{
		"nothing":               "",
		"no upload":             said("unfinished", ""),
		"another upload's":      strings.Replace(said("unfinished", `,"upload_id":"X"`), "run-7", "run-8", 1),
		"an offset behind all":  said("unfinished", fmt.Sprintf(`,"upload_id":"X","upload_offset":%d`, u.Size+1)),
		"an offset before all":  said("unfinished", `,"upload_id":"X","upload_offset":-1`),
		"stored and unfinished": said("stored", `,"upload_id":"X"`),
	} {
		s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			io.WriteString(w, body)
		}))
		r, err := s.newClient(t).Put(t.Context(), u, bytes.NewReader(large))
		if !isPath(err) || r != (wire.Receipt{}) {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
}

// TestUploadByHand makes every request of an upload as the documentation has them.
func TestUploadByHand(t *testing.T) {
	d := &fakeBackend{tb: t}
	s := serve(t, newHandler(d))
	do := func(what, text string, status int, fields ...string) *http.Response {
		t.Helper()
		resp := s.sendRaw(t, text)
		if resp.StatusCode != status {
			t.Errorf("%s: %s, want %d", what, resp.Status, status)
		}
		for i := 0; i < len(fields); i += 2 {
			if got := resp.Header.Get(fields[i]); got != fields[i+1] {
				t.Errorf("%s: %s is %q, want %q", what, fields[i], got, fields[i+1])
			}
		}
		return resp
	}
	announce := putRequest("", "Content-Length: 0", "Upload-Complete: ?0", "Upload-Length: 10", "Repr-Digest: "+formatDigest([]byte("0123456789")))
	first := do("announce", announce, 201, "Upload-Offset", "0", "Upload-Complete", "?0", "Upload-Limit", "max-size=1099511627776, max-age=604800")
	where := first.Header.Get("Location")
	at := func(method string, body string, fields ...string) string {
		fields = append(fields, fmt.Sprintf("Content-Length: %d", len(body)))
		return method + " " + where + " HTTP/1.1\r\nHost: r\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n" + body
	}
	partial := "Content-Type: application/partial-upload"
	do("a piece", at("PATCH", "0123", partial, "Upload-Offset: 0", "Upload-Complete: ?0"), 204, "Upload-Offset", "4", "Upload-Complete", "?0")
	do("how far", at("HEAD", ""), 204, "Upload-Offset", "4", "Upload-Length", "10", "Cache-Control", "no-store")
	do("announce again", announce, 201, "Upload-Offset", "4", "Location", where)
	do("the same piece again", at("PATCH", "0123", partial, "Upload-Offset: 0", "Upload-Complete: ?0"), 409, "Upload-Offset", "4")
	do("no piece", at("PATCH", "4", "Upload-Offset: 4", "Upload-Complete: ?0"), 415, "Accept-Patch", "application/partial-upload")
	do("no offset", at("PATCH", "4", partial, "Upload-Complete: ?0"), 400)
	do("no end", at("PATCH", "4", partial, "Upload-Offset: 4"), 400)
	do("the end", at("PATCH", "456789", partial, "Upload-Offset: 4", "Upload-Complete: ?1"), 201, "Upload-Complete", "?1")
	do("after the end", at("PATCH", "456789", partial, "Upload-Offset: 4", "Upload-Complete: ?1"), 404)
	do("announce once more", announce, 200)
	do("what is taken", "OPTIONS /v1/episodes/lab-01/run-7 HTTP/1.1\r\nHost: r\r\n\r\n", 204, "Upload-Limit", "max-size=1099511627776, max-age=604800")
}

// TestArchiveIsSentWhileItIsMade: what was sent before the end was known is either its
// beginning, or is sent again.
func TestArchiveIsSentWhileItIsMade(t *testing.T) {
	d := &fakeBackend{tb: t}
	s := serve(t, newHandler(d))
	c := s.newClient(t)
	id, err := c.OpenUpload(t.Context(), key.Name)
	fixture.Must(t, err)
	const sent = 1 << 20
	fixture.Must(t, c.AppendPiece(t.Context(), id, bytes.NewReader(large), 0, sent/2))
	fixture.Must(t, c.AppendPiece(t.Context(), id, bytes.NewReader(large), sent/2, sent/2))
	in := &countedReader{ReaderAt: bytes.NewReader(large)}
	r, err := c.Put(t.Context(), uploadOf(large), in)
	fixture.Must(t, err)
	if n := in.n.Load(); r.Status != wire.Stored || n > int64(len(large)-sent)+64<<10 {
		t.Errorf("%+v after %d bytes more", r, n)
	}
	if err := c.AppendPiece(t.Context(), id, bytes.NewReader(large), 0, 1); !errors.Is(err, wire.NoUpload) {
		t.Errorf("after the end: %v", err)
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	id, err = c.OpenUpload(t.Context(), "run-8")
	fixture.Must(t, err)
	fixture.Must(t, c.AppendPiece(t.Context(), id, bytes.NewReader(large), 0, 1))
	fixture.Must(t, c.CancelUpload(t.Context(), id))
	if err := c.CancelUpload(t.Context(), id); !errors.Is(err, wire.NoUpload) {
		t.Errorf("given up twice: %v, want %s", err, wire.NoUpload)
	}
}
