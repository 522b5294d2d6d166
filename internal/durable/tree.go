package durable

import (
	"context"
	"errors"
)

// maxDepth bounds what [Dir.TreeBytes] and [Dir.RemoveTree] descend into.
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
	if err != nil {
		return 0, ignoreUnlessFault(err)
	}
	defer sub.Close()
	total := int64(0)
	for e, err := range sub.Names() {
		if err != nil {
			return total, ignoreUnlessFault(err)
		}
		st, err := sub.Lstat(e.Name())
		if err != nil {
			if err = ignoreUnlessFault(err); err != nil {
				return total, err
			}
			continue
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

// ignoreUnlessFault returns err if it is an [ErrFault], which ends the process, and else nil.
func ignoreUnlessFault(err error) error {
	if errors.Is(err, ErrFault) {
		return err
	}
	return nil
}
