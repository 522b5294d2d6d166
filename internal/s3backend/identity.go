package s3backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/index"
	"cis490/internal/wire"
)

// identityName is the object that makes a prefix a store. It is created first.
const identityName = "store.json"

// layout is the version of the names and formats of objects, and movedLayout that of a store that was on a disk
// before. Receivers before 2026-11-30 refuse it: they would tell hosts a shorter index.
const (
	layout      = 1
	movedLayout = 2
)

// identity is the content of the object.
type identity struct {
	Layout    int       `json:"layout"`
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Replaces  []string  `json:"replaces,omitempty"`
	Moved     moved     `json:"moved,omitzero"` // of a store that was on a disk before
}

// maxIdentity is the maximum size of the object.
const maxIdentity = 64 << 10

// openIdentity reads the identity of the store. In an empty prefix it creates one: of receivers that
// start at once, one creates it and the others read it.
func openIdentity(ctx context.Context, in bucket.Bucket, log *slog.Logger) (identity, error) {
	id, err := readIdentity(ctx, in)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if err := checkNotImporting(ctx, in); err != nil {
		return identity{}, err
	}
	for info, err := range in.List(ctx, "", "") {
		if err != nil {
			return identity{}, fmt.Errorf("list the bucket: %w", err)
		}
		if bucket.IsProbe(info.Name) {
			continue // of another receiver that starts
		}
		if id, err := readIdentity(ctx, in); !errors.Is(err, fs.ErrNotExist) {
			return id, err // another receiver has just created it
		}
		return identity{}, fmt.Errorf("the bucket has objects such as %q and no %s, so it is not a store of receivers: "+
			"set store.s3.prefix to a name that nothing else uses", info.Name, identityName)
	}
	id = identity{Layout: layout, ID: rand.Text(), CreatedAt: time.Now().UTC().Truncate(time.Second)}
	body, err := json.Marshal(id)
	if err != nil {
		return identity{}, err
	}
	err = in.Create(ctx, identityName, bytes.NewReader(body), int64(len(body)), sha256.Sum256(body))
	if errors.Is(err, fs.ErrExist) {
		return readIdentity(ctx, in)
	}
	if err != nil {
		return identity{}, fmt.Errorf("create %s: %w", identityName, err)
	}
	log.Warn("a new, empty store", "store", id.ID, "hint", "are bucket and prefix right? All receivers need the same")
	return id, nil
}

// ReadStoreID returns the id of the store in a bucket.
func ReadStoreID(ctx context.Context, in bucket.Bucket) (string, error) {
	id, err := readIdentity(ctx, in)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: correct bucket or prefix, or start a receiver, which creates the store", err)
	}
	return id.ID, err
}

func readIdentity(ctx context.Context, in bucket.Bucket) (identity, error) {
	var id identity
	r, _, err := in.Open(ctx, identityName)
	if err != nil {
		return id, fmt.Errorf("open %s: %w", identityName, err)
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxIdentity))
	if err != nil {
		return id, fmt.Errorf("read %s: %w", identityName, err)
	}
	if err := json.Unmarshal(body, &id); err != nil {
		return id, fmt.Errorf("%s is not valid: %w", identityName, err)
	}
	if id.Layout != layout && id.Layout != movedLayout {
		return id, fmt.Errorf("%s has the layout %d, and this receiver knows only %d and %d: upgrade it", identityName, id.Layout, layout, movedLayout)
	}
	if err := (&wire.Store{ID: id.ID, Replaces: id.Replaces}).Validate(); err != nil {
		return id, fmt.Errorf("%s: %w", identityName, err)
	}
	return id, nil
}

// knownTimeout bounds the check of what a host knows.
const knownTimeout = 20 * time.Second

// Store returns the identity of the store. Its IndexBytes are the number of batches, with what a disk had
// before the store moved: the protocol needs a number that does not decrease.
func (b *Backend) Store() (wire.Store, error) {
	head := b.index.Head()
	s := wire.Store{ID: b.id.ID, IndexBytes: b.id.Moved.indexBytes(head), Replaces: b.id.Replaces}
	if head == 0 {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), knownTimeout)
	defer cancel()
	sum, err := b.index.Sum(ctx, head)
	s.IndexTail = index.FormatBatchTail(head, sum)
	return s, err
}

// HasStore reports whether this is the store that a host knows, or replaces it. Another receiver may
// have told the host about batches that this one has not read yet.
func (b *Backend) HasStore(known wire.Store) (bool, error) {
	if err := b.index.Moved(); err != nil { // hosts may know what the store has at its new place
		return false, b.forSender(err)
	}
	if known.ID != b.id.ID {
		return slices.Contains(b.id.Replaces, known.ID), nil
	}
	if known.IndexBytes == 0 {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), knownTimeout)
	defer cancel()
	n, ok := index.ParseBatchTail(known.IndexTail)
	if !ok {
		return b.hadOnDisk(ctx, known)
	}
	// A host may know a batch from another bucket, in which the store was before it was on a disk.
	if n > b.id.Moved.Batches && known.IndexBytes != b.id.Moved.indexBytes(n) {
		return false, nil
	}
	exists, err := b.index.Refresh(ctx, n)
	if !exists || err != nil {
		return false, err
	}
	sum, err := b.index.Sum(ctx, n)
	return index.FormatBatchTail(n, sum) == known.IndexTail, err
}
