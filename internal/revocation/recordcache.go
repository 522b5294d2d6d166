package revocation

import (
	"crypto/x509"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/pki"
)

// RecordCache keeps the certificates on record between two lists. A record is never changed, so what was
// read of a directory is right until a name is added or removed. The zero value is empty.
type RecordCache struct {
	mu   sync.Mutex
	dirs map[string]cachedRecords // by path
}

// uncached always reads.
var uncached *RecordCache

type cachedRecords struct {
	state dirState
	certs []*x509.Certificate
}

// dirState changes with each change of a directory that is not too close to the one before.
type dirState struct {
	device, inode uint64
	mtime, ctime  unix.Timespec
}

// minDirAge is the age from which the times of a directory show any further change: the kernel's clock for
// them ticks every 10 ms or faster.
const minDirAge = 200 * time.Millisecond

func stateOf(record *pki.Dir) (dirState, time.Time, error) {
	st, err := record.Dir.Stat()
	if err != nil {
		return dirState{}, time.Time{}, err
	}
	mtime, ctime := st.Times()
	return dirState{st.Device(), st.Inode(), mtime, ctime}, st.ChangedAt(), nil
}

// read returns what read reads of a directory, which is at path, unless the directory is as it was at an
// earlier call. It keeps nothing of a directory that cannot be read in full. A nil cache always reads.
func (c *RecordCache) read(path string, record *pki.Dir, read func() ([]*x509.Certificate, error)) ([]*x509.Certificate, error) {
	if c == nil {
		return read()
	}
	state, changed, err := stateOf(record)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, found := c.dirs[path]; found && kept.state == state {
		return kept.certs, nil
	}
	delete(c.dirs, path)
	old := time.Since(changed) > minDirAge
	certs, err := read()
	if err != nil || !old {
		return certs, err
	}
	if c.dirs == nil {
		c.dirs = make(map[string]cachedRecords)
	}
	c.dirs[path] = cachedRecords{state, certs}
	return certs, nil
}
