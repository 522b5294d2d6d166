package wire_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"cis490/internal/wire"
)

// TestEachRequestIsObservedOnce, by its kind and result, whatever its path is: each pair is a time series.
func TestEachRequestIsObservedOnce(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		method string
		path   string
		ctx    context.Context
		refuse error
		want   string
	}{
		{http.MethodPost, "/v1/ping", t.Context(), nil, "ping ok"},
		{http.MethodGet, "/v1/probe", t.Context(), nil, "probe method-not-allowed"},
		{http.MethodHead, "/v1/episodes/" + string(thisHost) + "/run-7", t.Context(), nil, "episode not-found"},
		{http.MethodHead, "/v1/episodes/" + string(thisHost), t.Context(), nil, "episode not-found"},
		{http.MethodHead, "/v1/episodes/" + string(thisHost) + "/run-7", canceled, context.Canceled, "episode canceled"},
		{http.MethodGet, "/v1/uploads/made-up", t.Context(), nil, "upload method-not-allowed"},
		{http.MethodGet, "/v1/made-up", t.Context(), nil, "other not-found"},
	} {
		var got []string
		h := newHandler(&fakeBackend{tb: t, refuse: c.refuse})
		h.Observe = func(kind, result string) { got = append(got, kind+" "+result) }
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(c.ctx, c.method, c.path, nil))
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: got %q, want %q", c.path, got, c.want)
		}
	}
}

// TestAllReasonsOfHoldsAreSeries from the start, so that the first hold is a rate.
func TestAllReasonsOfHoldsAreSeries(t *testing.T) {
	held := wire.Report{}.HeldByReason()
	for _, reason := range []string{"unfit", "refused", "conflict", "changed", "stuck", "unreadable", "invalid", "other"} {
		if n, found := held[reason]; !found || n != 0 {
			t.Errorf("%s: %d, found: %v", reason, n, found)
		}
	}
}
