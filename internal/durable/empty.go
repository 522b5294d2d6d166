package durable

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// passes bounds how often [Dir.Empty] looks through the directory: somebody may
// go on making what it removes.
const passes = 10_000

// Empty removes all that is in d, however deep, and follows neither links nor
// mounts: what they lead to stays. It holds two directories open and a few names
// in memory, whatever there is: a directory that is found in another is moved up
// into d, to be removed as one of its own. Nothing is synced; what a power cut
// brings back is removed the next time. What cannot be removed is left where it
// is, others go, and the first such error is returned.
func (d *Dir) Empty(ctx context.Context) error {
	for range passes {
		removed, left := 0, error(nil)
		for e, err := range d.Names() {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := d.discard(e.Name())
			removed += n
			if err != nil && left == nil {
				left = err
			}
		}
		if removed == 0 {
			return left
		}
	}
	return fmt.Errorf("%s does not become empty: somebody goes on writing to it", d.f.Name())
}

// discard removes one name, or the files of a directory, and returns how much
// less there is for it.
func (d *Dir) discard(name string) (int, error) {
	err := unix.Unlinkat(d.fd(), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return 1, nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return 0, failed("remove", d.Path(name), err)
	}
	sub, err := d.openBeneath(name)
	if err != nil {
		return 0, err
	}
	defer sub.Close()
	unix.Fchmod(sub.fd(), 0o700) // ours may be read-only; of others it is for them to say
	n, err := sub.spill(d)
	if rm := unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR); rm == nil || errors.Is(rm, unix.ENOENT) {
		return n + 1, nil
	} else if err == nil && n == 0 {
		err = failed("remove", d.Path(name), rm)
	}
	return n, err
}

// spill removes the files of d and moves its directories to another one.
func (d *Dir) spill(to *Dir) (n int, first error) {
	for e, err := range d.Names() {
		if err != nil {
			return n, err
		}
		err = unix.Unlinkat(d.fd(), e.Name(), 0)
		if errors.Is(err, unix.EISDIR) {
			// A mount point is busy, and is not moved.
			err = unix.Renameat2(d.fd(), e.Name(), to.fd(), rand.Text(), unix.RENAME_NOREPLACE)
		}
		if err == nil || errors.Is(err, unix.ENOENT) {
			n++
			continue
		}
		if first == nil {
			first = failed("remove", d.Path(fmt.Sprintf("%+q", e.Name())), err)
		}
	}
	return n, first
}

// maxDepth bounds what [Dir.TreeBytes] descends into.
const maxDepth = 256

// TreeBytes returns how many bytes of the disk the directory name and all in it
// take. Links and mounts are not followed, and what cannot be read, or lies very
// deep, is not counted.
func (d *Dir) TreeBytes(ctx context.Context, name string) (int64, error) {
	return d.treeBytes(ctx, name, maxDepth)
}

func (d *Dir) treeBytes(ctx context.Context, name string, depth int) (int64, error) {
	if err := ctx.Err(); err != nil || depth == 0 {
		return 0, err
	}
	sub, err := d.openBeneath(name)
	if errors.Is(err, ErrFault) {
		return 0, err
	}
	if err != nil {
		return 0, nil
	}
	defer sub.Close()
	total := int64(0)
	for e, err := range sub.Names() {
		if err != nil {
			return total, err
		}
		st, err := sub.Lstat(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return total, err
		}
		total += st.st.Blocks * 512
		if st.IsDir() {
			below, err := sub.treeBytes(ctx, e.Name(), depth-1)
			if err != nil {
				return total, err
			}
			total += below
		}
	}
	return total, nil
}
