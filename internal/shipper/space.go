package shipper

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"cis490/internal/episode"
	"cis490/internal/serviceuser"
)

// packingState says whether this host packs, by the space that it has.
type packingState int

// The states. Packing that was paused is tried again with each scan.
const (
	packingOn      packingState = iota
	packingRetried              // it was paused before this scan, and no episode was packed since
	packingPaused               // until the next scan
)

// afterScanStart returns the state when a scan starts.
func (p packingState) afterScanStart() packingState {
	if p == packingPaused {
		return packingRetried
	}
	return p
}

// afterPacked returns the state when an episode was packed. One that was being packed when
// packing was paused says nothing about the space.
func (p packingState) afterPacked() packingState {
	if p == packingRetried {
		return packingOn
	}
	return p
}

// isShort reports whether this host is short of space at the end of a scan: what waited for
// space at the last scan still waits.
func (p packingState) isShort(belowMinFree, outboxNearLimit bool) bool {
	return p == packingPaused || belowMinFree || p == packingRetried && outboxNearLimit
}

// pausePacking pauses packing until the next scan. Sending continues and frees space. It
// returns false if only this episode was too large for the space: others may fit.
func (d *dispatcher) pausePacking(r workResult) bool {
	if !d.belowMinFree() && !d.outboxNearLimit() {
		return false
	}
	if d.packing == packingOn {
		d.log.Warn("packing waits for space", "err", r.err)
	}
	d.packing = packingPaused
	d.countTransient(1)
	d.dropQueues(&d.toPack.small, &d.toPack.large)
	d.updateLowSpaceFile(true)
	return true
}

// belowMinFree reports whether free space is below min_free, whatever the cause.
func (d *dispatcher) belowMinFree() bool {
	free, err := d.out.Dir().FreeBytes()
	return err == nil && free < int64(d.cfg.MinFree)
}

// outboxNearLimit reports whether the outbox is so full that packing most episodes would
// fail.
func (d *dispatcher) outboxNearLimit() bool {
	limit := int64(d.cfg.OutboxMax)
	return limit > 0 && d.out.Bytes() > limit/2
}

// updateLowSpaceFile creates or removes the file that says that this host is short of space.
// It is a hint for the experiment queue, so a power loss may revert it.
func (d *dispatcher) updateLowSpaceFile(short bool) {
	path := string(d.cfg.LowSpaceFile)
	if path == "" {
		return
	}
	update := removeLowSpaceFile
	if short {
		update = writeLowSpaceFile
	}
	if err := update(path); err != nil {
		d.log.Warn("low_space_file not updated", "err", err)
	}
}

// spaceCheckInterval is how often the free space is checked while episodes wait for it.
const spaceCheckInterval = 5 * time.Second

// minSpaceGrowth is by how much the space must have grown for another try.
const minSpaceGrowth = 1 << 20

// checkSpace resumes packing when there is space again.
func (d *dispatcher) checkSpace(now time.Time) {
	if !d.waitsForSpace() || now.Before(d.spaceCheckedAt.Add(spaceCheckInterval)) {
		return
	}
	d.spaceCheckedAt = now
	if d.packing == packingPaused && d.scanDone && !d.belowMinFree() && !d.outboxNearLimit() {
		d.restartScan()
	}
	if !d.anyHostFull {
		return
	}
	d.anyHostFull = false
	free := d.transfers.FreeForPacking()
	d.updateBackoffs(func(_ episode.Name, b backoff) backoff {
		if b.fault != hostFull {
			return b
		}
		d.anyHostFull = true
		if growth := free - b.free; growth >= minSpaceGrowth && (free >= b.needed || growth >= b.free/4) {
			b.retryAt = earliestTime(b.retryAt, now)
		}
		return b
	})
}

// waitsForSpace reports whether an episode waits for space on this host.
func (d *dispatcher) waitsForSpace() bool {
	return !d.once && (d.packing == packingPaused || d.anyHostFull)
}

// The directory of the low-space file may belong to the experiments' user, who can put anything
// there and replace it at any time. So the file is only created or unlinked by its name in a
// directory that is held open. An existing file is not opened: it could be a FIFO, have a lease, or
// be a hard link to another file.

// lowSpaceText is for people. The queue checks only whether the file exists.
const lowSpaceText = "the shipper has no space to pack episodes\n"

// writeLowSpaceFile makes sure that a regular file exists at path. On a full disk it may be empty.
func writeLowSpaceFile(path string) error {
	dir, err := serviceuser.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(path)
	f, err := dir.Create(name, 0o644) // for every user, whatever the umask
	if errors.Is(err, fs.ErrExist) {
		st, err := dir.Lstat(name)
		if err == nil && !st.IsRegular() {
			err = fmt.Errorf("%s is not a regular file: remove it", path)
		}
		return err
	}
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(lowSpaceText))
	return errors.Join(err, f.Close())
}

// removeLowSpaceFile removes the file at path, if there is one.
func removeLowSpaceFile(path string) error {
	dir, err := serviceuser.OpenDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Unlink(filepath.Base(path))
}
