package wire

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

// probePath is where a host measures the throughput to its receiver:
//
//	POST /v1/probe
//	Content-Length: 8388608
//
// The receiver reads the body, stores none of it, and responds with its size, and how long it read,
// without the wait for a slot:
//
//	{"status":"ok","size_bytes":8388608,"seconds":1.25}
//
// An older receiver does not send seconds. A probe takes the place of an upload of the host. An older receiver responds with [NotFound].
const probePath = "/v1/probe"

// MaxProbe is the maximum size of a probe in bytes.
const MaxProbe = 16 << 20

// probeResponse is the body of a response.
type probeResponse struct {
	Status string `json:"status"`
	Size   int64  `json:"size_bytes"`
	// Seconds is how long the receiver read the body, or 0 from a receiver that does not say so.
	Seconds float64 `json:"seconds,omitempty"`
}

func (h *Handler) serveProbe(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if err := requirePost(w, r); err != nil {
		return err
	}
	if err := checkBodyHeaders(r); err != nil {
		return err
	}
	if r.ContentLength > MaxProbe {
		return Refuse(TooLarge, "a probe has at most %d bytes", MaxProbe)
	}
	release, err := h.Backend.Admit(r.Context(), caller.Host)
	if err != nil {
		return err
	}
	defer release()
	body := h.StallLimits.newBody(r.Context(), http.NewResponseController(w), r)
	defer body.detach()
	began := time.Now()
	size, err := io.Copy(io.Discard, body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, http.StatusOK, probeResponse{Status: "ok", Size: size, Seconds: time.Since(began).Seconds()})
	return nil
}

// Probe sends 1 to [MaxProbe] bytes, which the receiver discards, and returns how long that took: by
// the receiver's count if it has one, because that of this host has the wait for a slot too. A first
// request of one byte opens the connection, so that the time is that of the bytes. The error is a
// [NotFound] if the receiver is too old for probes.
func (c *Client) Probe(ctx context.Context, size int64) (time.Duration, error) {
	if _, err := c.sendProbe(ctx, 1); err != nil {
		return 0, err
	}
	start := time.Now()
	read, err := c.sendProbe(ctx, size)
	took := time.Since(start)
	if read > 0 && read < took.Seconds() { // or it is wrong
		took = time.Duration(read * float64(time.Second))
	}
	return took, err
}

// sendProbe returns the seconds for which the receiver read, or 0 if it did not say.
func (c *Client) sendProbe(ctx context.Context, size int64) (seconds float64, err error) {
	noise := rand.NewChaCha8([32]byte{}) // a tunnel may compress
	req, err := c.newRequest(ctx, http.MethodPost, c.base.JoinPath(probePath), io.LimitReader(noise, size))
	if err != nil {
		return 0, err
	}
	req.ContentLength = size
	var resp probeResponse
	status, err := c.doRequest(req, &resp, http.StatusOK)
	if err == nil && resp.Size != size {
		err = &UnexpectedResponseError{Status: status, Err: fmt.Errorf("response to a probe of %d bytes: %d", size, resp.Size)}
	}
	return resp.Seconds, err
}
