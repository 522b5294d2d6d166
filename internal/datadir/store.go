package datadir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/wire"
)

// The identity of the store in the data directory, and the lock of its writers.
const (
	storeFile = "store.json"
	storeLock = ".store.lock"
)

// maxStoreBytes is the maximum size of the file, which has up to [wire.MaxReplaced] ids.
const maxStoreBytes = 16 << 10

// ErrStoreFile says that the identity of the store cannot be used. Then the receiver does
// not start: with another id, hosts would take the store for another one.
var ErrStoreFile = errors.New("the name of the store cannot be used")

// StoreName is the content of the file.
type StoreName struct {
	Version   int       `json:"schema_version"` // 1
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Replaces  []string  `json:"replaces"`
	// BeganEmpty reports that the store had neither rows nor archives when it got its first id.
	BeganEmpty bool `json:"began_empty,omitempty"`
	// MovedTo says where the store is now, and CopiedFrom from where it is being copied. With one of
	// them this directory has no store that may take uploads: see [MovedError].
	MovedTo    string `json:"moved_to,omitempty"`
	CopiedFrom string `json:"copied_from,omitempty"`
	// MovedCopy is the id of the copy at MovedTo, and CopyID that of the last copy into this directory.
	// Places have names that another one can have too.
	MovedCopy string `json:"moved_copy,omitempty"`
	CopyID    string `json:"copy_id,omitempty"`
}

func newStoreName(now time.Time) StoreName {
	return StoreName{Version: 1, ID: rand.Text(), CreatedAt: now.UTC().Truncate(time.Second), Replaces: []string{}}
}

// loadStoreName reads the file. The error wraps [fs.ErrNotExist] if there is none, and
// [ErrStoreFile] otherwise.
func loadStoreName(data *durable.Dir) (StoreName, durable.Stat, error) {
	b, st, err := readTrusted(data, storeFile, maxStoreBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return StoreName{}, st, err
	}
	var name StoreName
	if err == nil {
		name, err = parseStoreName(b)
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%s: %w; restore this one file from a backup of the data directory", data.Path(storeFile), err)
	}
	if err != nil {
		return StoreName{}, st, fmt.Errorf("%w: %w", ErrStoreFile, err)
	}
	return name, st, nil
}

// parseStoreName parses the content of the file. It refuses what it does not understand.
func parseStoreName(b []byte) (StoreName, error) {
	var name StoreName
	if err := decodeJSONUpTo(awayVersion, b, maxStoreBytes, &name, &name.Version); err != nil {
		return StoreName{}, err
	}
	if name.isAway() != (name.Version == awayVersion) {
		return StoreName{}, errors.New("schema_version does not fit moved_to and copied_from")
	}
	if err := (&wire.Store{ID: name.ID, Replaces: name.Replaces}).Validate(); err != nil {
		return StoreName{}, err
	}
	return name, nil
}

// save replaces the file. A power loss leaves the old content or the new one.
func (n StoreName) save(data *durable.Dir) error { return writeJSON(data, storeFile, n) }

// newStoreAge is how long a status shows a store that began empty as new: a host that does
// not adopt it may have left an archive in it.
const newStoreAge = 24 * time.Hour

// isNew reports whether the store began empty less than newStoreAge ago, and does not
// replace another one.
func (n StoreName) isNew(now time.Time) bool {
	age := now.Sub(n.CreatedAt)
	return n.BeganEmpty && len(n.Replaces) == 0 && age >= 0 && age < newStoreAge
}

// StoreWatch reads the identity for a running receiver. A command changes the file, so each
// use compares its inode, size and times, as in [DisabledWatch].
type StoreWatch struct {
	data *durable.Dir
	log  *slog.Logger

	mu     sync.Mutex // guards the fields below
	now    StoreName
	stat   durable.Stat // of the file that now was read from
	failed string       // why the file cannot be used; "" if it can
	readAt time.Time
}

// OpenStore reads the identity of the store in data, and creates one if there is none. empty
// says whether the store has neither rows nor archives. created reports that it got its id.
func OpenStore(data *durable.Dir, log *slog.Logger, empty bool, now time.Time) (w *StoreWatch, created bool, err error) {
	name, st, err := loadStoreName(data)
	if err == nil {
		err = name.checkHere(data)
	}
	isNew := errors.Is(err, fs.ErrNotExist)
	if isNew {
		name = newStoreName(now)
		name.BeganEmpty = empty
		if err = name.save(data); err == nil {
			name, st, err = loadStoreName(data)
		}
	}
	if err != nil {
		return nil, false, err
	}
	return &StoreWatch{data: data, log: log, now: name, stat: st}, isNew, nil
}

// Current returns the identity that the file has now. If the file cannot be used any more
// the last one counts until the next start: the store in the open directory is the same.
func (w *StoreWatch) Current() StoreName {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != "" && time.Since(w.readAt) < rereadInterval {
		return w.now
	}
	st, err := w.data.Lstat(storeFile)
	if err == nil && w.failed == "" && isUnchanged(st, w.stat) {
		return w.now
	}
	name, st, err := loadStoreName(w.data)
	w.readAt = time.Now()
	if err != nil {
		consequence := "the next start will fail"
		if errors.Is(err, fs.ErrNotExist) {
			consequence = "the next start gives this store another id"
		}
		if w.failed != err.Error() {
			w.log.Error("identity of the store is lost", "err", err, "store", w.now.ID,
				"hint", consequence+": put "+storeFile+" back as it was, from a backup")
		}
		w.failed = err.Error()
		return w.now
	}
	if name.ID != w.now.ID || !slices.Equal(name.Replaces, w.now.Replaces) {
		w.log.Info("name of the store changed", "store", name.ID, "replaces", len(name.Replaces))
	}
	w.now, w.stat, w.failed = name, st, ""
	return name
}

// Identity describes the store of a data directory.
type Identity struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	// IndexBytes is the length of the index, in bytes.
	IndexBytes int64    `json:"index_bytes"`
	Empty      bool     `json:"empty"` // it has no row yet
	Replaces   []string `json:"replaces"`
	New        bool     `json:"new,omitempty"`         // it began empty less than a day ago, and replaces no other
	MovedTo    string   `json:"moved_to,omitempty"`    // where the store is now
	CopiedFrom string   `json:"copied_from,omitempty"` // it is being copied from there, and not complete
}

// InspectStore returns the identity of the store in dir. It writes nothing, and may run
// beside a live receiver. The error wraps [fs.ErrNotExist] before the first start.
func InspectStore(dir string) (Identity, error) {
	data, err := durable.Open(dir)
	if err != nil {
		return Identity{}, err
	}
	defer data.Close()
	name, _, err := loadStoreName(data)
	if err != nil {
		return Identity{}, err
	}
	return identifyStore(data, name)
}

func identifyStore(data *durable.Dir, name StoreName) (Identity, error) {
	st, err := data.Lstat(IndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = durable.Stat{}, nil
	}
	return Identity{
		ID: name.ID, CreatedAt: name.CreatedAt, IndexBytes: st.Size(), Empty: st.Size() == 0, New: name.isNew(time.Now()),
		Replaces: append([]string{}, name.Replaces...), MovedTo: name.MovedTo, CopiedFrom: name.CopiedFrom,
	}, err
}

// StoreChange is what [ReplaceStore] or [RewindStore] did.
type StoreChange struct {
	Identity
	Former  string `json:"former"`  // the id that it replaces
	Changed bool   `json:"changed"` // it did not before
}

// ReplaceStore makes the store in dir replace the one with the id old: hosts of that one
// follow with their next request. It may run beside a live receiver. holder describes this
// process to others that wait for the lock.
func ReplaceStore(ctx context.Context, dir, old, holder string) (StoreChange, error) {
	return changeStore(ctx, dir, holder, func(name *StoreName) (string, error) {
		if name.ID == old {
			return old, fmt.Errorf("%s is this store: name the one that it replaces", old)
		}
		if !slices.Contains(name.Replaces, old) {
			name.replaceID(old)
		}
		return old, nil
	})
}

// RewindStore gives the store in dir a new id that replaces the present one, because its
// index was restored from an older state. A second call gives it another one, and hosts
// follow all the same: the index may have been restored again in between.
func RewindStore(ctx context.Context, dir string, holder string, now time.Time) (StoreChange, error) {
	return changeStore(ctx, dir, holder, func(name *StoreName) (string, error) {
		former := name.ID
		name.ID = newStoreName(now).ID
		name.replaceID(former)
		return former, nil
	})
}

// replaceID puts an id first on the list of those that the store replaces. The last ones are
// dropped if there are too many.
func (n *StoreName) replaceID(old string) {
	n.Replaces = slices.Insert(slices.Clone(n.Replaces), 0, old)
	n.Replaces = n.Replaces[:min(len(n.Replaces), wire.MaxReplaced)]
}

// changeStore changes the identity of the store under its lock.
func changeStore(ctx context.Context, dir, holder string, change func(*StoreName) (former string, err error)) (StoreChange, error) {
	data, err := durable.Open(dir)
	if err != nil {
		return StoreChange{}, err
	}
	defer data.Close()
	lock, err := data.WaitLock(ctx, storeLock, holder)
	if err != nil {
		return StoreChange{}, err
	}
	defer lock.Unlock()
	name, _, err := loadStoreName(data)
	if err == nil {
		err = name.checkHere(data)
	}
	if err != nil {
		return StoreChange{}, err
	}
	before := name
	former, err := change(&name)
	if err != nil {
		return StoreChange{}, err
	}
	changed := name.ID != before.ID || !slices.Equal(name.Replaces, before.Replaces)
	if changed {
		if err := name.save(data); err != nil {
			return StoreChange{}, err
		}
	}
	is, err := identifyStore(data, name)
	return StoreChange{Identity: is, Former: former, Changed: changed}, err
}
