package receiver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// The data directory is not closed under a handler, and no handler begins after that.
func TestHandlersEndBeforeTheDirectoryIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &accessControl{}
		release, calls := make(chan struct{}), 0
		h := a.wrapHandler(context.Background(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			calls++
			<-release
		}))
		serve := func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil)) }
		go serve()
		synctest.Wait()
		a.close()
		if a.waitIdle(handlerTimeout) {
			t.Error("a handler runs, and does not count")
		}
		serve()
		if calls != 1 {
			t.Error("a handler began after close")
		}
		time.AfterFunc(handlerTimeout/2, func() { close(release) })
		if !a.waitIdle(handlerTimeout) {
			t.Error("no handler runs, and one counts")
		}
	})
}
