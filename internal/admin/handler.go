package admin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"cis490/internal/config"
	"cis490/internal/printable"
)

// Handler serves d to requests that name this listener.
func (c Config) Handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", d.Metrics)
	mux.HandleFunc("/healthz", serveAnswer(func(ctx context.Context) error {
		if !d.Alive(ctx) {
			return fmt.Errorf("the %s makes no progress: see its log", d.Name)
		}
		return nil
	}))
	mux.HandleFunc("/readyz", serveAnswer(d.Ready))
	if d.Pages != nil {
		mux.Handle("/", d.Pages)
	} else {
		mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
			writeText(w, http.StatusOK, "CIS490 "+d.Name+"\n\n/metrics\n/healthz\n/readyz")
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !c.Listen.isNamedBy(r.Host):
			writeText(w, http.StatusMisdirectedRequest, fmt.Sprintf("this listener is not %q: use localhost, its IP address, or the host in admin.listen", printable.Clip(r.Host, 100)))
		case isOfAnotherSite(r):
			writeText(w, http.StatusForbidden, "a page of another site must not request this")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			writeText(w, http.StatusMethodNotAllowed, "use GET")
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// serveAnswer serves what ask returns. If a disk hangs, one call of ask waits for it, and not one for each
// request.
func serveAnswer(ask func(context.Context) error) http.HandlerFunc {
	var asked singleflight.Group
	return func(w http.ResponseWriter, r *http.Request) {
		answer := asked.DoChan("", func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), healthTimeout)
			defer cancel()
			return nil, ask(ctx)
		})
		select {
		case is := <-answer:
			if is.Err != nil {
				writeText(w, http.StatusServiceUnavailable, is.Err.Error())
				return
			}
			writeText(w, http.StatusOK, "ok")
		case <-time.After(healthTimeout):
			writeText(w, http.StatusServiceUnavailable, fmt.Sprintf("no answer within %v: does the disk respond?", healthTimeout))
		}
	}
}

// isNamedBy reports whether the Host of a request names this listener. A page in a browser can make
// the browser connect to any address, but only with the name of its own site.
func (a Address) isNamedBy(requested string) bool {
	host := hostOf(requested)
	if config.IsLoopback(host) {
		return true
	}
	if a.socketPath() != "" {
		return false
	}
	configured, _, _ := net.SplitHostPort(a.text)
	if ip, err := netip.ParseAddr(configured); configured == "" || err == nil && ip.IsUnspecified() {
		_, err := netip.ParseAddr(host)
		return err == nil // any address of this machine
	}
	return host != "" && strings.EqualFold(host, configured)
}

// isOfAnotherSite reports whether a page of another site makes the request. A link on such a page may lead
// to a page here, in a window of its own, but not to the metrics.
func isOfAnotherSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	follows := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" && r.URL.Path != "/metrics"
	return (site == "cross-site" || site == "same-site") && !follows
}

// hostOf returns a Host without its port and brackets.
func hostOf(requested string) string {
	if host, _, err := net.SplitHostPort(requested); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(requested, "["), "]")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may be gone
}
