package admission

import (
	"math"
	"sync"

	"cis490/internal/episode"
)

// Space is what is available on a file system.
type Space struct {
	Bytes  int64
	Inodes int64 // [math.MaxInt64] where the file system has no limit
}

// FloorOf returns the number of inodes that stay free of total: want, but at most an
// eighth, so that a small file system is of use.
func FloorOf(want, total int64) int64 { return min(want, total/8) }

// What a file takes of a file system in addition to its bytes.
const (
	blockSize = 4 << 10
	inodeSize = 512

	// inodesPerFile is reserved for a new file: it may be the first of its host, for
	// which two directories are created.
	inodesPerFile = 3
)

// FileCost returns what a file of a size takes of its host's quota: its blocks and its
// inode, at least 4 KiB.
func FileCost(size int64) int64 {
	if size > math.MaxInt64-blockSize-inodeSize {
		return math.MaxInt64
	}
	blocks := (size + blockSize - 1) / blockSize
	return max(blocks*blockSize+inodeSize, blockSize)
}

// Disk reserves space above a floor before uploads use it, so that several cannot fill
// the disk together.
type Disk struct {
	available func() (Space, error)
	quota     *Quota

	mu       sync.Mutex
	reserved Space // guarded by mu; not used yet
}

// NewDisk returns the budget of a file system. available returns what is free above its
// floors. Reservations count against quota as well.
func NewDisk(available func() (Space, error), quota *Quota) *Disk {
	return &Disk{available: available, quota: quota}
}

// SpaceLeft returns what may still be reserved for a host.
func (d *Disk) SpaceLeft(host episode.Name) (Space, error) {
	hostLeft, err := d.quota.bytesLeft(host)
	if err != nil {
		return Space{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	left, err := d.leftLocked()
	left.Bytes = min(left.Bytes, hostLeft)
	return left, err
}

func (d *Disk) leftLocked() (Space, error) {
	s, err := d.available()
	return Space{s.Bytes - d.reserved.Bytes, s.Inodes - d.reserved.Inodes}, err
}

// CheckReserve returns the refusal that [Disk.Reserve] would return now.
func (d *Disk) CheckReserve(host episode.Name, from, to int64) error {
	r, err := d.Reserve(host, from, to)
	if err == nil {
		r.Release()
	}
	return err
}

// Reserve reserves the space for a host's file that has from bytes, 0 if it does not
// exist yet, and is to have to. It returns a [*RefusedError] if there is not enough.
func (d *Disk) Reserve(host episode.Name, from, to int64) (*Reservation, error) {
	r := &Reservation{disk: d, host: host, from: from, to: to, size: from, left: spaceFor(from, to)}
	if err := d.quota.reserveBytes(host, r.quotaCost(to)); err != nil {
		return nil, err
	}
	if err := d.reserveSpace(r.left); err != nil {
		d.quota.releaseBytes(host, r.quotaCost(to), 0)
		return nil, err
	}
	return r, nil
}

// spaceFor returns what a file takes of the disk that grows from one size to another.
func spaceFor(from, to int64) Space {
	if from > 0 {
		return Space{Bytes: FileCost(to) - FileCost(from)}
	}
	return Space{Bytes: FileCost(to), Inodes: inodesPerFile}
}

func (d *Disk) reserveSpace(n Space) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	left, err := d.leftLocked()
	switch {
	case err != nil:
		return err
	case n.Inodes > left.Inodes:
		return noSpace("the receiver's disk has no free inodes above min_free_inodes: it holds too many files")
	case n.Bytes > left.Bytes:
		return noSpace("the receiver's disk has no space above min_free")
	}
	d.reserved.Bytes += n.Bytes
	d.reserved.Inodes += n.Inodes
	return nil
}

// Reservation is what one upload may write. It must be released.
type Reservation struct {
	disk     *Disk
	host     episode.Name
	from, to int64 // sizes of the file
	size     int64 // that it has
	left     Space // not used yet
}

// quotaCost is what the file takes of the quota at a size, beyond what it took before.
func (r *Reservation) quotaCost(size int64) int64 {
	return spaceFor(r.from, size).Bytes
}

// RecordWritten notes that n bytes more are written: the file system counts them now.
func (r *Reservation) RecordWritten(n int64) {
	r.size += n
	r.consumeSpace(Space{Bytes: n})
}

func (r *Reservation) consumeSpace(n Space) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	r.disk.reserved.Bytes -= n.Bytes
	r.disk.reserved.Inodes -= n.Inodes
	r.left.Bytes -= n.Bytes
	r.left.Inodes -= n.Inodes
}

// Release returns what was not used.
func (r *Reservation) Release() {
	written := int64(0)
	if r.size > r.from || r.to == 0 {
		written = r.quotaCost(r.size)
	}
	r.disk.quota.releaseBytes(r.host, r.quotaCost(r.to), written)
	r.consumeSpace(r.left)
}

// NoSpace is the refusal of an upload that met a full disk. It names no path.
func NoSpace() *RefusedError { return noSpace("the receiver's disk is full") }

func noSpace(detail string) *RefusedError {
	return &RefusedError{Reason: DiskFull, Detail: detail, RetryAfter: fullRetryAfter}
}
