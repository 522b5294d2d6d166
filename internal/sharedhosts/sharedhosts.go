// Package sharedhosts keeps in a bucket what several receivers must agree on about hosts: which of them
// are refused.
//
//	hosts/access/<version>.json   the list of disabled hosts; the highest version counts
//
// A [List] changes it: whoever wants to change version n creates version n+1, and the engine lets only
// one do so. A [Follower] reads new versions for a running receiver, and keeps a copy in its data
// directory.
//
// Invariant: no change is lost silently. Each version begins with all changes of the former one, and a
// change whose answer was lost is a success only once its version was read back.
package sharedhosts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/retry"
)

// accessPrefix begins the names of the versions of the list.
const accessPrefix = "hosts/access/"

const (
	// requestTimeout bounds a request, and changeTimeout a change, which repeats those that fail.
	requestTimeout = 5 * time.Second
	changeTimeout  = 30 * time.Second
	retryBase      = 100 * time.Millisecond
	retryCeiling   = 2 * time.Second
)

// ErrVersionMissing says that the bucket lacks a version of the list that it had before: it was removed,
// or the bucket was restored from a backup. What it has now may admit hosts that were disabled since.
var ErrVersionMissing = errors.New("the bucket lacks a version of the list of disabled hosts")

// List is the list of disabled hosts in a bucket. It is a [datadir.SharedList]. Versions are never
// removed: a process that has read an old one must not succeed in creating the next.
type List struct{ bucket bucket.Bucket }

// NewList returns the list in a bucket. It sends no request.
func NewList(in bucket.Bucket) *List { return &List{in} }

func accessName(version int64) string { return fmt.Sprintf("%s%010d.json", accessPrefix, version) }

// isAccessName reports whether a name is that of a version.
func isAccessName(name string) bool {
	var version int64
	_, err := fmt.Sscanf(name, accessPrefix+"%d.json", &version)
	return err == nil && name == accessName(version)
}

// Change implements [datadir.SharedList]. It needs a few requests, and more after conflicts and failures. It
// returns a [*batchlog.MovedError] if the store has left the bucket, and may have left this change behind.
func (l *List) Change(ctx context.Context, known datadir.SharedVersion, change func(next int64, newest []byte) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		number, newest, err := l.readNewest(ctx, known)
		if err == nil {
			next, err := change(number+1, newest)
			if err != nil || next == nil {
				return newest, err
			}
			switch created, err := l.create(ctx, number+1, next); {
			case err != nil:
				return nil, err
			case created:
				return next, l.checkHere(ctx)
			}
			known = datadir.SharedVersion{Number: number + 1} // of another process, which was faster
			continue
		}
		if errors.Is(err, ErrVersionMissing) || !retry.Sleep(ctx, retry.Backoff(retryBase, retryCeiling, attempt)) {
			return nil, err
		}
	}
}

// Newest returns the newest version and its number, or 0 if there is none.
func (l *List) Newest(ctx context.Context) (int64, []byte, error) {
	return l.readNewest(ctx, datadir.SharedVersion{})
}

// checkHere returns an error unless the store was in the bucket after a version was created. A copy reads the
// list after it has fenced the log, so otherwise the store may have left without that version.
func (l *List) checkHere(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		err := batchlog.CheckHere(ctx, l.bucket)
		if _, moved := errors.AsType[*batchlog.MovedError](err); moved || err == nil {
			return err
		}
		if !retry.Sleep(ctx, retry.Backoff(retryBase, retryCeiling, attempt)) {
			return fmt.Errorf("%w; the list was changed, but it is not known whether the store has moved meanwhile: repeat the command", err)
		}
	}
}

// create creates a version, and reports whether it did: another process may have been faster. If an
// answer is lost, the version is read, or created again: whichever request the engine serves first, the
// version is the same.
func (l *List) create(ctx context.Context, number int64, version []byte) (bool, error) {
	for attempt := 0; ; attempt++ {
		err := l.put(ctx, number, version)
		if err == nil {
			return true, nil
		}
		if errors.Is(err, bucket.ErrFull) {
			return false, err
		}
		if existing, rerr := l.read(ctx, number); rerr == nil {
			return bytes.Equal(existing, version), nil
		}
		if !retry.Sleep(ctx, retry.Backoff(retryBase, retryCeiling, attempt)) {
			return false, fmt.Errorf("%w; it is not known whether the list was changed: repeat the command", err)
		}
	}
}

func (l *List) put(ctx context.Context, number int64, version []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return l.bucket.Create(ctx, accessName(number), bytes.NewReader(version), int64(len(version)), sha256.Sum256(version))
}

// read returns a version. The error wraps [fs.ErrNotExist] if there is none.
func (l *List) read(ctx context.Context, number int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, _, err := l.bucket.Open(ctx, accessName(number))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	version, err := io.ReadAll(io.LimitReader(r, datadir.MaxDisabledBytes+1)) // parsing refuses a larger one
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", accessName(number), err)
	}
	return version, nil
}

// readNewest returns the newest version and its number, or 0 if there is none. known is a version that must
// still be there: an older list would give access to hosts that were disabled since.
func (l *List) readNewest(ctx context.Context, known datadir.SharedVersion) (int64, []byte, error) {
	newest, err := l.findNewest(ctx, known.Number)
	if err != nil || newest == 0 {
		return 0, nil, err
	}
	if newest == known.Number {
		version, err := l.readKnown(ctx, known)
		return newest, version, err
	}
	if known.Number > 0 {
		if _, err := l.readKnown(ctx, known); err != nil {
			return 0, nil, err
		}
	}
	version, err := l.read(ctx, newest)
	return newest, version, err
}

// readKnown returns a version that is known. The error wraps [ErrVersionMissing] if there is none, or
// another one of its number.
func (l *List) readKnown(ctx context.Context, known datadir.SharedVersion) ([]byte, error) {
	version, err := l.read(ctx, known.Number)
	if isMissing(err) || err == nil && !known.IsOf(version) {
		return nil, missingError(known.Number)
	}
	return version, err
}

// missingError says what to do about a version that is known here, and not in the bucket. Without the
// member, the copy counts as a list that was not shared before: see [datadir.HostList.Adopt].
func missingError(number int64) error {
	return fmt.Errorf("%w: %s is not the one that is known here; if the bucket was restored from a backup, do this on each receiver: "+
		"stop it, remove the line with \"version\" from disabled-hosts.json in data_dir, and start it", ErrVersionMissing, accessName(number))
}

// findNewest returns the number of the newest version.
func (l *List) findNewest(ctx context.Context, known int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	next := max(known, 1)
	for info, err := range l.bucket.List(ctx, accessPrefix, accessName(next-1)) {
		if err != nil {
			return 0, err
		}
		if !isAccessName(info.Name) {
			continue // something else put it there, and no receiver reads it
		}
		if info.Name != accessName(next) {
			return 0, fmt.Errorf("%w: there is %s and no %s", ErrVersionMissing, info.Name, accessName(next))
		}
		next++
	}
	if next == known {
		return 0, missingError(known)
	}
	return next - 1, nil
}

// isMissing reports whether a version does not exist.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
