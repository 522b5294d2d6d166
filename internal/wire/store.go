package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/dunglas/httpsfv"

	"cis490/internal/printable"
)

// Limits of a [Store].
const (
	maxStoreID = 64
	// MaxReplaced is the maximum number of stores that one store can replace.
	MaxReplaced = 64
)

// Unnamed is the entry of [Store.Replaces] for a host that has adopted no store, because it retired
// its episodes before stores had ids.
const Unnamed = "unnamed"

// Store identifies the store of a receiver. The id moves with the data: a host can distinguish the
// store that has its episodes from an empty disk, another receiver and a restored image. Receivers
// before 2026-11-29 send no store.
type Store struct {
	ID string `json:"id"`
	// IndexBytes is the length in bytes of the index on the disk. It decreases only if the index is
	// lost or an older image of it is restored.
	IndexBytes int64 `json:"index_bytes"`
	// IndexTail identifies the last bytes of the index before IndexBytes. An index that was
	// restored and has grown past IndexBytes has other bytes there. It is empty if not known.
	IndexTail string `json:"index_tail,omitempty"`
	// Replaces are the ids of stores that an operator has declared replaced by this one.
	Replaces []string `json:"replaces,omitempty"`
}

// ParseStoreID returns s if it is a valid id of a store, and an error otherwise.
func ParseStoreID(s string) (string, error) {
	if s == "" || len(s) > maxStoreID {
		return "", fmt.Errorf("the id of a store has 1 to %d characters, not %d", maxStoreID, len(s))
	}
	for _, c := range []byte(s) {
		if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; !letter && (c < '0' || c > '9') {
			return "", errors.New("the id of a store has letters and digits only")
		}
	}
	return s, nil
}

// Follows reports whether s has the id, or replaces the store that has it. A nil store follows
// none.
func (s *Store) Follows(id string) bool {
	return s != nil && (s.ID == id || slices.Contains(s.Replaces, id))
}

// Validate returns an error if s is not a valid store. A nil store is valid.
func (s *Store) Validate() error {
	switch {
	case s == nil:
		return nil
	case len(s.IndexTail) > maxStoreID || !printable.IsPlain(s.IndexTail):
		return errors.New("index_tail is not valid")
	case s.IndexBytes < 0:
		return errors.New("index_bytes is negative")
	case len(s.Replaces) > MaxReplaced:
		return fmt.Errorf("the store replaces more than %d others", MaxReplaced)
	case s.ID == Unnamed:
		return fmt.Errorf("the id of a store is %q", Unnamed)
	}
	for _, id := range append([]string{s.ID}, s.Replaces...) {
		if _, err := ParseStoreID(id); err != nil {
			return err
		}
	}
	return nil
}

// storeKnownField names the header with the store that the sender knows.
const storeKnownField = "Store-Known"

type knownKey struct{}

// WithKnownStore returns a context whose requests tell the receiver which store the host knows, and
// how long its index was. A receiver whose store cannot be that one refuses them with [OtherStore].
// A store without an id is not sent.
func WithKnownStore(ctx context.Context, known Store) context.Context {
	return context.WithValue(ctx, knownKey{}, known)
}

// KnownStore returns the store that [WithKnownStore] put into ctx.
func KnownStore(ctx context.Context) Store {
	known, _ := ctx.Value(knownKey{}).(Store)
	return known
}

// setKnownStore sets the header of a request.
func setKnownStore(req *http.Request) {
	known := KnownStore(req.Context())
	if known.ID == "" || known.Validate() != nil {
		return
	}
	item := httpsfv.NewItem(known.ID)
	item.Params.Add("index-bytes", known.IndexBytes)
	item.Params.Add("index-tail", known.IndexTail)
	if s, err := httpsfv.Marshal(item); err == nil {
		req.Header.Set(storeKnownField, s)
	}
}

// parseKnownStore returns the store in a request's header, and whether there is one.
func parseKnownStore(h http.Header) (Store, bool, error) {
	values := h.Values(storeKnownField)
	if len(values) == 0 {
		return Store{}, false, nil
	}
	item, err := httpsfv.UnmarshalItem(values)
	var known Store
	var ok bool
	if err == nil {
		known.ID, ok = item.Value.(string)
		if ok {
			bytes, _ := item.Params.Get("index-bytes")
			known.IndexBytes, _ = bytes.(int64)
			tail, _ := item.Params.Get("index-tail")
			known.IndexTail, _ = tail.(string)
			err = known.Validate()
		}
	}
	if err != nil || !ok {
		return Store{}, false, Refuse(BadRequest, "%s is not a valid store id with an index length", storeKnownField)
	}
	return known, true, nil
}

// checkKnownStore refuses a request whose host knows another store.
func (h *Handler) checkKnownStore(r *http.Request) error {
	known, says, err := parseKnownStore(r.Header)
	if err != nil || !says {
		return err
	}
	has, err := h.Backend.HasStore(known)
	if has || err != nil {
		return err
	}
	store, err := h.Backend.Store()
	if err != nil {
		return err
	}
	p := Refuse(OtherStore, "this is not the store that the host knows")
	p.Store = &store
	return p
}
