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

// Bounds of a [Store].
const (
	maxStoreID = 64
	// MaxReplaced is the maximum number of stores that one store can replace.
	MaxReplaced = 64
)

// Unnamed stands in [Store.Replaces] for the store of a host that has not adopted one:
// it retired its episodes before stores had names.
const Unnamed = "unnamed"

// Store names what a receiver keeps its archives in. The id moves with the data, so that
// a host can tell an empty disk, another receiver and a restored image from the store to
// which it has given its episodes. An answer of a receiver before 2026-11-29 names none.
type Store struct {
	ID string `json:"id"`
	// IndexBytes is the length of the index that is on the disk, in bytes. It never
	// decreases, unless the index is lost or an older image of it is restored.
	IndexBytes int64 `json:"index_bytes"`
	// IndexTail stands for the bytes of the index before IndexBytes: an index that was
	// restored and has grown beyond them since has others there. Empty: not known.
	IndexTail string `json:"index_tail,omitempty"`
	// Replaces has the ids of the stores that a person has said this one replaces.
	Replaces []string `json:"replaces,omitempty"`
}

// ParseStoreID returns the id that s is, or an error.
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

// Follows reports whether s is the store called id, or replaces it. Nil follows none.
func (s *Store) Follows(id string) bool {
	return s != nil && (s.ID == id || slices.Contains(s.Replaces, id))
}

// Check returns an error if s is not a store that a receiver may name. Nil is one that
// names none.
func (s *Store) Check() error {
	switch {
	case s == nil:
		return nil
	case len(s.IndexTail) > maxStoreID || !printable.IsPlain(s.IndexTail):
		return errors.New("the tail of the store's index is none")
	case s.IndexBytes < 0:
		return errors.New("the index of the store has a negative length")
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

// storeKnownField says what the sender of a request knows of the receiver's store.
const storeKnownField = "Store-Known"

type knownKey struct{}

// WithKnownStore returns a context whose requests tell the receiver which store it had, and how
// long its index was: it refuses them with [OtherStore] if it cannot have been that one. A
// store without an id says nothing.
func WithKnownStore(ctx context.Context, known Store) context.Context {
	return context.WithValue(ctx, knownKey{}, known)
}

// KnownStore returns what [WithKnownStore] has put into ctx.
func KnownStore(ctx context.Context) Store {
	known, _ := ctx.Value(knownKey{}).(Store)
	return known
}

// setKnownStore sets the field of a request.
func setKnownStore(req *http.Request) {
	known := KnownStore(req.Context())
	if known.ID == "" || known.Check() != nil {
		return
	}
	item := httpsfv.NewItem(known.ID)
	item.Params.Add("index-bytes", known.IndexBytes)
	item.Params.Add("index-tail", known.IndexTail)
	if s, err := httpsfv.Marshal(item); err == nil {
		req.Header.Set(storeKnownField, s)
	}
}

// parseKnownStore returns what a request says of the store, and whether it says something.
func parseKnownStore(h http.Header) (Store, bool, error) {
	values := h.Values(storeKnownField)
	if len(values) == 0 {
		return Store{}, false, nil
	}
	item, err := httpsfv.UnmarshalItem(values)
	var known Store
	var ok bool
	if err == nil {
		if known.ID, ok = item.Value.(string); ok {
			bytes, _ := item.Params.Get("index-bytes")
			known.IndexBytes, _ = bytes.(int64)
			tail, _ := item.Params.Get("index-tail")
			known.IndexTail, _ = tail.(string)
			err = known.Check()
		}
	}
	if err != nil || !ok {
		return Store{}, false, Refuse(BadRequest, "%s is not the id of a store with the length of its index", storeKnownField)
	}
	return known, true, nil
}

// checkKnownStore refuses a request of a host that knows another store than this one.
func (h *Handler) checkKnownStore(r *http.Request) error {
	known, says, err := parseKnownStore(r.Header)
	if err != nil || !says {
		return err
	}
	has, err := h.Backend.Has(known)
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
