package wire

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cis490/internal/episode"
	"cis490/internal/printable"
)

// Backend stores archives for a [Handler]. Its errors should be [*Problem] values. The sender sees
// any other error as [Internal], without detail.
//
// It is one interface because the methods share a state: an upload that Announce names is what
// AppendPiece continues and Put, Stat and Inventory find stored. So a receiver or a fake has all
// of them, and smaller interfaces would only be more names for it.
type Backend interface {
	// Stat returns the receipt of the archive stored under key. It must return [NotFound] if there
	// is none.
	Stat(ctx context.Context, key episode.Key) (Receipt, error)
	// Put stores an archive. It must refuse what it can refuse before it reads the body: the first
	// read makes the sender send it. The body yields exactly u.Size bytes or an error. Put must
	// check that the bytes have u.Digest.
	Put(ctx context.Context, u Upload, body io.Reader) (Receipt, error)
	// Announce begins or continues the upload of an archive. It returns the original receipt if the
	// archive is stored, and otherwise the state of the upload, which may already have bytes. It
	// interrupts a piece of the upload that is in flight. It must refuse now what it can refuse of
	// the archive.
	Announce(ctx context.Context, u Upload) (Receipt, Unfinished, error)
	// OpenUpload begins an upload without digest, of length -1. Announce continues it once both
	// are known. OpenUpload discards an earlier open upload under the same key.
	OpenUpload(ctx context.Context, key episode.Key) (Unfinished, error)
	// AppendPiece adds a piece to an upload of the host. It returns [NoUpload] if the host has no
	// upload with this id, and [OffsetMismatch] if the upload continues at another offset. It
	// returns the receipt after the last piece, and the state of the upload after any other. The
	// bytes that it states are durable.
	AppendPiece(ctx context.Context, host episode.Name, id string, p Piece, body io.Reader) (Receipt, Unfinished, error)
	// UploadState returns the state of an upload, and CancelUpload discards it. Both interrupt a
	// piece of it that is in flight.
	UploadState(ctx context.Context, host episode.Name, id string) (Unfinished, error)
	CancelUpload(ctx context.Context, host episode.Name, id string) error
	// Admit waits until the host may query the inventory or test its throughput, or refuses. The
	// caller must call release after it has written the response, because request and response take
	// memory until then.
	Admit(ctx context.Context, host episode.Name) (release func(), err error)
	// Inventory answers the host's queries in their order. With readBack there must be one query,
	// whose archive is read from the disk first.
	Inventory(ctx context.Context, host episode.Name, claims []InventoryQuery, readBack bool) ([]InventoryEntry, error)
	// Store returns the store's identity and the length of its index. The handler calls it last, so
	// that the index has the row of the receipt that it sends.
	Store() (Store, error)
	// HasStore reports whether known is this store, or one that it replaces: the index was as long,
	// and ended with the same bytes.
	HasStore(known Store) (bool, error)
	// Storage is part of the response to a ping.
	Storage(ctx context.Context, host episode.Name) (Storage, error)
}

// Caller is the authenticated sender of a request.
type Caller struct {
	Host episode.Name
	Auth Auth
	// Release, if not nil, is called after the response.
	Release func()
}

// Handler is the receiver's end of the protocol.
type Handler struct {
	Backend Backend
	// Identify returns the sender of a request, or refuses it with a [*Problem]. If the request's
	// context is later cancelled with a [*Problem] as the cause, the request ends with that problem
	// and its connection is closed.
	Identify func(*http.Request) (Caller, error)
	// Authority signs certificates. It is nil if the receiver has none.
	Authority Authority
	// Reports keeps what hosts report. It is nil if the receiver keeps no reports.
	Reports Reports
	// Observe, unless nil, is called with the kind of each request and its result, for metrics: "ok",
	// "canceled" if the sender disconnected, or the [Code] of the problem. Both are from closed lists.
	Observe     func(kind, result string)
	StallLimits StallLimits
	Limits      Limits
	About       ServerInfo
	Log         *slog.Logger
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	conn.SetWriteDeadline(time.Time{}) // that of the response before
	w = &deadlineWriter{ResponseWriter: w, conn: conn, limit: h.StallLimits.Idle}
	caller, err := h.Identify(r)
	if caller.Release != nil {
		defer caller.Release()
	}
	if err == nil { // authenticate first: an unknown client gets no other answer
		err = h.routeRequest(w, r, caller)
	} else {
		w.Header().Set("Connection", "close") // refused callers get no second request
	}
	if err == nil {
		h.observe(r, "ok")
		return
	}
	problem, level := problemFor(r.Context(), err)
	if problem.Code == Internal && errors.Is(err, context.Canceled) {
		h.observe(r, "canceled") // the sender disconnected
	} else {
		h.observe(r, string(problem.Code))
	}
	h.Log.Log(r.Context(), level, "refused a request", "method", printable.Clip(r.Method, maxLogged),
		"path", printable.Clip(r.URL.EscapedPath(), maxLogged), "host", string(caller.Host), "remote", r.RemoteAddr, "err", err)
	if cancelProblem(r.Context()) != nil || slices.Contains(closeAfter, problem.Code) || !h.keepAlive(conn, r) {
		w.Header().Set("Connection", "close")
	}
	problem.writeTo(w)
}

func (h *Handler) observe(r *http.Request, result string) {
	if h.Observe != nil {
		h.Observe(kindOf(r.URL.EscapedPath()), result)
	}
}

// Kinds of requests, by their path.
const (
	kindPing      = "ping"
	kindInventory = "inventory"
	kindRenew     = "renew"
	kindReport    = "report"
	kindProbe     = "probe"
	kindCAs       = "cas"
	kindUpload    = "upload"  // a resumable upload
	kindEpisode   = "episode" // an archive under its name
	kindOther     = "other"
)

// RequestKinds returns the kinds of requests with which [Handler.Observe] is called.
func RequestKinds() []string {
	return []string{kindPing, kindInventory, kindRenew, kindReport, kindProbe, kindCAs, kindUpload, kindEpisode, kindOther}
}

// kindOf returns the kind of a request by its path.
func kindOf(path string) string {
	switch {
	case path == pingPath:
		return kindPing
	case path == inventoryPath:
		return kindInventory
	case path == renewPath:
		return kindRenew
	case path == reportPath:
		return kindReport
	case path == probePath:
		return kindProbe
	case path == serverCAsPath:
		return kindCAs
	case strings.HasPrefix(path, uploadsPath):
		return kindUpload
	case strings.HasPrefix(path, episodesPath):
		return kindEpisode
	}
	return kindOther
}

// maxLogged bounds how many bytes of a sender's text are logged.
const maxLogged = 300

// closeAfter are the refusals after which the connection is closed, because the rest of the
// body is still in flight.
var closeAfter = []Code{Stalled, Draining, HostBusy, Superseded}

// problemFor returns the problem to send for err, and the level to log it at. Refusals concern the
// sender; any other error is the receiver's.
func problemFor(ctx context.Context, err error) (*Problem, slog.Level) {
	if p := cancelProblem(ctx); p != nil {
		err = p // all other errors follow from it
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		if p.Code == Busy || p.Code == HostBusy || p == ErrNoAuthority || p == ErrNoReports || p == ErrReportNotKept {
			return p, slog.LevelDebug // senders retry by themselves, and often
		}
		if problemTypes[p.Code].status >= http.StatusInternalServerError {
			return p, slog.LevelWarn
		}
		return p, slog.LevelInfo
	}
	if errors.Is(err, ErrDraining) || errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), ErrDraining) {
		return drainingProblem(), slog.LevelInfo
	}
	if errors.Is(err, context.Canceled) {
		return &Problem{Code: Internal}, slog.LevelInfo // the sender disconnected
	}
	return &Problem{Code: Internal}, slog.LevelError
}

// cancelProblem returns the problem with which the request's context was cancelled, or nil.
func cancelProblem(ctx context.Context) *Problem {
	p, _ := errors.AsType[*Problem](context.Cause(ctx))
	return p
}

// keepAlive drains a small body before its refusal, and reports whether the connection can carry
// another request. Unread bytes would be parsed as the next request. A chunked body may also have
// had a length, which net/http hides, so that two readers may disagree about its end.
func (h *Handler) keepAlive(conn *http.ResponseController, r *http.Request) bool {
	switch {
	case len(r.TransferEncoding) > 0 || r.ContentLength >= MinAnnounced:
		return false
	case r.ContentLength <= 0:
		return true
	case r.Header.Get("Expect") != "":
		return true // net/http closes the connection unless the whole body was read
	}
	return h.drainBody(conn, r)
}

// drainBody reads the rest of a small body before the response, and reports whether it reached the
// end. With unread bytes, net/http closes a connection that ends with its request, as a proxy's
// does, and the response is lost.
func (h *Handler) drainBody(conn *http.ResponseController, r *http.Request) bool {
	if r.ContentLength <= 0 || r.ContentLength >= MinAnnounced || r.Header.Get("Expect") != "" {
		return false
	}
	conn.SetReadDeadline(time.Now().Add(h.StallLimits.Idle))
	_, err := io.Copy(io.Discard, r.Body) // at most ContentLength
	return err == nil
}

// deadlineWriter sets deadlines for the end of a response. net/http reads the rest of a small body
// and waits until the sender reads the response; both must end.
type deadlineWriter struct {
	http.ResponseWriter
	conn  *http.ResponseController
	limit time.Duration
}

func (a *deadlineWriter) WriteHeader(status int) {
	now := time.Now()
	a.conn.SetReadDeadline(now.Add(a.limit)) // net/http sets its own for the next request
	a.conn.SetWriteDeadline(now.Add(2 * a.limit))
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (a *deadlineWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// routeRequest handles a request, or returns why it is refused.
func (h *Handler) routeRequest(w http.ResponseWriter, r *http.Request, caller Caller) error {
	path := r.URL.EscapedPath()
	kind := kindOf(path)
	if kind == kindReport { // which is kept even if the host knows another store: operators see that then
		return h.serveReport(w, r, caller)
	}
	if err := h.checkKnownStore(r); err != nil {
		return err
	}
	switch kind {
	case kindPing:
		return h.servePing(w, r, caller)
	case kindInventory:
		return h.serveInventory(w, r, caller)
	case kindRenew:
		return h.serveRenew(w, r, caller)
	case kindProbe:
		return h.serveProbe(w, r, caller)
	case kindCAs:
		return h.serveServerCAs(w, r)
	case kindUpload:
		return h.serveUpload(w, r, caller.Host, strings.TrimPrefix(path, uploadsPath))
	case kindEpisode:
		return h.serveEpisode(w, r, caller, strings.TrimPrefix(path, episodesPath))
	}
	return Refuse(NotFound, "no such path")
}

// serveEpisode handles a request for an archive under its name. rest is the path below [episodesPath].
func (h *Handler) serveEpisode(w http.ResponseWriter, r *http.Request, caller Caller, rest string) error {
	host, name, two := strings.Cut(rest, "/")
	if !two || strings.Contains(name, "/") {
		return Refuse(NotFound, "no such path")
	}
	key, err := parseKey(host, name)
	if err != nil {
		return err
	}
	if key.Host != caller.Host {
		return Refuse(HostMismatch, "the certificate is for %s", caller.Host)
	}
	switch r.Method {
	case http.MethodPut:
		return h.servePut(w, r, key)
	case http.MethodHead:
		return h.serveHead(w, r, key)
	case http.MethodOptions:
		return h.serveOptions(w, r)
	}
	w.Header().Set("Allow", "HEAD, OPTIONS, PUT")
	return Refuse(BadMethod, "use PUT or HEAD")
}

// parseKey unescapes two path segments once, and accepts only valid names.
func parseKey(host, name string) (episode.Key, error) {
	var key episode.Key
	for _, part := range []struct {
		escaped string
		to      *episode.Name
	}{{host, &key.Host}, {name, &key.Name}} {
		s, err := url.PathUnescape(part.escaped)
		if err != nil {
			return key, Refuse(BadName, "%s", printable.Text(err.Error()))
		}
		if *part.to, err = episode.ParseName(s); err != nil {
			return key, Refuse(BadName, "%v", err)
		}
	}
	return key, nil
}

func (h *Handler) servePing(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if err := requirePost(w, r); err != nil {
		return err
	}
	if err := refuseBody(w, r); err != nil {
		return err
	}
	return h.describe(w, r, caller)
}

// describe responds with the receiver's limits, space and store, and with what it knows of the caller.
func (h *Handler) describe(w http.ResponseWriter, r *http.Request, caller Caller) error {
	storage, err := h.Backend.Storage(r.Context(), caller.Host)
	if err != nil {
		return err
	}
	store, err := h.Backend.Store()
	if err != nil {
		return err
	}
	trusted, err := parseTrustedCAs(r.Header)
	if err != nil {
		return err
	}
	var cas *CAs
	if h.Authority != nil {
		cas = h.Authority.DescribeCAs(r.Context(), caller.Host, trusted)
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, http.StatusOK, PingResponse{
		Status: "ok", Host: caller.Host, Auth: caller.Auth, Time: time.Now().UTC(),
		Receiver: h.About, Limits: h.Limits, Storage: storage, Store: &store, CAs: cas,
	})
	return nil
}

func (h *Handler) serveHead(w http.ResponseWriter, r *http.Request, key episode.Key) error {
	if err := refuseBody(w, r); err != nil {
		return err
	}
	receipt, err := h.Backend.Stat(r.Context(), key)
	if err != nil {
		return err
	}
	fields := w.Header()
	fields.Set("Content-Type", "application/zstd")
	fields.Set("Content-Length", strconv.FormatInt(receipt.Size, 10))
	fields.Set("ETag", `"sha256:`+receipt.Digest.String()+`"`)
	fields.Set(reprDigest, formatDigest(receipt.Digest))
	w.WriteHeader(http.StatusOK)
	return nil
}

func requirePost(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return nil
	}
	w.Header().Set("Allow", "POST")
	return Refuse(BadMethod, "use POST")
}

// refuseBody refuses a request with a body where none is expected, because nothing would read it.
func refuseBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 && len(r.TransferEncoding) == 0 {
		return nil
	}
	w.Header().Set("Connection", "close")
	return Refuse(BadRequest, "only PUT and PATCH have a body")
}

// writeJSON sends a response. It ignores write errors: net/http sees them too, and the sender asks
// again.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // v is always one of our own types
	}
	b = append(b, '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b)
}
