package datadir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"cis490/internal/durable"
)

// copyLock is the lock of the process that copies the store.
const copyLock = ".copy.lock"

// MissingFile is the name of the file with the rows whose archives a bucket did not have when the store was
// copied from it. The next run looks for them again.
const MissingFile = "copy-missing.jsonl"

// LockCopy takes the lock that one copy of the store in data has at a time. A receiver may run.
func LockCopy(data *durable.Dir, holder string) (*durable.Lock, error) {
	return data.Lock(copyLock, holder)
}

// awayVersion is the schema_version of a store that is elsewhere. Receivers before 2026-11-30 refuse it.
const awayVersion = 2

// A MovedError says that the store of a data directory is elsewhere, or not complete yet. A receiver
// with this directory must not acknowledge anything: the other one does not learn of it.
type MovedError struct {
	Dir        string
	MovedTo    string // where the store is
	CopiedFrom string // unless MovedTo: the store is being copied from there
}

func (e *MovedError) Error() string {
	if e.MovedTo != "" {
		return fmt.Sprintf("the store in %s has moved to %s: start the receivers there; "+
			"to move it back, run 'receiver store copy --to disk --final' with the configuration of such a receiver", e.Dir, e.MovedTo)
	}
	return fmt.Sprintf("the store in %s is not complete: it is being copied from %s; "+
		"'receiver store copy --to disk --final' completes it", e.Dir, e.CopiedFrom)
}

func (n StoreName) isAway() bool { return n.MovedTo != "" || n.CopiedFrom != "" }

// checkHere returns a [*MovedError] if the store is elsewhere.
func (n StoreName) checkHere(data *durable.Dir) error {
	if !n.isAway() {
		return nil
	}
	return &MovedError{Dir: data.Path(""), MovedTo: n.MovedTo, CopiedFrom: n.CopiedFrom}
}

// CheckHere returns a [*MovedError] if the store of the directory dir is elsewhere. Other errors are for
// those who use the store.
func CheckHere(dir string) error {
	data, err := durable.Open(dir)
	if err != nil {
		return nil
	}
	defer data.Close()
	name, _, err := loadStoreName(data)
	if err != nil {
		return nil
	}
	return name.checkHere(data)
}

// ReadStore returns the identity of the store in data. The error wraps [fs.ErrNotExist] if there is none.
func ReadStore(data *durable.Dir) (StoreName, error) {
	name, _, err := loadStoreName(data)
	return name, err
}

// MoveAway records, durably, that the store in data with an id is at another place, in a copy with an id of
// its own. It returns the identity that the store takes along, and an error if the store has got another id
// meanwhile. The caller must hold the lock of the directory.
func MoveAway(ctx context.Context, data *durable.Dir, id, to, copyID, holder string) (StoreName, error) {
	return changeAway(ctx, data, holder, func(name *StoreName) error {
		if name.ID != id {
			return fmt.Errorf("the store has got the id %s meanwhile, and the copy has %s: copy it into another place", name.ID, id)
		}
		name.Version, name.MovedTo, name.MovedCopy, name.CopiedFrom = awayVersion, to, copyID, ""
		name.CopyID = "" // the next copy into this directory is another one
		return nil
	})
}

// changeAway changes the identity under the lock of the commands that change it.
func changeAway(ctx context.Context, data *durable.Dir, holder string, change func(*StoreName) error) (name StoreName, err error) {
	lock, err := data.WaitLock(ctx, storeLock, holder)
	if err != nil {
		return name, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if name, err = ReadStore(data); err != nil {
		return name, err
	}
	if err := change(&name); err != nil {
		return name, err
	}
	return name, name.save(data)
}

// BeginCopy records that the store with an id is copied into data from another place, unless data has it
// and it has moved there. It returns an error if data has another store, or this one and it is in use or has
// moved elsewhere: the place that is copied from may be one that the store has left. The caller must hold the
// lock of the directory.
func BeginCopy(data *durable.Dir, id string, createdAt time.Time, from string) (StoreName, error) {
	name, err := ReadStore(data)
	switch {
	case err == nil && name.ID != id:
		return name, fmt.Errorf("%s has the store %s already, and not %s: use another data_dir", data.Path(""), name.ID, id)
	case err == nil && !name.isAway():
		return name, fmt.Errorf("%s has the store %s already, and it is in use there", data.Path(""), id)
	case err == nil && name.MovedTo != "" && name.MovedTo != from:
		return name, fmt.Errorf("the store in %s has moved to %s, and not to %s: copy it from where it is now; "+
			"if it has moved on from there, use an empty data_dir", data.Path(""), name.MovedTo, from)
	case err == nil && name.CopyID == "":
		name.CopyID = rand.Text()
		return name, name.save(data)
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		return name, err
	}
	name = StoreName{Version: awayVersion, ID: id, CreatedAt: createdAt, Replaces: []string{}, CopiedFrom: from, CopyID: rand.Text()}
	return name, name.save(data)
}

// EndCopy records that the copy in data is the store, with the ids that it replaces. ids are those that it got
// because it was lost at other places, the newest first: a place that was lost may come back, and a host must not
// take one for the other. They replace each other, as by [RewindStore]. The caller must hold the lock of the
// directory.
func EndCopy(ctx context.Context, data *durable.Dir, replaces, ids []string, holder string) (StoreName, error) {
	return changeAway(ctx, data, holder, func(name *StoreName) error {
		name.Version, name.MovedTo, name.MovedCopy, name.CopiedFrom = 1, "", "", ""
		name.Replaces = append([]string{}, replaces...)
		for _, id := range slices.Backward(ids) {
			name.replaceID(name.ID)
			name.ID = id
		}
		return nil
	})
}
