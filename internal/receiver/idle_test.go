package receiver_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/receiver"
)

// The clock of this test is that of synctest.
func TestIdleReceiverReviewsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.stop()
		var asked atomic.Int64 // how often the gate asked for the time
		trust := l.cfg.TrustConfig()
		trust.Now = func() time.Time { asked.Add(1); return time.Now() }
		g, err := gate.Open(trust)
		fixture.Must(t, err)
		r, err := receiver.New(t.Context(), g, l.cfg, "test", "the lab", slog.New(&l.Stops), nil)
		fixture.Must(t, err)
		l.use(r)
		idle := func(after string) {
			t.Helper()
			before := asked.Load()
			<-time.After(time.Minute)
			if n := asked.Load() - before; n > 0 {
				t.Errorf("after %s: got %d reviews in a minute, want 0", after, n)
			}
		}
		serve := func(req *http.Request) int {
			answer := httptest.NewRecorder()
			l.r.PortHandler().ServeHTTP(answer, req)
			return answer.Code
		}
		idle("the start")
		if got := serve(l.newRequest(t, "lab-01", time.Hour)); got >= 300 {
			t.Fatalf("got %d, want an upload announced", got)
		}
		idle("a request")

		// The timer runs again for the next one.
		unlock := l.HoldKey(key("lab-01", "e"))
		defer unlock()
		began := time.Now()
		got := serve(l.newRequest(t, "lab-01", time.Hour))
		if took := time.Since(began); got != http.StatusForbidden || took > time.Hour+2*time.Second {
			t.Errorf("got %d after %v, want %d when the certificate expires", got, took, http.StatusForbidden)
		}
		idle("a request that was reviewed")
	})
}
