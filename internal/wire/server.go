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

// Backend is where a [Handler] puts archives. Its errors should be [*Problem]
// values; any other error is told to the sender as [Internal] and no more.
type Backend interface {
	// Stat returns the receipt of the archive stored under key. The error must
	// be [NotFound] if there is none.
	Stat(ctx context.Context, key episode.Key) (Receipt, error)
	// Put stores an archive. It must make every refusal that it can make
	// before it reads the body: the first read asks the sender for it. The
	// body yields exactly u.Size bytes or an error; whether they have u.Digest
	// is for Put to see.
	Put(ctx context.Context, u Upload, body io.Reader) (Receipt, error)
	// Announce says whether an archive is wanted that has not come yet. It returns
	// the receipt of the first time if it is here, as Put does, and otherwise
	// where to go on: at the beginning, or behind what came of it before. A piece
	// of it that is just coming is interrupted. Every refusal that can be made of
	// the archive is made now.
	Announce(ctx context.Context, u Upload) (Receipt, Unfinished, error)
	// Open begins an upload whose end is not known yet: it has no digest, and its
	// length is -1. Announce takes it up once both are known. One that was opened
	// before under this key is given up.
	Open(ctx context.Context, key episode.Key) (Unfinished, error)
	// Append goes on with an upload of the host: [NoUpload] if it has none of
	// this id, [OffsetMismatch] if it goes on elsewhere. It returns the receipt
	// after the last piece, and how far the upload has come after others; so far
	// it is on the disk.
	Append(ctx context.Context, host episode.Name, id string, p Piece, body io.Reader) (Receipt, Unfinished, error)
	// Unfinished returns how far an upload has come, and Forget gives it up. Both
	// interrupt a piece that is just coming.
	Unfinished(ctx context.Context, host episode.Name, id string) (Unfinished, error)
	Forget(ctx context.Context, host episode.Name, id string) error
	// AdmitInventory waits until the host may ask for an inventory, or refuses. The
	// caller must call release once the answer is written: request and answer take
	// memory until then.
	AdmitInventory(ctx context.Context, host episode.Name) (release func(), err error)
	// Inventory says what the host's claims come to, in their order. With
	// readBack there is one claim, whose archive is read from the disk first.
	Inventory(ctx context.Context, host episode.Name, claims []InventoryQuery, readBack bool) ([]InventoryEntry, error)
	// Store names the store, and how long its index is now. It is asked once all else of
	// an answer is known, so that the index has the row of a receipt.
	Store() (Store, error)
	// Has reports whether this is a store that a host knew once, or replaces it: the
	// index was as long then, and ended with the same bytes.
	Has(known Store) (bool, error)
	// Limits and Storage are what a ping tells.
	Limits() Limits
	Storage(ctx context.Context, host episode.Name) (Storage, error)
}

// Caller is who is at the other end of a request.
type Caller struct {
	Host episode.Name
	Auth Auth
	// Release, if not nil, is called when the request has been answered.
	Release func()
}

// Handler is the receiver's end of the protocol.
type Handler struct {
	Backend Backend
	// Identify says who sends a request, or refuses it with a [*Problem]. A request
	// whose context is cancelled later with a [*Problem] as the cause ends with that
	// problem, and its connection with it.
	Identify   func(*http.Request) (Caller, error)
	BodyLimits BodyLimits
	About      ServerInfo
	Log        *slog.Logger
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	conn.SetWriteDeadline(time.Time{}) // of the answer before
	w = &deadlineWriter{ResponseWriter: w, conn: conn, limit: h.BodyLimits.Idle}
	caller, err := h.Identify(r)
	if caller.Release != nil {
		defer caller.Release()
	}
	if err == nil { // who the caller is comes first: a stranger learns nothing but that
		err = h.route(w, r, caller)
	} else {
		w.Header().Set("Connection", "close") // the caller is refused
	}
	if err == nil {
		return
	}
	problem, level := problemFor(r.Context(), err)
	h.Log.Log(r.Context(), level, "refused a request", "method", printable.Clip(r.Method, maxLogged),
		"path", printable.Clip(r.URL.EscapedPath(), maxLogged), "host", string(caller.Host), "remote", r.RemoteAddr, "err", err)
	if cancelProblem(r.Context()) != nil || slices.Contains(closeAfter, problem.Code) || !h.keepAlive(conn, r) {
		w.Header().Set("Connection", "close")
	}
	problem.write(w)
}

// maxLogged bounds what a sender chose and the log repeats, in bytes.
const maxLogged = 300

// closeAfter are the refusals after which a connection is worth nothing: the body
// that is on its way would have to be read.
var closeAfter = []Code{Stalled, Draining, HostBusy, Superseded}

// problemFor returns what the sender is told of err, and how loudly we say it.
// A refusal is the other end's business; anything else is ours.
func problemFor(ctx context.Context, err error) (*Problem, slog.Level) {
	if p := cancelProblem(ctx); p != nil {
		err = p // whatever the request met because of that
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		if p.Code == Busy || p.Code == HostBusy {
			return p, slog.LevelDebug // senders come again by themselves, and often
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
		return &Problem{Code: Internal}, slog.LevelInfo // the sender left
	}
	return &Problem{Code: Internal}, slog.LevelError
}

// cancelProblem returns the problem with which a request's context was cancelled, or nil.
func cancelProblem(ctx context.Context) *Problem {
	p, _ := errors.AsType[*Problem](context.Cause(ctx))
	return p
}

// keepAlive reads what is left of a small body before its refusal, and reports whether
// the connection can carry another request. After a body that was not read to its end it
// cannot: its rest would pass for a request. A chunked body may have come with a length
// as well, which net/http hides, so that two readers may not agree on where it ends.
func (h *Handler) keepAlive(conn *http.ResponseController, r *http.Request) bool {
	switch {
	case len(r.TransferEncoding) > 0 || r.ContentLength >= MinAnnounced:
		return false
	case r.ContentLength <= 0:
		return true
	case r.Header.Get("Expect") != "":
		return true // net/http closes the connection, unless all of it was read
	}
	return h.drainBody(conn, r)
}

// drainBody reads what is left of a small body before it is answered, and reports whether
// it has come to the end. Over an unread one net/http closes a connection that ends with
// its request, as a proxy's do, and the answer is lost.
func (h *Handler) drainBody(conn *http.ResponseController, r *http.Request) bool {
	if r.ContentLength <= 0 || r.ContentLength >= MinAnnounced || r.Header.Get("Expect") != "" {
		return false
	}
	conn.SetReadDeadline(time.Now().Add(h.BodyLimits.Idle))
	_, err := io.Copy(io.Discard, r.Body) // at most ContentLength
	return err == nil
}

// deadlineWriter is a response whose end comes: net/http reads what is left of a small
// body and waits for the sender to take the answer, and neither may be for ever.
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

// route answers a request, or returns the refusal of it.
func (h *Handler) route(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if err := h.checkKnownStore(r); err != nil {
		return err
	}
	path := r.URL.EscapedPath()
	if path == pingPath {
		return h.servePing(w, r, caller)
	}
	if path == inventoryPath {
		return h.serveInventory(w, r, caller)
	}
	if id, found := strings.CutPrefix(path, uploadsPath); found {
		return h.serveUpload(w, r, caller.Host, id)
	}
	rest, found := strings.CutPrefix(path, episodesPath)
	host, name, two := strings.Cut(rest, "/")
	if !found || !two || strings.Contains(name, "/") {
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

// parseKey decodes two path segments once, and takes nothing but names.
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
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		return Refuse(BadMethod, "use POST")
	}
	if err := refuseBody(w, r); err != nil {
		return err
	}
	storage, err := h.Backend.Storage(r.Context(), caller.Host)
	if err != nil {
		return err
	}
	store, err := h.Backend.Store()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, http.StatusOK, PingResponse{
		Status: "ok", Host: caller.Host, Auth: caller.Auth, Time: time.Now().UTC(),
		Receiver: h.About, Limits: h.Backend.Limits(), Storage: storage, Store: &store,
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

// refuseBody refuses a body where none is wanted: nobody would read it.
func refuseBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 && len(r.TransferEncoding) == 0 {
		return nil
	}
	w.Header().Set("Connection", "close")
	return Refuse(BadRequest, "only PUT and PATCH have a body")
}

// writeJSON ends an answer. An error is the connection's, which net/http sees
// as well: the sender asks again.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own types come here
	}
	b = append(b, '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b)
}
