package metrics_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/metrics"
)

var (
	success = metrics.Desc("x_success", "1 if it was read.")
	count   = metrics.Desc("x_reads", "Readings.")
	at      = metrics.Desc("x_timestamp_seconds", "A time.")
)

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Errorf("status %d", w.Code)
	}
	return w.Body.String()
}

// TestUnknownTimeIsAbsent: 0 would be 1970, and each alert on an age would fire.
func TestUnknownTimeIsAbsent(t *testing.T) {
	reg := metrics.NewRegistry("receiver", "1.2")
	reg.MustRegister(metrics.Live(func(r *metrics.Reading) {
		r.SetTime(at, time.Time{})
		r.SetBool(success, true)
	}))
	got := scrape(t, metrics.Handler(reg, slog.New(slog.DiscardHandler)))
	if strings.Contains(got, "x_timestamp") || !strings.Contains(got, "\nx_success 1\n") {
		t.Errorf("it serves:\n%s", got)
	}
	if !strings.Contains(got, `cis490_build_info{goversion="go`) || !strings.Contains(got, `program="receiver",version="1.2"} 1`) {
		t.Errorf("no version:\n%s", got)
	}
}

// TestAStateThatCannotBeReadIsAMetric: what was read is served, and the log has each failure once.
func TestAStateThatCannotBeReadIsAMetric(t *testing.T) {
	var lines bytes.Buffer
	err := errors.New("no permission")
	reg := metrics.NewRegistry("receiver", "1.2")
	reg.MustRegister(&metrics.State{Success: success, Log: slog.New(slog.NewTextHandler(&lines, nil)), Read: func(r *metrics.Reading) error {
		r.Set(count, 7)
		return err
	}})
	h := metrics.Handler(reg, slog.New(slog.DiscardHandler))
	for range 3 {
		if got := scrape(t, h); !strings.Contains(got, "\nx_success 0\n") || !strings.Contains(got, "\nx_reads 7\n") {
			t.Errorf("it serves:\n%s", got)
		}
	}
	if n := strings.Count(lines.String(), "no permission"); n != 1 {
		t.Errorf("the log has it %d times: %s", n, lines.String())
	}
	err = nil
	if got := scrape(t, h); !strings.Contains(got, "\nx_success 1\n") {
		t.Errorf("it serves:\n%s", got)
	}
	err = errors.New("no permission")
	scrape(t, h)
	if n := strings.Count(lines.String(), "no permission"); n != 2 {
		t.Errorf("the log has a failure that came back %d times: %s", n, lines.String())
	}
}

// TestEachScrapeCollectsAnew: callers that share readings do so themselves.
func TestEachScrapeCollectsAnew(t *testing.T) {
	n := 0.0
	reg := metrics.NewRegistry("shipper", "1.2")
	reg.MustRegister(metrics.Live(func(r *metrics.Reading) { n++; r.Count(count, n) }))
	for _, want := range []string{"\nx_reads 1\n", "\nx_reads 2\n"} {
		text, err := metrics.Text(reg)
		fixture.Must(t, err)
		if !strings.Contains(string(text), want) {
			t.Errorf("got %s, want %q", text, want)
		}
	}
}
