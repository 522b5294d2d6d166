package wire_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// reportBook keeps the last report.
type reportBook struct {
	host   episode.Name
	report wire.Report
	refuse error
}

func (b *reportBook) KeepReport(_ context.Context, host episode.Name, r wire.Report) error {
	b.host, b.report = host, r
	return b.refuse
}

// newReport returns a report in which every field has a value.
func newReport() wire.Report {
	at := time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)
	return wire.Report{
		Version: "1.4-30-g0123abc-dirty", Instance: "F0C1D2E3F0C1D2E3F0C1D2E3", At: at, Interval: 300,
		Unfinished: 2, OldestUnfinished: at.Add(-time.Hour),
		Waiting: 3, WaitingBytes: 81920, OldestWaiting: at.Add(-time.Minute), Failing: 1, FailingSince: at,
		Held: map[string]int64{"conflict": 1, "unreadable": 2}, Shipped: 841,
		Disk:            wire.DiskSpace{FreeBytes: 1e12, SizeBytes: 4e12, MinFree: 1 << 30, FreeInodes: 1e9, Inodes: 4e9},
		CertificateEnds: at.AddDate(1, 0, 0),
		LastError:       strings.Repeat("x", wire.MaxReportError), LastErrorAt: at,
	}
}

func TestReportTravels(t *testing.T) {
	book := &reportBook{}
	h := newHandler(&fakeBackend{tb: t})
	h.Reports = book
	c := serve(t, h).newClient(t)
	sent := newReport()
	response, err := c.SendReport(t.Context(), sent)
	if err != nil || response == nil || response.Storage.FreeBytes != 7 || response.Store == nil {
		t.Errorf("got the response %+v, %v, want that of a ping", response, err)
	}
	if book.host != thisHost || !reflect.DeepEqual(book.report, sent) {
		t.Errorf("got %+v of %s, want %+v of %s", book.report, book.host, sent, thisHost)
	}
	if b, err := json.Marshal(sent); err != nil || len(b) > 1<<10 {
		t.Errorf("a full report has %d bytes (%v), want at most 1 KiB", len(b), err)
	}
	book.refuse = &wire.Problem{Code: wire.HostBusy, RetryAfter: time.Second}
	if _, err := c.SendReport(t.Context(), sent); !errors.Is(err, wire.HostBusy) {
		t.Errorf("got %v, want %v", err, wire.HostBusy)
	}
}

// TestReportClosesItsConnection: it uses one that another request has left open, and none is left after it.
func TestReportClosesItsConnection(t *testing.T) {
	h := newHandler(&fakeBackend{tb: t})
	h.Reports = &reportBook{}
	s := serve(t, h)
	c := s.newClient(t)
	ping := func() error { _, err := c.Ping(t.Context()); return err }
	report := func() error { _, err := c.SendReport(t.Context(), newReport()); return err }
	for i, step := range []struct {
		send      func() error
		wantConns int64
	}{{ping, 1}, {report, 1}, {ping, 2}, {report, 2}, {report, 3}} {
		if err := step.send(); err != nil || s.conns.Load() != step.wantConns {
			t.Errorf("request %d: got %d connections so far, %v, want %d", i, s.conns.Load(), err, step.wantConns)
		}
	}
}

// TestReportOfAHostThatKnowsAnotherStoreIsKept: it says why the host sends nothing.
func TestReportOfAHostThatKnowsAnotherStoreIsKept(t *testing.T) {
	h, book := newHandler(&fakeBackend{tb: t}), &reportBook{}
	h.Reports = book
	ctx := wire.WithKnownStore(t.Context(), wire.Store{ID: "ANOTHERSTORE"})
	response, err := serve(t, h).newClient(t).SendReport(ctx, newReport())
	if !errors.Is(err, wire.OtherStore) || response != nil {
		t.Errorf("got %+v, %v, want %v", response, err, wire.OtherStore)
	}
	if book.host != thisHost {
		t.Error("the report was not kept")
	}
}

func TestReceiverWithoutReportsAnswersNotFound(t *testing.T) {
	c := serve(t, newHandler(&fakeBackend{tb: t})).newClient(t)
	if _, err := c.SendReport(t.Context(), newReport()); !errors.Is(err, wire.NotFound) {
		t.Errorf("got %v, want %v", err, wire.NotFound)
	}
}

func TestHostileReportsAreRefused(t *testing.T) {
	const path = " /v1/report HTTP/1.1\r\nHost: receiver\r\n"
	post := func(body string) string {
		return fmt.Sprintf("POST%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	}
	for name, test := range map[string]struct {
		request string
		want    int
	}{
		"empty object":       {post(`{}`), 204},
		"unknown member":     {post(`{"later":[[1]],"shipped":1}`), 204},
		"GET":                {"GET" + path + "\r\n", 405},
		"no media type":      {"POST" + path + "Content-Length: 2\r\n\r\n{}", 415},
		"encoded":            {"POST" + path + "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415},
		"chunked":            {"POST" + path + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411},
		"too large":          {post(`{"version":"` + strings.Repeat(" ", wire.MaxReport) + `"}`), 413},
		"huge":               {"POST" + path + "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n", 413},
		"not JSON":           {post(`hello`), 400},
		"two values":         {post(`{}{}`), 400},
		"array":              {post(`[]`), 400},
		"negative":           {post(`{"shipped":-1}`), 400},
		"more than exact":    {post(`{"disk":{"free_bytes":4503599627370497}}`), 400},
		"overflow":           {post(`{"waiting":9223372036854775808}`), 400},
		"terminal escape":    {post(`{"version":"\u001b[2J"}`), 400},
		"line break":         {post(`{"last_error":"a\nb"}`), 400},
		"bidi override":      {post(`{"last_error":"\u202eabc"}`), 400},
		"instance as a path": {post(`{"instance":"../../x"}`), 400},
		"reason as markup":   {post(`{"held":{"<b>":1}}`), 400},
		"negative reason":    {post(`{"held":{"conflict":-1}}`), 400},
		"many reasons":       {post(`{"held":{` + manyReasons(17) + `}}`), 400},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(&fakeBackend{tb: t})
			h.Reports = &reportBook{}
			resp := serve(t, h).sendRaw(t, test.request)
			if resp.StatusCode != test.want {
				t.Errorf("got %s, want %d", resp.Status, test.want)
			}
			if test.want != http.StatusNoContent {
				readProblem(t, resp)
			}
		})
	}
}

func manyReasons(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"reason-%s":1`, strings.Repeat("x", i)))
	}
	return strings.Join(all, ",")
}

func FuzzParseReport(f *testing.F) {
	b, err := json.Marshal(newReport())
	fixture.Must(f, err)
	f.Add(b)
	f.Add([]byte(`{"held":{"a":1},"reported_at":"0000-01-01T00:00:00+23:59"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := wire.ParseReport(body)
		if err != nil {
			if !errors.Is(err, wire.BadRequest) {
				t.Errorf("got %v, want %v", err, wire.BadRequest)
			}
			return
		}
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
		if n := r.HeldTotal(); n < 0 {
			t.Errorf("%d are held", n)
		}
		// What was accepted can be kept, and read again.
		kept, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := wire.ParseReport(kept); err != nil || !reflect.DeepEqual(again.Held, r.Held) && len(r.Held) > 0 {
			t.Errorf("kept as %s: read %+v, %v", kept, again, err)
		}
	})
}

// TestReasonsOfHoldsAreFew: a monitoring system keeps a time series for each reason forever.
func TestReasonsOfHoldsAreFew(t *testing.T) {
	r := wire.Report{Held: map[string]int64{"conflict": 2, "made-up": 3, "another": 4, "other": 1}}
	got := r.HeldByReason()
	if got["conflict"] != 2 || got["other"] != 8 || got["made-up"] != 0 {
		t.Errorf("got %v", got)
	}
	if all := (wire.Report{}).HeldByReason(); len(got) != len(all) {
		t.Errorf("a host that reports other reasons has %d, others %d", len(got), len(all))
	}
}
