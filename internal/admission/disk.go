package admission

import (
	"sync"

	"cis490/internal/episode"
)

// Disk reserves the free bytes above a floor before uploads write them, so that
// several cannot fill the disk together.
type Disk struct {
	free  func() (int64, error)
	floor int64
	quota *Quota

	mu       sync.Mutex
	reserved int64 // guarded by mu; not written yet
}

// NewDisk returns the budget of a file system that has free bytes and keeps floor of
// them. Reservations count against quota as well.
func NewDisk(free func() (int64, error), floor int64, quota *Quota) *Disk {
	return &Disk{free: free, floor: floor, quota: quota}
}

// Left returns how much may still be reserved for a host, and the refusal for one
// that wants more.
func (d *Disk) Left(host episode.Name) (left int64, refusal *RefusedError, err error) {
	hostLeft, err := d.quota.left(host)
	if err != nil {
		return 0, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if left, err = d.leftLocked(); hostLeft < left {
		return hostLeft, overQuota(), err
	}
	return left, NoSpace(), err
}

func (d *Disk) leftLocked() (int64, error) {
	free, err := d.free()
	return free - d.reserved - d.floor, err
}

// Reserve reserves n bytes for a host, or returns a [*RefusedError].
func (d *Disk) Reserve(host episode.Name, n int64) (*Reservation, error) {
	if err := d.quota.reserve(host, n); err != nil {
		return nil, err
	}
	if err := d.reserve(n); err != nil {
		d.quota.release(host, n, 0)
		return nil, err
	}
	return &Reservation{disk: d, host: host, size: n, left: n}, nil
}

func (d *Disk) reserve(n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	left, err := d.leftLocked()
	if err != nil {
		return err
	}
	if n > left {
		return NoSpace()
	}
	d.reserved += n
	return nil
}

// Reservation is what one upload may write. It must be released.
type Reservation struct {
	disk       *Disk
	host       episode.Name
	size, left int64
}

// Wrote notes that n of the bytes are written: the file system counts them now.
func (r *Reservation) Wrote(n int64) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	r.disk.reserved -= n
	r.left -= n
}

// Release returns what was not written.
func (r *Reservation) Release() {
	r.disk.quota.release(r.host, r.size, r.size-r.left)
	r.Wrote(r.left)
}

// NoSpace is the refusal of an upload for which the disk has no space. It names no
// path.
func NoSpace() *RefusedError {
	return &RefusedError{Reason: DiskFull, Detail: "no space above the floor", RetryAfter: fullRetry}
}
