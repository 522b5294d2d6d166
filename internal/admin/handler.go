package admin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"golang.org/x/sync/singleflight"

	"cis490/internal/printable"
)

// Handler serves d to requests that name this listener.
func (c Config) Handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	var ready singleflight.Group // on a disk that hangs, one question waits, and not one for each request
	mux.Handle("/metrics", d.Metrics)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		if !d.Alive(ctx) {
			writeText(w, http.StatusServiceUnavailable, fmt.Sprintf("the %s has not answered within %v: a slow disk, or see its log", d.Name, healthTimeout))
			return
		}
		writeText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		answer := ready.DoChan("", func() (any, error) { return nil, d.Ready(context.WithoutCancel(ctx)) })
		select {
		case is := <-answer:
			if is.Err != nil {
				writeText(w, http.StatusServiceUnavailable, is.Err.Error())
				return
			}
			writeText(w, http.StatusOK, "ok")
		case <-ctx.Done():
			writeText(w, http.StatusServiceUnavailable, fmt.Sprintf("the %s has not answered within %v", d.Name, healthTimeout))
		}
	})
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

// isNamedBy reports whether the Host of a request names this listener. A page in a browser can make
// the browser connect to any address, but only with the name of its own site.
func (a Address) isNamedBy(requested string) bool {
	host := hostOf(requested)
	if isLoopback(host) {
		return true
	}
	if a.path() != "" {
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
