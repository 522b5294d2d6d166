package bucket_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/fixture"
)

const stall = time.Minute

// roundTrip sends a request with a body to an engine that is the function answer.
func roundTrip(t *testing.T, body io.Reader, answer func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://engine.example", body)
	fixture.Must(t, err)
	return bucket.WatchedTransport(roundTripper(answer), stall).RoundTrip(req)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// slowReader waits before each read, as a slow network does, or until its request is canceled.
type slowReader struct {
	io.Reader
	wait     time.Duration
	canceled <-chan struct{}
}

func (r slowReader) Read(p []byte) (int, error) {
	select {
	case <-time.After(r.wait):
		return r.Reader.Read(p)
	case <-r.canceled:
		return 0, errors.New("canceled")
	}
}

func TestSilentEngineIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		_, err := roundTrip(t, strings.NewReader("x"), func(req *http.Request) (*http.Response, error) {
			_, err := io.Copy(io.Discard, req.Body)
			fixture.Must(t, err)
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		if took := time.Since(begun); !errors.Is(err, bucket.ErrStalled) || took != stall {
			t.Errorf("got %v after %v, want %v after %v", err, took, bucket.ErrStalled, stall)
		}
	})
}

// TestSlowHostIsNotCutOff: how slow a host may be is decided elsewhere.
func TestSlowHostIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := slowReader{strings.NewReader("content"), 10 * stall, nil}
		resp, err := roundTrip(t, source, func(req *http.Request) (*http.Response, error) {
			got, err := io.ReadAll(req.Body)
			if err != nil || string(got) != "content" || req.Context().Err() != nil {
				t.Errorf("got %q, %v, %v, want the content", got, err, req.Context().Err())
			}
			time.Sleep(stall - 1)
			return &http.Response{Body: http.NoBody}, nil
		})
		fixture.Must(t, err)
		fixture.Must(t, resp.Body.Close())
	})
}

func TestStalledObjectIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for wait, want := range map[time.Duration]error{stall - 1: io.EOF, stall + 1: bucket.ErrStalled} {
			resp, err := roundTrip(t, nil, func(req *http.Request) (*http.Response, error) {
				return &http.Response{Body: io.NopCloser(slowReader{strings.NewReader("content"), wait, req.Context().Done()})}, nil
			})
			fixture.Must(t, err)
			for err == nil {
				time.Sleep(10 * stall) // a slow reader is not a slow engine
				_, err = resp.Body.Read(make([]byte, 1))
			}
			if !errors.Is(err, want) {
				t.Errorf("a wait of %v: got %v, want %v", wait, err, want)
			}
			fixture.Must(t, resp.Body.Close())
		}
	})
}
