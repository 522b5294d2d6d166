package wire

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowTransport is a connection that takes a body at once, or not at all, and answers
// after a while.
type slowTransport struct {
	takes bool
	after time.Duration
}

func (s slowTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.takes {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
	}
	select {
	case <-time.After(s.after):
		return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: req}, nil
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// TestOnlyABodyCanStall: the answer has a longer limit of its own, because the receiver may
// have to verify a large archive first.
func TestOnlyABodyCanStall(t *testing.T) {
	for _, c := range []struct {
		name string
		way  slowTransport
		size int64
		want error
	}{
		{"nobody takes it", slowTransport{false, 4 * time.Minute}, 5, errStalled},
		{"taken, and a slow answer", slowTransport{true, 4 * time.Minute}, 5, nil},
		{"nothing is left to send, and a slow answer", slowTransport{true, 4 * time.Minute}, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &Client{http: &http.Client{Transport: c.way}}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "https://receiver/", nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.doWithBody(req, strings.NewReader("bytes"), 0, c.size, nil, http.StatusNoContent); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		})
	}
}
