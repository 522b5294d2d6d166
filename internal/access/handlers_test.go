package access_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/access"
)

// The data directory is not closed under a handler, and no handler begins after that.
func TestHandlersEndBeforeTheDirectoryIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &access.Control{}
		const limit = time.Second
		release, calls := make(chan struct{}), 0
		h := a.WrapHandler(context.Background(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			calls++
			<-release
		}))
		serve := func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil)) }
		go serve()
		synctest.Wait()
		a.Close()
		if a.WaitIdle(limit) {
			t.Error("a handler runs, and does not count")
		}
		func() {
			defer func() {
				if got := recover(); got != http.ErrAbortHandler {
					t.Errorf("a request after Close ends with %v, want that its connection is aborted", got)
				}
			}()
			serve()
		}()
		if calls != 1 {
			t.Error("a handler began after Close")
		}
		time.AfterFunc(limit/2, func() { close(release) })
		if !a.WaitIdle(limit) {
			t.Error("no handler runs, and one counts")
		}
	})
}
