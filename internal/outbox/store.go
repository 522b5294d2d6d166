package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// storeFile is the file name of the [Store].
const storeFile = ".store.json"

// Store is the receiver's store that this host has adopted: it has the retired episodes.
type Store struct {
	ID string `json:"id"` // empty if none is adopted
	// IndexBytes is the minimum length of the receiver's index, by what the receiver has reported.
	IndexBytes int64 `json:"index_bytes"`
	// IndexTail identifies the bytes of the index before that.
	IndexTail string `json:"index_tail,omitempty"`
}

// ReadStore returns the adopted store.
func (o *Outbox) ReadStore() (Store, error) {
	b, err := o.readFile(storeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Store{}, nil
	}
	var s Store
	if err == nil {
		s, err = parseStore(b)
	}
	if err != nil {
		return Store{}, &StoreError{o.dir.Path(storeFile), err}
	}
	return s, nil
}

// StoreError says that the adopted store is unknown.
type StoreError struct {
	Path string
	Err  error
}

func (e *StoreError) Error() string {
	remedy := "; restore it, or remove it: the next receipt names a store again"
	if errors.Is(e.Err, fs.ErrPermission) {
		remedy = ""
	}
	return fmt.Sprintf("the store that this host has adopted cannot be read: %s: %v%s", e.Path, e.Err, remedy)
}

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

func parseStore(b []byte) (Store, error) {
	var s Store
	if err := json.Unmarshal(b, &s); err != nil {
		return Store{}, err
	}
	if s.ID == "" || s.IndexBytes < 0 {
		return Store{}, errors.New("it names no store")
	}
	return s, nil
}

// AdoptStore records the adopted store, durably, and replaces an earlier one. The caller must hold
// the lock.
func (o *Outbox) AdoptStore(s Store) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return o.dir.WriteFile(storeFile, append(b, '\n'), 0o640)
}
