package metrics_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/metrics"
	"cis490/internal/snapshot"
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

// TestManyScrapesReadTheStateOnce: whoever can connect can scrape as often as they like.
func TestManyScrapesReadTheStateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0.0
		reg := metrics.NewRegistry("receiver", "1.2")
		reg.MustRegister(&metrics.State{Success: success, Log: slog.New(slog.DiscardHandler), Read: func(r *metrics.Reading) error {
			reads++
			r.Set(count, reads)
			r.SetTime(at, time.Time{}) // unknown: absent
			return nil
		}})
		h := metrics.Handler(reg, slog.New(slog.DiscardHandler))
		for range 5 {
			if got := scrape(t, h); !strings.Contains(got, "\nx_reads 1\n") || !strings.Contains(got, "\nx_success 1\n") {
				t.Errorf("it serves:\n%s", got)
			}
		}
		time.Sleep(snapshot.MinAge)
		got := scrape(t, h)
		if !strings.Contains(got, "\nx_reads 2\n") {
			t.Errorf("after %v it serves:\n%s", snapshot.MinAge, got)
		}
		if strings.Contains(got, "x_timestamp") {
			t.Errorf("an unknown time is served:\n%s", got)
		}
		if !strings.Contains(got, `cis490_build_info{goversion="go`) || !strings.Contains(got, `program="receiver",version="1.2"} 1`) {
			t.Errorf("no version:\n%s", got)
		}
	})
}

// TestReadingsOfALargeStateAreFurtherApart: scrapes must not keep the disk busy.
func TestReadingsOfALargeStateAreFurtherApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		state := &metrics.State{Success: success, Log: slog.New(slog.DiscardHandler), Read: func(*metrics.Reading) error {
			reads++
			time.Sleep(3 * time.Second) // a backlog of a million
			return nil
		}}
		reg := metrics.NewRegistry("shipper", "1.2")
		reg.MustRegister(state)
		begun := time.Now()
		for time.Since(begun) < 10*time.Minute {
			_, err := reg.Gather()
			fixture.Must(t, err)
			time.Sleep(time.Second)
		}
		if took := 3 * time.Duration(reads) * time.Second; took > 30*time.Second || reads < 5 {
			t.Errorf("%d readings took %v of ten minutes", reads, took)
		}
	})
}

// TestAStateThatCannotBeReadIsAMetric: what was read is served, and the log says it once.
func TestAStateThatCannotBeReadIsAMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
			time.Sleep(snapshot.MinAge)
		}
		if n := strings.Count(lines.String(), "no permission"); n != 1 {
			t.Errorf("the log has it %d times: %s", n, lines.String())
		}
		err = nil
		if got := scrape(t, h); !strings.Contains(got, "\nx_success 1\n") {
			t.Errorf("it serves:\n%s", got)
		}
	})
}

// TestWhatIsInMemoryIsOfTheMoment: only readings of directories are shared.
func TestWhatIsInMemoryIsOfTheMoment(t *testing.T) {
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
