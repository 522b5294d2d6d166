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

// Limits of an inventory, which both ends keep.
const (
	MaxQueries   = 1000
	maxInventory = 1 << 20 // bytes of a request or a response
)

// InventoryQuery asks about an archive that the host believes to be stored.
type InventoryQuery struct {
	Episode episode.Name  `json:"episode_id"`
	Digest  digest.Digest `json:"sha256"`
}

// State is the receiver's answer to an [InventoryQuery].
type State string

// The values of [InventoryEntry.State].
const (
	Present      State = "present"
	Divergent    State = "divergent" // the archive stored under this name is another one, or an unknown one
	Absent       State = "absent"    // no archive is stored; a corrupt one may have been quarantined
	StateDamaged State = "damaged"   // it was read back just now, and is corrupt
)

// InventoryEntry answers an [InventoryQuery].
type InventoryEntry struct {
	Episode episode.Name `json:"episode_id"`
	State   State        `json:"state"`
	// Digest, Size and ReceivedAt describe the stored archive. Digest is nil if there is none.
	Digest     *digest.Digest `json:"sha256,omitempty"`
	Size       int64          `json:"size_bytes,omitempty"`
	ReceivedAt *Timestamp     `json:"received_at_wall,omitempty"`
	// VerifiedAt is when the receiver last verified the archive: it read all bytes from the disk,
	// past the page cache, and decoded them. It is nil if it never did.
	VerifiedAt *Timestamp `json:"verified_at_wall,omitempty"`
	// Contents is the digest of the decoded contents, as package archive defines it. It is nil
	// unless a receiver that computes it verified the archive.
	Contents *digest.Digest `json:"contents_sha256,omitempty"`
	// Undecodable says that the archive was read back just now: it has its digest and cannot be
	// decoded.
	Undecodable bool `json:"undecodable,omitempty"`
	// Unreadable says that the receiver could not examine the archive just now, for example
	// because it lacks permission. Digest is then that of its row, or zero if there is none. In
	// that case the state is Divergent, so that no host takes the archive for present. Shippers
	// before 2026-11-29 ignore this member: they keep the episode, and do not send it again.
	Unreadable bool `json:"unreadable,omitempty"`
}

// inventoryRequest is the body of a request.
type inventoryRequest struct {
	Episodes []InventoryQuery `json:"episodes"`
	ReadBack bool             `json:"read_back,omitempty"`
}

// inventoryResponse is the body of a response.
type inventoryResponse struct {
	Host     episode.Name     `json:"host_id"`
	Episodes []InventoryEntry `json:"episodes"`
	Store    *Store           `json:"store,omitempty"`
}

func (h *Handler) serveInventory(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if err := requirePost(w, r); err != nil {
		return err
	}
	if err := checkBodyHeaders(r); err != nil {
		return err
	}
	if r.ContentLength > maxInventory {
		return Refuse(TooLarge, "an inventory has at most %d bytes", maxInventory)
	}
	release, err := h.Backend.Admit(r.Context(), caller.Host)
	if err != nil {
		return err
	}
	defer release()
	body := h.StallLimits.newBody(r.Context(), http.NewResponseController(w), r)
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

// Inventory asks the receiver about at most [MaxQueries] episodes of this host. The entries have
// the order of the queries. The store is nil if the receiver does not name it. With readBack there
// must be one query, whose archive the receiver first reads from its disk.
//
// BUG(wire): an archive that the receiver reads for longer than responseTimeout cannot be read back
// on request (about 10 GB on a Raspberry Pi, at 50 MB/s read and decoded). The receiver's scrub
// reads it.
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
	status, err := c.doRequest(req, &resp, http.StatusOK)
	if err != nil {
		return nil, nil, err
	}
	if err := resp.validate(c.host, asked); err != nil {
		return nil, nil, &UnexpectedResponseError{Status: status, Err: err}
	}
	return resp.Episodes, resp.Store, nil
}

// validate returns nil if these entries answer the queries. Episodes are deleted because of them.
func (h inventoryResponse) validate(host episode.Name, asked []InventoryQuery) error {
	if err := h.Store.Validate(); err != nil {
		return err
	}
	if h.Host != host || len(h.Episodes) != len(asked) {
		return fmt.Errorf("response has %d episodes of host %+q", len(h.Episodes), string(h.Host))
	}
	for i, got := range h.Episodes {
		if got.Episode != asked[i].Episode {
			return fmt.Errorf("response has %+q in the place of %s", string(got.Episode), asked[i].Episode)
		}
		switch got.State {
		case Present:
			if got.Digest == nil || *got.Digest != asked[i].Digest || got.ReceivedAt == nil {
				return fmt.Errorf("response says that %s is present, with another sha256", got.Episode)
			}
			if got.Unreadable && got.VerifiedAt != nil {
				return fmt.Errorf("response says that %s is verified and unreadable", got.Episode)
			}
		case Divergent:
			if got.Digest == nil || *got.Digest == asked[i].Digest {
				return fmt.Errorf("response says that %s is divergent, without another sha256", got.Episode)
			}
		case Absent, StateDamaged:
		default:
			return fmt.Errorf("response says that %s is %+q", got.Episode, string(got.State))
		}
	}
	return nil
}
