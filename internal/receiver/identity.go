package receiver

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/printable"
	"cis490/internal/wire"
)

// The name of the store in the data directory, and the lock of those who change it.
const (
	storeFile = "store.json"
	storeLock = ".store.lock"
)

// maxStoreBytes bounds the file: [wire.MaxReplaced] ids and what is around them.
const maxStoreBytes = 16 << 10

// ErrStoreFile says that the name of the store cannot be used. The receiver does not start
// then: under another name its hosts would take the store for another one.
var ErrStoreFile = errors.New("the name of the store cannot be used")

// storeName is the content of the file.
type storeName struct {
	Version   int       `json:"schema_version"` // 1
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Replaces  []string  `json:"replaces"`
	// BeganEmpty says that the store had neither rows nor archives when it got its first id.
	BeganEmpty bool `json:"began_empty,omitempty"`
}

func newStoreName(now time.Time) storeName {
	return storeName{Version: 1, ID: rand.Text(), CreatedAt: now.UTC().Truncate(time.Second), Replaces: []string{}}
}

// loadStoreName reads the name. The error wraps [fs.ErrNotExist] if there is none, and
// [ErrStoreFile] otherwise.
func loadStoreName(data *durable.Dir) (storeName, durable.Stat, error) {
	b, st, err := readTrusted(data, storeFile, maxStoreBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return storeName{}, st, err
	}
	var name storeName
	if err == nil {
		name, err = parseStoreName(b)
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%s: %w; restore this one file from a backup of the data directory", data.Path(storeFile), err)
	}
	if err != nil {
		return storeName{}, st, fmt.Errorf("%w: %w", ErrStoreFile, err)
	}
	return name, st, nil
}

// parseStoreName parses the content of the file. It accepts nothing that it does not
// understand.
func parseStoreName(b []byte) (storeName, error) {
	var name storeName
	if len(b) > maxStoreBytes {
		return name, fmt.Errorf("larger than %d bytes", maxStoreBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&name); err != nil {
		return storeName{}, fmt.Errorf("not valid JSON: \"%s\"", printable.Text(err.Error()))
	}
	if _, err := dec.Token(); err != io.EOF {
		return storeName{}, errors.New("there is something behind the JSON object")
	}
	if name.Version != 1 {
		return storeName{}, fmt.Errorf("schema_version is %d, not 1; a newer receiver may have written it", name.Version)
	}
	if err := (&wire.Store{ID: name.ID, Replaces: name.Replaces}).Check(); err != nil {
		return storeName{}, err
	}
	return name, nil
}

// save replaces the file. A power cut leaves the old name or the new one.
func (n storeName) save(data *durable.Dir) error {
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return data.WriteFile(storeFile, append(b, '\n'), 0o640)
}

// openIdentity reads the name of the store, and gives it one if it has none. A new store
// without rows and archives is told of loudly: its disk may not be mounted.
func (r *Receiver) openIdentity(now time.Time) error {
	name, at, err := loadStoreName(r.data)
	isNew := errors.Is(err, fs.ErrNotExist)
	empty, eerr := r.isEmpty()
	if eerr != nil {
		return eerr
	}
	if isNew {
		name = newStoreName(now)
		name.BeganEmpty = empty
		if err = name.save(r.data); err == nil {
			name, at, err = loadStoreName(r.data)
		}
	}
	if err != nil {
		return err
	}
	r.identity = &storeWatch{data: r.data, log: r.log, now: name, at: at}
	switch {
	case empty:
		r.log.Warn("a new, empty store", "store", name.ID, "data_dir", r.data.Path(""), "hint", "is the right disk mounted? hosts with episodes in another store do not ship to this one until 'receiver store replaces'")
	case isNew:
		r.log.Info("store has an id now", "store", name.ID,
			"hint", "if hosts call it another store, run 'receiver store replaces OLD-ID' with the id that they name")
	}
	return nil
}

// newFor is how long a status tells of a store as new that began empty: a host that does
// not adopt it may have left an archive in it.
const newFor = 24 * time.Hour

// isNew reports whether the store began empty, lately, and nobody has said since that it
// replaces another one.
func (n storeName) isNew(now time.Time) bool {
	age := now.Sub(n.CreatedAt)
	return n.BeganEmpty && len(n.Replaces) == 0 && age >= 0 && age < newFor
}

// isEmpty reports whether the store has neither a row nor an archive.
func (r *Receiver) isEmpty() (bool, error) {
	if r.index.DurableBytes() > 0 {
		return false, nil
	}
	for host, err := range r.store.Hosts() {
		if err != nil {
			continue // not ours, or not to be looked at: the scrub says so
		}
		for _, err := range r.store.Host(host) {
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Store names the store, for an answer to a host.
func (r *Receiver) Store() (wire.Store, error) {
	name, n := r.identity.current(), r.index.DurableBytes()
	tail, err := r.index.Tail(n)
	if err != nil {
		return wire.Store{}, r.failed(err)
	}
	return wire.Store{ID: name.ID, IndexBytes: n, IndexTail: tail, Replaces: name.Replaces}, nil
}

// Has reports whether this is the store that a host knew, or replaces it. An index that was
// restored from an older image may have grown since: its length alone does not tell.
func (r *Receiver) Has(known wire.Store) (bool, error) {
	name := r.identity.current()
	if known.ID != name.ID {
		return slices.Contains(name.Replaces, known.ID), nil
	}
	tail, err := r.index.Tail(known.IndexBytes)
	if err != nil {
		return false, r.failed(err)
	}
	return tail != "" && (known.IndexTail == "" || known.IndexTail == tail), nil
}

// storeWatch is the name as a running receiver sees it. A command changes the file, so
// each use compares its inode, size and times, as [disabledWatch] does.
type storeWatch struct {
	data *durable.Dir
	log  *slog.Logger

	mu     sync.Mutex // guards the fields below
	now    storeName
	at     durable.Stat // the file of now
	failed string       // why the file cannot be used; "" if it can
	readAt time.Time
}

// current returns the name that the file has now. A file that cannot be used any more
// changes nothing before the next start: the store in the open directory is the same.
func (w *storeWatch) current() storeName {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != "" && time.Since(w.readAt) < disabledRetry {
		return w.now
	}
	st, err := w.data.Lstat(storeFile)
	if err == nil && w.failed == "" && sameFile(st, w.at) {
		return w.now
	}
	name, at, err := loadStoreName(w.data)
	w.readAt = time.Now()
	if err != nil {
		msg := "the next start will fail"
		if errors.Is(err, fs.ErrNotExist) {
			msg = "the next start gives this store another id"
		}
		if w.failed != err.Error() {
			w.log.Error(msg, "err", err, "store", w.now.ID, "hint", "put "+storeFile+" back as it was, from a backup")
		}
		w.failed = err.Error()
		return w.now
	}
	if name.ID != w.now.ID || !slices.Equal(name.Replaces, w.now.Replaces) {
		w.log.Info("name of the store changed", "store", name.ID, "replaces", len(name.Replaces))
	}
	w.now, w.at, w.failed = name, at, ""
	return name
}

// Identity is what the data directory says of its store.
type Identity struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	// IndexBytes is the length of the index, in bytes.
	IndexBytes int64    `json:"index_bytes"`
	Empty      bool     `json:"empty"` // it has no row yet
	Replaces   []string `json:"replaces"`
	New        bool     `json:"new,omitempty"` // it began empty less than a day ago, and nobody has said what it replaces
}

// InspectStore returns the identity of the store of c. It writes nothing, and works beside
// a running receiver. The error wraps [fs.ErrNotExist] before the first start.
func InspectStore(c Config) (Identity, error) {
	data, err := durable.Open(string(c.DataDir))
	if err != nil {
		return Identity{}, err
	}
	defer data.Close()
	return inspectStore(data)
}

func inspectStore(data *durable.Dir) (Identity, error) {
	name, _, err := loadStoreName(data)
	if err != nil {
		return Identity{}, err
	}
	return identify(data, name)
}

func identify(data *durable.Dir, name storeName) (Identity, error) {
	st, err := data.Lstat(IndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = durable.Stat{}, nil
	}
	return Identity{
		ID: name.ID, CreatedAt: name.CreatedAt, IndexBytes: st.Size(), Empty: st.Size() == 0, New: name.isNew(time.Now()),
		Replaces: append([]string{}, name.Replaces...),
	}, err
}

// StoreChange is what [ReplaceStore] or [RewindStore] did.
type StoreChange struct {
	Identity
	Former  string `json:"former"`  // the id that it replaces
	Changed bool   `json:"changed"` // it did not before
}

// ReplaceStore makes the store of c replace the one called old: hosts of that one follow
// with their next request. It works beside a running receiver. Holder is what another
// command is told that has to wait for this one.
func ReplaceStore(ctx context.Context, c Config, old, holder string) (StoreChange, error) {
	return changeStore(ctx, c, holder, func(name *storeName, _ Identity) (string, error) {
		if name.ID == old {
			return old, fmt.Errorf("%s is this store: name the one that it replaces", old)
		}
		if !slices.Contains(name.Replaces, old) {
			name.replace(old)
		}
		return old, nil
	})
}

// RewindStore gives the store of c a new id, and makes it replace what it was: its index
// was rewound to an older state. Said twice it does so twice, and hosts follow all the same:
// nothing here tells whether the index was rewound again in between.
func RewindStore(ctx context.Context, c Config, holder string, now time.Time) (StoreChange, error) {
	return changeStore(ctx, c, holder, func(name *storeName, _ Identity) (string, error) {
		former := name.ID
		name.ID = newStoreName(now).ID
		name.replace(former)
		return former, nil
	})
}

// replace puts an id first on the list of those that the store replaces. The last ones are
// forgotten where there are too many.
func (n *storeName) replace(old string) {
	n.Replaces = slices.Insert(slices.Clone(n.Replaces), 0, old)
	n.Replaces = n.Replaces[:min(len(n.Replaces), wire.MaxReplaced)]
}

// changeStore changes the name of the store under its lock.
func changeStore(ctx context.Context, c Config, holder string, change func(*storeName, Identity) (former string, err error)) (StoreChange, error) {
	data, err := durable.Open(string(c.DataDir))
	if err != nil {
		return StoreChange{}, err
	}
	defer data.Close()
	lock, err := waitForLock(ctx, data, storeLock, holder)
	if err != nil {
		return StoreChange{}, err
	}
	defer lock.Unlock()
	name, _, err := loadStoreName(data)
	if err != nil {
		return StoreChange{}, err
	}
	is, err := identify(data, name)
	if err != nil {
		return StoreChange{}, err
	}
	before := name
	former, err := change(&name, is)
	if err != nil {
		return StoreChange{}, err
	}
	changed := name.ID != before.ID || !slices.Equal(name.Replaces, before.Replaces)
	if changed {
		if err := name.save(data); err != nil {
			return StoreChange{}, err
		}
	}
	is, err = identify(data, name)
	return StoreChange{Identity: is, Former: former, Changed: changed}, err
}
