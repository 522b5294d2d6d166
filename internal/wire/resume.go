package wire

import (
	"context"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cis490/internal/episode"
)

// MinAnnounced is the size from which a [Client] announces an archive before it
// sends it. The receiver can then refuse it, or say that it is there already, and
// keeps what has arrived when the connection breaks. A smaller one costs one round
// trip, and is sent again whole.
const MinAnnounced = 256 << 10

// Header fields of draft-ietf-httpbis-resumable-upload, and the media type.
const (
	uploadComplete    = "Upload-Complete"
	uploadOffset      = "Upload-Offset"
	uploadLength      = "Upload-Length"
	uploadLimit       = "Upload-Limit"
	partialUploadType = "application/partial-upload"
)

const uploadsPath = "/v1/uploads/"

// Unfinished is an upload of which the receiver has a part, or nothing yet.
type Unfinished struct {
	ID     string // names it, to its host alone
	Offset int64  // bytes that are on the receiver's disk
	Length int64  // of the archive, or -1 if it is not known
}

// Piece is what a sender says of the bytes with which it goes on.
type Piece struct {
	Offset int64
	Size   int64
	Last   bool // the archive ends with them
	// Interrupt makes the body end with err: somebody else goes on with the
	// upload.
	Interrupt func(err error)
}

// isAnnounce reports whether a PUT announces an archive and does not bring it.
func isAnnounce(r *http.Request) (bool, error) {
	complete, given, err := parseBoolean(r.Header, uploadComplete)
	return given && !complete, err
}

// isOpen reports whether an announcement says neither what the archive is nor how
// long.
func isOpen(r *http.Request) (bool, error) {
	for _, name := range []string{uploadLength, reprDigest, contentDigest} {
		if len(r.Header.Values(name)) > 0 {
			return false, nil
		}
	}
	if err := checkBodyHeaders(r); err != nil {
		return false, err
	}
	if r.ContentLength > 0 {
		return false, Refuse(BadRequest, "announce with an empty body, and send the bytes with PATCH")
	}
	return true, nil
}

// serveAnnounce answers with the receipt of what is there already, or with where to
// go on. Announcing again is how a sender that knows nothing any more finds out.
func (h *Handler) serveAnnounce(w http.ResponseWriter, r *http.Request, key episode.Key) error {
	var receipt Receipt
	var unfinished Unfinished
	u := Upload{Key: key}
	open, err := isOpen(r)
	if err != nil {
		return err
	}
	if open {
		unfinished, err = h.Backend.Open(r.Context(), key)
	} else if u, err = parseUpload(r, key); err == nil {
		receipt, unfinished, err = h.Backend.Announce(r.Context(), u)
	}
	if err != nil {
		return err
	}
	if unfinished.ID == "" {
		return h.writeReceipt(w, receipt)
	}
	receipt = Receipt{Status: unfinishedStatus, Host: key.Host, Episode: key.Name, Digest: u.Digest, Size: u.Size}
	h.setProgress(w, unfinished)
	w.Header().Set("Location", uploadsPath+unfinished.ID)
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, http.StatusCreated, announceResponse{Receipt: receipt, Upload: unfinished.ID, Offset: unfinished.Offset})
	return nil
}

// unfinishedStatus is what stands in an [announceResponse] in the place of a receipt's.
const unfinishedStatus Status = "unfinished"

// announceResponse is the answer to an announcement: where to go on, or a receipt.
type announceResponse struct {
	Receipt
	Upload string `json:"upload_id,omitempty"`
	Offset int64  `json:"upload_offset,omitempty"`
}

// setProgress sets the fields that say how far an upload has come.
func (h *Handler) setProgress(w http.ResponseWriter, u Unfinished) {
	fields := w.Header()
	fields.Set(uploadComplete, "?0")
	fields.Set(uploadOffset, strconv.FormatInt(u.Offset, 10))
	if u.Length >= 0 {
		fields.Set(uploadLength, strconv.FormatInt(u.Length, 10))
	}
	fields.Set(uploadLimit, formatLimits(h.Backend.Limits()))
	fields.Set("Cache-Control", "no-store")
}

func formatLimits(l Limits) string {
	return "max-size=" + strconv.FormatInt(l.MaxSize, 10) + ", max-age=" + strconv.FormatInt(int64(l.UnfinishedAge/time.Second), 10)
}

// serveOptions answers OPTIONS: what the receiver takes.
func (h *Handler) serveOptions(w http.ResponseWriter, r *http.Request) error {
	if err := refuseBody(w, r); err != nil {
		return err
	}
	w.Header().Set(uploadLimit, formatLimits(h.Backend.Limits()))
	w.Header().Set("Allow", "HEAD, OPTIONS, PUT")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveUpload serves what stands below /v1/uploads/.
func (h *Handler) serveUpload(w http.ResponseWriter, r *http.Request, host episode.Name, escaped string) error {
	id, err := url.PathUnescape(escaped)
	if err != nil || id == "" || strings.Contains(id, "/") {
		return Refuse(NoUpload, "no such upload")
	}
	switch r.Method {
	case http.MethodPatch:
		return h.servePatch(w, r, host, id)
	case http.MethodHead, http.MethodDelete:
	default:
		w.Header().Set("Allow", "DELETE, HEAD, PATCH")
		return Refuse(BadMethod, "use HEAD, PATCH or DELETE")
	}
	if err := refuseBody(w, r); err != nil {
		return err
	}
	if r.Method == http.MethodDelete {
		if err := h.Backend.Forget(r.Context(), host, id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	unfinished, err := h.Backend.Unfinished(r.Context(), host, id)
	if err != nil {
		return err
	}
	h.setProgress(w, unfinished)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) servePatch(w http.ResponseWriter, r *http.Request, host episode.Name, id string) error {
	piece, err := parsePiece(w, r)
	if err != nil {
		return err
	}
	ctx, interrupt := context.WithCancelCause(r.Context())
	defer interrupt(nil)
	piece.Interrupt = interrupt
	body := h.BodyLimits.newBody(ctx, http.NewResponseController(w), r)
	defer body.detach()
	receipt, unfinished, err := h.Backend.Append(ctx, host, id, piece, body)
	body.detach()
	if body.wasInterrupted() {
		w.Header().Set("Connection", "close")
	}
	if err != nil {
		return err
	}
	if unfinished.ID != "" {
		h.setProgress(w, unfinished)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.Header().Set(uploadComplete, "?1")
	return h.writeReceipt(w, receipt)
}

// parsePiece reads what a PATCH says of its body.
func parsePiece(w http.ResponseWriter, r *http.Request) (Piece, error) {
	p := Piece{Size: r.ContentLength}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != partialUploadType {
		w.Header().Set("Accept-Patch", partialUploadType)
		return p, Refuse(WrongType, "send Content-Type: %s", partialUploadType)
	}
	if err := checkBodyHeaders(r); err != nil {
		return p, err
	}
	var given bool
	var err error
	if p.Offset, given, err = parseInteger(r.Header, uploadOffset); err != nil || !given {
		return p, missingField(err, uploadOffset)
	}
	if p.Last, given, err = parseBoolean(r.Header, uploadComplete); err != nil || !given {
		return p, missingField(err, uploadComplete)
	}
	return p, nil
}

func missingField(err error, field string) error {
	if err != nil {
		return err
	}
	return Refuse(BadRequest, "send %s", field)
}
