// Package datadir has the files of the receiver's data directory that operators change
// beside a live receiver: the list of disabled hosts, and the identity of the store. It
// also has the lock of the directory.
//
// Invariant: a file that cannot be trusted, read or understood lets no host in, and is
// never replaced, unless it is a copy of what is in a bucket.
package datadir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"cis490/internal/printable"

	"cis490/internal/durable"
)

// IndexFile is the name of the index in the data directory.
const IndexFile = "index.jsonl"

// The locks of the data directory. Older programs take the second one only.
const (
	lockName       = ".receiver.lock"
	formerLockName = ".lock"
)

// Lock takes the lock of the data directory, or returns a [*durable.LockedError]. holder
// describes this process to others that want the lock.
func Lock(data *durable.Dir, holder string) (*durable.Lock, error) {
	return data.Lock(lockName, holder, formerLockName)
}

// Holder returns which process holds the lock of the data directory.
func Holder(data *durable.Dir) (string, durable.LockState, error) {
	return data.Holder(lockName, formerLockName)
}

// Layout describes the names that this package creates in the data directory.
func Layout() durable.Layout {
	return durable.Layout{
		{Match: durable.MatchNames(lockName, formerLockName), Perm: 0o600},
		{Match: durable.MatchNames(disabledLock), Perm: 0o600},
		{Match: durable.MatchNames(disabledFile, durable.TempName(disabledFile)), Perm: 0o640},
		{Match: durable.MatchNames(storeLock, copyLock), Perm: 0o600},
		{Match: durable.MatchNames(storeFile, durable.TempName(storeFile)), Perm: 0o640},
		{Match: durable.MatchNames(MissingFile, durable.TempName(MissingFile)), Perm: 0o640},
	}
}

// readTrusted reads a small file of the data directory that no other user can have written.
// It returns up to maxBytes+1 bytes, so that a larger file can be refused.
func readTrusted(data *durable.Dir, name string, maxBytes int64) ([]byte, durable.Stat, error) {
	f, err := data.Open(name)
	if err != nil {
		return nil, durable.Stat{}, err
	}
	defer f.Close()
	st, err := durable.StatFile(f)
	if err == nil {
		err = checkTrusted(data, st)
	}
	if err != nil {
		return nil, st, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	return b, st, err
}

// decodeJSON parses a file that must be one JSON object of at most maxBytes, with the
// schema_version 1. version must point to that member of into.
func decodeJSON(b []byte, maxBytes int, into any, version *int) error {
	return decodeJSONUpTo(1, b, maxBytes, into, version)
}

// decodeJSONUpTo is decodeJSON for a file format with the versions 1 to newest.
func decodeJSONUpTo(newest int, b []byte, maxBytes int, into any, version *int) error {
	if len(b) > maxBytes {
		return fmt.Errorf("larger than %d bytes", maxBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("not valid JSON: \"%s\"", printable.Text(err.Error()))
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("there is something after the JSON object")
	}
	if *version < 1 || *version > newest {
		return fmt.Errorf("schema_version is %d, not %d; a newer receiver may have written it", *version, newest)
	}
	return nil
}

// writeJSON replaces a file of the data directory.
func writeJSON(data *durable.Dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return data.WriteFile(name, append(b, '\n'), 0o640)
}

// checkTrusted returns an error if a user other than the receiver's and root may have
// written the file. It decides which hosts have access, and which store they trust.
func checkTrusted(data *durable.Dir, st durable.Stat) error {
	dir, err := data.Stat()
	if err != nil {
		return err
	}
	uid, _ := st.Owner()
	owner, _ := dir.Owner()
	switch {
	case !st.IsRegular():
		return errors.New("not a regular file")
	case uid != 0 && uid != owner && uid != os.Geteuid():
		return fmt.Errorf("it belongs to the user %d, not to the owner of the data directory", uid)
	case st.Perm()&0o022 != 0:
		return fmt.Errorf("others may write to it (mode %04o): check it, then run chmod go-w", st.Perm())
	}
	return nil
}

// isUnchanged reports whether a file was neither replaced nor changed between two calls of
// stat. A replacement has another inode: both exist when it gets its name.
func isUnchanged(a, b durable.Stat) bool {
	am, ac := a.Times()
	bm, bc := b.Times()
	return a.IsSameFile(b) && a.Size() == b.Size() && am == bm && ac == bc
}

// rereadInterval is the minimum time between two reads of a file that cannot be used.
const rereadInterval = time.Second
