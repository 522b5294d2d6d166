// Package statuspage shows the state of a receiver and its hosts in a browser.
//
//	/              all hosts, what arrived, conflicts, storage
//	/hosts/NAME    everything that is known about a host
//	/static/...    the style sheet, the script and the icon, which are embedded
//
// The pages work without the script, which replaces their contents every 15 s. Their links are relative,
// so that a proxy may serve them below any path.
//
// Invariant: no text from a host or a file can become markup, a link or a script. Templates show only
// [text], which is printable ASCII and which html/template escapes. The Content-Security-Policy allows only
// this package's style sheet and script.
package statuspage

import (
	"bytes"
	"cmp"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"cis490/internal/activity"
	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/hosts"
	"cis490/internal/s3backend"
)

// State is what the pages show.
type State struct {
	Now     time.Time
	ReadAt  time.Time // when Receiver and Hosts were read
	Version string
	// Refusal is the reason why uploads are refused, or nil.
	Refusal  error
	CertEnds time.Time // of the receiver's certificate

	Receiver  diskbackend.Status
	Bucket    *s3backend.Status // nil with a store on a disk
	Hosts     []hosts.Host
	Arrivals  activity.Summary
	Conflicts []activity.Conflict
	// Why Receiver, Hosts or Arrivals could not be read completely.
	ReceiverErr, HostsErr, ArrivalsErr error
}

// policy is the Content-Security-Policy of the pages.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed templates static
var files embed.FS

// Limits on pages. A disk that hangs must not tie up every connection of the listener, because metrics and
// health need some.
const (
	maxViews = 4 // pages that are rendered at once
	maxWait  = 10 * time.Second
)

// pages serves the pages.
type pages struct {
	read      func() State
	views     chan struct{} // has a value for each page that is being rendered
	templates *template.Template
}

// New returns a handler of the pages, for GET and HEAD. It calls read for each page, so read must limit its
// own cost.
func New(read func() State) http.Handler {
	p := &pages{read, make(chan struct{}, maxViews), template.Must(template.ParseFS(files, "templates/*.html"))}
	static, err := fs.Sub(files, "static")
	if err != nil {
		panic(err) // the program was built without them
	}
	mux := http.NewServeMux()
	mux.Handle("GET /static/{file}", http.StripPrefix("/static", http.FileServerFS(static)))
	mux.HandleFunc("GET /hosts/{host}", p.limitViews(p.hostPage))
	mux.HandleFunc("GET /{$}", p.limitViews(p.overviewPage))
	mux.HandleFunc("/", p.serveNotFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	})
}

// page is a page before it is rendered.
type page struct {
	status int
	name   string // of its template
	data   any
}

// limitViews limits how many pages are rendered at once. A request waits up to maxWait for a slot, and is
// then refused. The slot is released before the page is written, so that a slow viewer does not hold it.
func (p *pages) limitViews(makePage func(*http.Request) page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		timeout := time.NewTimer(maxWait)
		defer timeout.Stop()
		select {
		case p.views <- struct{}{}:
			text, made, err := p.render(r, makePage)
			writePage(w, made.status, text, err)
		case <-timeout.C:
			http.Error(w, "the receiver's directories could not be read in time: check its disk", http.StatusServiceUnavailable)
		case <-r.Context().Done():
		}
	}
}

// render renders a page, and releases its slot.
func (p *pages) render(r *http.Request, makePage func(*http.Request) page) (text []byte, made page, err error) {
	defer func() { <-p.views }()
	made = makePage(r)
	text, err = p.execute(made)
	return text, made, err
}

func (p *pages) overviewPage(*http.Request) page {
	return page{http.StatusOK, "overview.html", newOverview(p.read())}
}

func (p *pages) hostPage(r *http.Request) page {
	name, err := episode.ParseName(r.PathValue("host"))
	if err == nil {
		state := p.read()
		for _, h := range state.Hosts {
			if h.Name() == name {
				return page{http.StatusOK, "host.html", newHostPage(state, h)}
			}
		}
	}
	return notFoundPage(r)
}

func (p *pages) serveNotFound(w http.ResponseWriter, r *http.Request) {
	made := notFoundPage(r)
	text, err := p.execute(made)
	writePage(w, made.status, text, err)
}

func notFoundPage(r *http.Request) page {
	up := strings.Repeat("../", max(0, strings.Count(r.URL.EscapedPath(), "/")-1))
	return page{http.StatusNotFound, "notfound.html", frame{Title: "Not found", Root: cmp.Or(text(up), "./"), Up: true}}
}

// execute renders a page completely before any of it is written, so that no error cuts it off.
func (p *pages) execute(made page) ([]byte, error) {
	var b bytes.Buffer
	err := p.templates.ExecuteTemplate(&b, made.name, made.data)
	return b.Bytes(), err
}

func writePage(w http.ResponseWriter, status int, page []byte, err error) {
	if err != nil {
		http.Error(w, "the page cannot be rendered: "+string(clean(err.Error())), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page) // the viewer may have disconnected
}

// frame is the data that all pages have.
type frame struct {
	Title   text
	Root    text // the link from the page to the overview
	Up      bool // the page is not the overview
	ReadAt  moment
	Version text
}

// readAt describes the time of a reading. Its seconds show viewers that the page is refreshed.
func readAt(now time.Time) moment {
	m := momentOf(now, now)
	m.Text = text(now.UTC().Format(time.DateTime))
	return m
}

func newFrame(s State, title text, root text) frame {
	return frame{Title: title, Root: root, Up: root != "", ReadAt: readAt(s.ReadAt), Version: clean(s.Version)}
}
