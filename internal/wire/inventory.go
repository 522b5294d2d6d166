package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/printable"
)

const inventoryPath = "/v1/inventory"

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

// parseInventory reads a request claim by claim, so that it never holds more of
// them than are allowed, nor more than [maxLookahead] bytes of anything else. A
// repeated member is refused.
func parseInventory(body io.Reader) (inventoryRequest, error) {
	in := inventoryRequest{Episodes: []InventoryQuery{}}
	watched := &lastError{r: body}
	ahead := &lookaheadLimiter{r: watched}
	dec := json.NewDecoder(ahead)
	ahead.inputOffset = dec.InputOffset
	err := parseObject(dec, map[string]func() error{
		"episodes":  func() (err error) { in.Episodes, err = parseQueries(dec); return err },
		"read_back": func() error { return dec.Decode(&in.ReadBack) },
	})
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	switch _, problem := errors.AsType[*Problem](err); {
	case watched.err != nil: // the connection's or the pace's: not the sender's grammar
		return in, watched.err
	case problem:
		return in, err
	case ahead.exceeded:
		return in, Refuse(BadRequest, "not an inventory: more than %d bytes in one value or between two", maxLookahead)
	case err != nil:
		return in, Refuse(BadRequest, "no inventory: %s", printable.Text(err.Error()))
	case in.ReadBack && len(in.Episodes) != 1:
		return in, Refuse(BadRequest, "one episode is read back at a time, not %d", len(in.Episodes))
	}
	return in, nil
}

// parseObject reads a JSON object whose members are those of read, each at most
// once. Others are for receivers to come, and are skipped.
func parseObject(dec *json.Decoder, read map[string]func() error) error {
	if err := expectDelim(dec, '{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		member, known := read[name]
		if !known {
			if err := skipValue(dec); err != nil {
				return err
			}
			continue
		}
		if seen[name] {
			return fmt.Errorf("%s is said twice", name)
		}
		seen[name] = true
		if err := member(); err != nil {
			return err
		}
	}
	return expectDelim(dec, '}')
}

// maxSkippedDepth bounds how deep the members may be nested that are skipped: the
// decoder remembers each level.
const maxSkippedDepth = 32

// skipValue reads a value token by token, so that nothing of it stays in memory.
func skipValue(dec *json.Decoder) error {
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxSkippedDepth {
				return fmt.Errorf("more than %d levels in an unknown member", maxSkippedDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func parseQueries(dec *json.Decoder) ([]InventoryQuery, error) {
	if err := expectDelim(dec, '['); err != nil {
		return nil, err
	}
	all := []InventoryQuery{}
	for dec.More() {
		if len(all) == MaxQueries {
			return nil, Refuse(BadRequest, "an inventory has at most %d episodes", MaxQueries)
		}
		var c InventoryQuery
		if err := dec.Decode(&c); err != nil {
			return nil, err
		}
		if _, err := episode.ParseName(string(c.Episode)); err != nil {
			return nil, Refuse(BadName, "%v", err)
		}
		if c.Digest.IsZero() {
			return nil, Refuse(DigestMissing, "%s is claimed without its sha256", c.Episode)
		}
		all = append(all, c)
	}
	return all, expectDelim(dec, ']')
}

func expectDelim(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err == nil && t != want {
		err = fmt.Errorf("want %v at the byte %d", want, dec.InputOffset())
	}
	return err
}

// maxLookahead is how many bytes a JSON decoder may read beyond the last value that it
// returned. A claim has at most a few hundred.
const maxLookahead = 16 << 10

// lookaheadLimiter ends a decoder that buffers too much: it would otherwise hold a string of
// any length, or as much white space.
type lookaheadLimiter struct {
	r           io.Reader
	inputOffset func() int64 // offset after the last value
	read        int64
	exceeded    bool
}

func (l *lookaheadLimiter) Read(p []byte) (int, error) {
	left := l.inputOffset() + maxLookahead - l.read
	if left <= 0 {
		l.exceeded = true
		return 0, io.ErrUnexpectedEOF
	}
	n, err := l.r.Read(p[:min(int64(len(p)), left)])
	l.read += int64(n)
	return n, err
}

// lastError remembers why a body ended, which a decoder may hide.
type lastError struct {
	r   io.Reader
	err error
}

func (l *lastError) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		l.err = err
	}
	return n, err
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
