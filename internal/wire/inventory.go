package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// Bounds of an inventory. Both ends keep them.
const (
	MaxQueries   = 1000
	maxInventory = 1 << 20 // bytes
)

// InventoryQuery is what a host believes that the receiver has.
type InventoryQuery struct {
	Episode episode.Name  `json:"episode_id"`
	Digest  digest.Digest `json:"sha256"`
}

// State is what the receiver says of a [InventoryQuery].
type State string

// What became of a claim.
const (
	Present      State = "present"
	Divergent    State = "divergent" // another archive is stored under this name, or an unknown one
	Absent       State = "absent"    // none is; perhaps it was damaged and set aside
	StateDamaged State = "damaged"   // it was read back just now, and is not what was sent
)

// InventoryEntry is what the receiver has under the name of a [InventoryQuery].
type InventoryEntry struct {
	Episode episode.Name `json:"episode_id"`
	State   State        `json:"state"`
	// Of what is stored; nil if nothing is.
	Digest     *digest.Digest `json:"sha256,omitempty"`
	Size       int64          `json:"size_bytes,omitempty"`
	ReceivedAt *Timestamp     `json:"received_at_wall,omitempty"`
	// VerifiedAt is when the receiver last read all of it from its disk, past
	// the page cache, and it was right and could be decoded; nil if it never did.
	VerifiedAt *Timestamp `json:"verified_at_wall,omitempty"`
	// Contents is the digest of what it decodes to, as package archive defines it;
	// nil unless it was verified by a receiver that computes it.
	Contents *digest.Digest `json:"contents_sha256,omitempty"`
	// Undecodable says that it was read back just now, is what was sent, and is
	// no archive that can be read.
	Undecodable bool `json:"undecodable,omitempty"`
	// Unreadable says that the receiver could not examine the archive just now, for want
	// of permission, say. Digest is that of its row then, and zero if that is not known
	// either: the state is Divergent then, so that nobody takes it for present. Shippers
	// before 2026-11-29 ignore this. They keep the episode, and do not send it again.
	Unreadable bool `json:"unreadable,omitempty"`
}

// inventoryRequest is the request.
type inventoryRequest struct {
	Episodes []InventoryQuery `json:"episodes"`
	ReadBack bool             `json:"read_back,omitempty"`
}

// inventoryResponse is the answer.
type inventoryResponse struct {
	Host     episode.Name     `json:"host_id"`
	Episodes []InventoryEntry `json:"episodes"`
	Store    *Store           `json:"store,omitempty"`
}

func (h *Handler) serveInventory(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		return Refuse(BadMethod, "use POST")
	}
	if len(r.TransferEncoding) > 0 || r.Header.Get("Content-Length") == "" {
		return Refuse(LengthRequired, "send a Content-Length, not a chunked body")
	}
	if r.ContentLength > maxInventory {
		return Refuse(TooLarge, "an inventory has at most %d bytes", maxInventory)
	}
	if r.Header.Get("Content-Encoding") != "" {
		return Refuse(Unsupported, "send the bytes as they are")
	}
	release, err := h.Backend.AdmitInventory(r.Context(), caller.Host)
	if err != nil {
		return err
	}
	defer release()
	body := h.BodyLimits.newBody(r.Context(), http.NewResponseController(w), r)
	defer body.detach()
	asked, err := parseInventory(body)
	if err != nil {
		return err
	}
	found, err := h.Backend.Inventory(r.Context(), caller.Host, asked.Episodes, asked.ReadBack)
	if err != nil {
		return err
	}
	store, err := h.Backend.Store()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, http.StatusOK, inventoryResponse{Host: caller.Host, Episodes: found, Store: &store})
	return nil
}

// Inventory asks the receiver what it has of at most [MaxQueries] episodes of
// ours, in the order of the claims, and returns the store that it has them in; nil if it
// does not name it. With readBack, which takes one claim, it reads that archive from its
// disk first.
//
// BUG(wire): an archive that takes the receiver longer to read than answers may
// take (some 10 GB on a Raspberry Pi, at 50 MB/s read and decoded) cannot be read back on request; the
// receiver's own scrub reads it.
func (c *Client) Inventory(ctx context.Context, asked []InventoryQuery, readBack bool) ([]InventoryEntry, *Store, error) {
	b, err := json.Marshal(inventoryRequest{Episodes: append([]InventoryQuery{}, asked...), ReadBack: readBack})
	if err != nil {
		return nil, nil, err
	}
	req, err := c.newRequest(ctx, http.MethodPost, c.base.JoinPath(inventoryPath), bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	var resp inventoryResponse
	status, err := c.do(req, &resp, http.StatusOK)
	if err != nil {
		return nil, nil, err
	}
	if err := resp.check(c.host, asked); err != nil {
		return nil, nil, &UnexpectedResponseError{Status: status, Err: err}
	}
	return resp.Episodes, resp.Store, nil
}

// check returns nil if these are the answers to what was asked: something
// will be deleted for them.
func (h inventoryResponse) check(host episode.Name, asked []InventoryQuery) error {
	if err := h.Store.Check(); err != nil {
		return err
	}
	if h.Host != host || len(h.Episodes) != len(asked) {
		return fmt.Errorf("an inventory of %d episodes of the host %+q", len(h.Episodes), string(h.Host))
	}
	for i, got := range h.Episodes {
		if got.Episode != asked[i].Episode {
			return fmt.Errorf("an inventory of %+q where %s was asked for", string(got.Episode), asked[i].Episode)
		}
		switch got.State {
		case Present:
			if got.Digest == nil || *got.Digest != asked[i].Digest || got.ReceivedAt == nil {
				return fmt.Errorf("%s is said to be present, with another sha256", got.Episode)
			}
			if got.Unreadable && got.VerifiedAt != nil {
				return fmt.Errorf("%s is said to be verified, and to be unreadable", got.Episode)
			}
		case Divergent:
			if got.Digest == nil || *got.Digest == asked[i].Digest {
				return fmt.Errorf("%s is said to be divergent, with no other sha256", got.Episode)
			}
		case Absent, StateDamaged:
		default:
			return fmt.Errorf("%s is said to be %+q", got.Episode, string(got.State))
		}
	}
	return nil
}
