package batchlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
)

// Copy is a copy of the index in a file, for readers that know index.jsonl. It only grows, and has
// the same bytes wherever it is made. One process at a time may extend it.
//
// A file beside it says how many batches it has, and how many archives of each host. It is written
// after the rows, and not for each batch, so a crash leaves a copy that is longer than the file says.
// What is beyond is compared with the batches that follow, and completed.
type Copy struct {
	dir  *durable.Dir
	name string
	log  *durable.Log

	mu      sync.Mutex // guards the fields below
	state   copyState
	savedAt time.Time // when the file was last written
}

// copyState is the content of the file beside the copy.
type copyState struct {
	Store string `json:"store"` // its id
	Next  int64  `json:"next"`  // the number of the first batch that is not in the copy
	Bytes int64  `json:"bytes"` // in the batches before
	// Archives is the number of rows of each host in these, without those of repaired archives.
	Archives map[episode.Name]int64 `json:"archives"`
	// ArchiveBytes is the sum of the sizes of these archives. Nil: a former version began the copy.
	ArchiveBytes *int64 `json:"archive_bytes,omitempty"`
}

// maxCopyState is the maximum size of the file, and saveInterval how often it is written while
// batches are added.
const (
	maxCopyState = 16 << 20
	saveInterval = time.Second
)

// CopyStateName returns the name of the file beside a copy.
func CopyStateName(name string) string {
	return "." + strings.TrimSuffix(name, suffix) + ".copied.json"
}

// ErrOtherFile says that a file is not a copy of the index, or one of another store.
var ErrOtherFile = errors.New("is not a copy of this index; move it away, and it is copied anew")

// OpenCopy opens the copy called name in dir of the index of a store, and creates it if it is missing.
// It returns an error wrapping [ErrOtherFile] if there is a file that is not such a copy.
func OpenCopy(dir *durable.Dir, name, store string) (*Copy, error) {
	c := &Copy{dir: dir, name: name, state: copyState{Store: store, Next: 1}}
	log, err := dir.OpenLog(name, 0o640)
	if err != nil {
		return nil, err
	}
	c.log = log
	if err := c.load(store); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return c, nil
}

// load reads the file beside the copy. For an empty copy it writes one, so that a file without it is
// not a copy.
func (c *Copy) load(store string) error {
	size, err := c.log.Size()
	if err != nil {
		return err
	}
	b, err := readState(c.dir, CopyStateName(c.name))
	missing := errors.Is(err, fs.ErrNotExist)
	if err == nil {
		err = json.Unmarshal(b, &c.state)
	}
	if c.state.Archives == nil {
		c.state.Archives = make(map[episode.Name]int64)
	}
	path := c.dir.Path(c.name)
	switch {
	case missing && size == 0:
		c.state.ArchiveBytes = new(int64)
		return c.save()
	case missing:
		return fmt.Errorf("%s %w", path, ErrOtherFile)
	case err != nil:
		return fmt.Errorf("read %s: %w", c.dir.Path(CopyStateName(c.name)), err)
	case c.state.Store != store || c.state.Next < 1 || c.state.Bytes < 0:
		return fmt.Errorf("%s %w: it is of the store %q, and this is %q", path, ErrOtherFile, c.state.Store, store)
	case size < c.state.Bytes:
		return fmt.Errorf("%s %w: it has %d bytes, and had %d", path, ErrOtherFile, size, c.state.Bytes)
	}
	return nil
}

func readState(dir *durable.Dir, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return durable.ReadAtMost(f, name, maxCopyState)
}

// CopyStatus says what a copy has.
type CopyStatus struct {
	Batches    int64
	IndexBytes int64 // in these
	Archives   int64
	Bytes      *int64 // of the archives; nil if that is unknown
}

// InspectCopy returns what the copy called name in dir has. It may run while another process extends it.
func InspectCopy(dir *durable.Dir, name string) (CopyStatus, error) {
	var s copyState
	b, err := readState(dir, CopyStateName(name))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	status := CopyStatus{Batches: max(s.Next-1, 0), IndexBytes: s.Bytes, Bytes: s.ArchiveBytes}
	for _, n := range s.Archives {
		status.Archives += n
	}
	return status, err
}

// Close closes the file.
func (c *Copy) Close() error { return c.log.Close() }

// Next returns the number of the first batch that is not in the copy.
func (c *Copy) Next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Next
}

// CountArchives returns how many archives of a host the copy has rows of.
func (c *Copy) CountArchives(host episode.Name) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Archives[host]
}

// CatchUp adds the batches that the copy does not have, and makes them durable. progress, unless nil,
// is called with the number of bytes of each. It must not be called twice at the same time.
func (c *Copy) CatchUp(ctx context.Context, from bucket.Bucket, progress func(bytes int)) error {
	return c.addFrom(func(n int64) ([]index.Row, []byte, int64, error) { return readFrom(ctx, from, n) }, progress)
}

// CatchUpTo adds the batches that a log of the same bucket knows, as [Copy.CatchUp] does. It requests only
// those that the log no longer has in memory.
func (c *Copy) CatchUpTo(ctx context.Context, l *Log) error {
	return c.addFrom(func(n int64) ([]index.Row, []byte, int64, error) { return l.readFrom(ctx, n) }, nil)
}

// addFrom adds the batches that read returns until the log ends. read is like [readFrom].
func (c *Copy) addFrom(read func(n int64) (rows []index.Row, body []byte, end int64, err error), progress func(bytes int)) error {
	added := false
	for {
		rows, body, end, err := read(c.Next())
		if isEnd(err) {
			break
		}
		if err == nil {
			err = c.add(rows, body, end+1)
		}
		if err != nil {
			return err
		}
		added = true
		if progress != nil {
			progress(len(body))
		}
	}
	if !added {
		return nil
	}
	return c.save()
}

// add adds the rows of the batches up to next, while no other process does.
func (c *Copy) add(rows []index.Row, body []byte, next int64) error {
	if err := c.log.Lock(); err != nil {
		return err
	}
	if err := errors.Join(c.appendLocked(body), c.log.Unlock()); err != nil {
		return err
	}
	c.mu.Lock()
	c.state.Next = next
	c.state.Bytes += int64(len(body))
	for _, row := range rows {
		if row.Repaired {
			continue
		}
		c.state.Archives[row.Key.Host]++
		if c.state.ArchiveBytes != nil {
			*c.state.ArchiveBytes += row.Size
		}
	}
	due := time.Since(c.savedAt) >= saveInterval
	c.mu.Unlock()
	if !due {
		return nil
	}
	return c.save()
}

// appendLocked appends what is not in the file yet. The caller must hold the lock of the log.
func (c *Copy) appendLocked(body []byte) error {
	size, err := c.log.Size()
	if err != nil {
		return err
	}
	written := make([]byte, max(0, min(size-c.state.Bytes, int64(len(body))))) // before a crash
	if _, err := c.log.ReadAt(written, c.state.Bytes); err != nil && len(written) > 0 {
		return err
	}
	if !bytes.HasPrefix(body, written) || size < c.state.Bytes {
		return fmt.Errorf("%s %w: the row at %d is another one", c.dir.Path(c.name), ErrOtherFile, c.state.Bytes)
	}
	if len(written) == len(body) {
		return nil
	}
	return c.appendRows(body[len(written):])
}

// maxAppend is how much is appended at once. The log expects no more.
const maxAppend = 256 << 10

// appendRows appends rows, of which each is durable before the next ones.
func (c *Copy) appendRows(rows []byte) error {
	for len(rows) > 0 {
		n := len(rows)
		if n > maxAppend {
			n = bytes.LastIndexByte(rows[:maxAppend], '\n') + 1
		}
		if n == 0 {
			return errors.New("a row is too long")
		}
		if err := c.log.Append(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// save writes the file beside the copy.
func (c *Copy) save() error {
	c.mu.Lock()
	b, err := json.Marshal(c.state)
	c.savedAt = time.Now()
	c.mu.Unlock()
	if err == nil {
		err = c.dir.WriteFile(CopyStateName(c.name), b, 0o640)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", c.dir.Path(CopyStateName(c.name)), err)
	}
	return nil
}
