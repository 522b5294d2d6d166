package wire

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cis490/internal/episode"
)

func (h *Handler) servePut(w http.ResponseWriter, r *http.Request, key episode.Key) error {
	announced, err := isAnnounce(r)
	if err != nil {
		return err
	}
	if announced {
		return h.serveAnnounce(w, r, key)
	}
	u, err := parseUpload(r, key)
	if err != nil {
		return err
	}
	body := h.StallLimits.newBody(r.Context(), http.NewResponseController(w), r)
	defer body.detach()
	receipt, err := h.Backend.Put(r.Context(), u, body)
	if err != nil {
		return err
	}
	h.drainBody(http.NewResponseController(w), r)
	return h.writeReceipt(w, receipt)
}

// serveAnnounce responds with the receipt if the archive is stored, or with where to continue. A
// sender that has lost its state announces again.
func (h *Handler) serveAnnounce(w http.ResponseWriter, r *http.Request, key episode.Key) error {
	var receipt Receipt
	var unfinished Unfinished
	u := Upload{Key: key}
	open, err := isOpen(r)
	if err != nil {
		return err
	}
	if open {
		unfinished, err = h.Backend.OpenUpload(r.Context(), key)
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

// serveUpload handles paths below /v1/uploads/.
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
		if err := h.Backend.CancelUpload(r.Context(), host, id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	unfinished, err := h.Backend.UploadState(r.Context(), host, id)
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
	body := h.StallLimits.newBody(ctx, http.NewResponseController(w), r)
	defer body.detach()
	receipt, unfinished, err := h.Backend.AppendPiece(ctx, host, id, piece, body)
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

// serveOptions responds to OPTIONS with the receiver's limits.
func (h *Handler) serveOptions(w http.ResponseWriter, r *http.Request) error {
	if err := refuseBody(w, r); err != nil {
		return err
	}
	w.Header().Set(uploadLimit, formatLimits(h.Limits))
	w.Header().Set("Allow", "HEAD, OPTIONS, PUT")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// setProgress sets the headers that describe an unfinished upload.
func (h *Handler) setProgress(w http.ResponseWriter, u Unfinished) {
	fields := w.Header()
	fields.Set(uploadComplete, "?0")
	fields.Set(uploadOffset, strconv.FormatInt(u.Offset, 10))
	if u.Length >= 0 {
		fields.Set(uploadLength, strconv.FormatInt(u.Length, 10))
	}
	fields.Set(uploadLimit, formatLimits(h.Limits))
	fields.Set("Cache-Control", "no-store")
}

// writeReceipt sends a receipt, which ends an upload.
func (h *Handler) writeReceipt(w http.ResponseWriter, receipt Receipt) error {
	store, err := h.Backend.Store()
	if err != nil {
		return err
	}
	receipt.Store = &store
	status := http.StatusOK
	if receipt.Status == Stored {
		status = http.StatusCreated
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(reprDigest, formatDigest(receipt.Digest))
	writeJSON(w, status, receipt)
	return nil
}
