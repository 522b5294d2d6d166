package s3backend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/index"
)

const (
	episodesPrefix = "episodes/"
	commitsPrefix  = "commits/"
)

// commit says which archive has a key. It never changes.
type commit struct {
	generation int
	row        index.Row // as proposed: its time may be before that of the row in the index
	object     string    // the archive
	since      int64     // no batch up to this one has the row
	offset     int64     // of the row in the index of the disk from which it was copied, or notCopied
}

// notCopied is the offset of a commit that a receiver has made.
const notCopied = -1

// commitObject is the content of the object.
type commitObject struct {
	Row    json.RawMessage `json:"row"`
	Object string          `json:"object"`
	Since  int64           `json:"since"`
	Offset *int64          `json:"offset,omitempty"`
}

const (
	// maxCommit is the maximum size of a commit, and maxGenerations of how many commits a key can
	// have: one more for each time that its archive was found corrupt.
	maxCommit      = 4 << 10
	maxGenerations = 1000
)

// archiveName returns the name of an archive. A repaired one does not have the name of the corrupt one.
func archiveName(key episode.Key, d digest.Digest, generation int) string {
	name := fmt.Sprintf("%s%s/%s/%s", episodesPrefix, key.Host, key.Name, d)
	if generation > 1 {
		name += fmt.Sprintf(".%d", generation)
	}
	return name + ".tar.zst"
}

func commitName(key episode.Key, generation int) string {
	return fmt.Sprintf("%s%s/%s/%d.json", commitsPrefix, key.Host, key.Name, generation)
}

// newestCommit returns the commit of a key with the highest generation, or an error wrapping
// [fs.ErrNotExist] if it has none.
func (b *Backend) newestCommit(ctx context.Context, key episode.Key) (commit, error) {
	newest, err := b.readCommit(ctx, key, 1)
	for err == nil && newest.generation < maxGenerations {
		next, nextErr := b.readCommit(ctx, key, newest.generation+1)
		if errors.Is(nextErr, fs.ErrNotExist) {
			break
		}
		newest, err = next, nextErr
	}
	return newest, err
}

func (b *Backend) readCommit(ctx context.Context, key episode.Key, generation int) (commit, error) {
	name := commitName(key, generation)
	r, _, err := b.bucket.Open(ctx, name)
	if err != nil {
		return commit{}, &commitError{fmt.Errorf("open %s: %w", name, err)}
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxCommit))
	if err != nil {
		return commit{}, &commitError{fmt.Errorf("read %s: %w", name, err)}
	}
	c, err := parseCommit(body, key, generation)
	if err != nil {
		return commit{}, &commitError{fmt.Errorf("%s is not a commit: %w; something else writes to this bucket, or the object store returns wrong bytes", name, err)}
	}
	return c, nil
}

// A commitError says that a commit cannot be read.
type commitError struct{ err error }

func (e *commitError) Error() string { return e.err.Error() }

func (e *commitError) Unwrap() error { return e.err }

func parseCommit(body []byte, key episode.Key, generation int) (commit, error) {
	var o commitObject
	if err := json.Unmarshal(body, &o); err != nil {
		return commit{}, err
	}
	row, err := index.ParseRow(o.Row)
	switch {
	case err != nil:
		return commit{}, err
	case row.Key != key:
		return commit{}, errors.New("it is for another episode")
	case o.Since < 0:
		return commit{}, fmt.Errorf("since is %d", o.Since)
	case !strings.HasPrefix(o.Object, archiveDir(key)):
		return commit{}, errors.New("its archive is in another directory")
	}
	c := commit{generation, row, o.Object, o.Since, notCopied}
	if o.Offset != nil {
		c.offset = *o.Offset
	}
	return c, nil
}

func archiveDir(key episode.Key) string {
	return fmt.Sprintf("%s%s/%s/", episodesPrefix, key.Host, key.Name)
}

// createCommit creates a commit, or returns an error wrapping [fs.ErrExist] if its generation has
// one.
func (b *Backend) createCommit(ctx context.Context, c commit) error {
	o := commitObject{Row: bytes.TrimSpace(c.row.Append(nil)), Object: c.object, Since: c.since}
	if c.offset != notCopied {
		o.Offset = &c.offset
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	name := commitName(c.row.Key, c.generation)
	if err := b.bucket.Create(ctx, name, bytes.NewReader(body), int64(len(body)), sha256.Sum256(body)); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

// ensureRow makes sure that the index has the row of a commit, and returns it as it was written.
func (b *Backend) ensureRow(ctx context.Context, c commit) (index.Row, error) {
	return b.index.Ensure(ctx, c.row, c.since)
}
