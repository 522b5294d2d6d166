package archive

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Inspection says whether a tree can be deleted.
type Inspection struct {
	Marks
	// Files has the stamp of each entry that is not a directory, by inode. Hard links share one.
	Files map[uint64]Stamp
	// FirstSkip is the path of the first skipped entry, in printable ASCII. It is empty if there is
	// none.
	FirstSkip string
	// Obstacle is why this process could not delete the whole tree without loss, and what to do
	// about it, in printable ASCII. It is empty if no reason is known.
	Obstacle string

	skipped map[uint64]*skippedFile // skipped regular files, by inode
}

// skippedFile is a file that is in no archive. It may be deleted only if it has a name outside of
// the tree.
type skippedFile struct {
	path         string
	names, links int // number of names in the tree, and in all
}

// Stamp identifies the last change of a file. A write changes it, unless the clock is set back to
// the same nanosecond.
type Stamp struct {
	Size         int64
	Mtime, Ctime unix.Timespec
}

// Inspect walks the tree as [Tree.ReadMarks] does, and keeps a stamp of each file, up to the limit
// of entries.
func (t *Tree) Inspect(ctx context.Context) (Inspection, error) {
	in := Inspection{Files: make(map[uint64]Stamp), skipped: make(map[uint64]*skippedFile)}
	w := treeWalker{tree: t, statOnly: true, visit: func(*node) error { return nil }}
	w.observe = in.addNode
	marks, err := w.walkTree(ctx)
	in.Marks = marks
	for _, f := range in.skipped {
		if in.Obstacle == "" && f.names >= f.links {
			in.Obstacle = fmt.Sprintf("%s was left out of the archive and has no name elsewhere: move it out of the episode, or delete it", f.path)
		}
	}
	return in, err
}

func (in *Inspection) addNode(n *node) {
	if n.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		in.Files[n.st.Ino] = Stamp{n.st.Size, n.st.Mtim, n.st.Ctim}
	}
	if in.Obstacle == "" {
		in.Obstacle = findObstacle(n)
	}
	if n.skip == "" {
		return
	}
	if in.FirstSkip == "" {
		in.FirstSkip = quotePath(n.path)
	}
	if n.st.Mode&unix.S_IFMT == unix.S_IFREG {
		f := in.skipped[n.st.Ino]
		if f == nil {
			f = &skippedFile{path: quotePath(n.path)}
			in.skipped[n.st.Ino] = f
		}
		f.names++
		f.links = int(n.st.Nlink)
	}
}

// statAttributes returns the attributes of statx(2).
func statAttributes(n *node) uint64 {
	var x unix.Statx_t
	if n.fd >= 0 && unix.Statx(n.fd, "", unix.AT_EMPTY_PATH, 0, &x) == nil {
		return x.Attributes
	}
	return n.attributes
}

// findObstacle returns why a node could not be deleted, as far as that shows without trying.
func findObstacle(n *node) string {
	switch {
	case n.skip == mountPoint:
		return fmt.Sprintf("%s is a mount point: unmount it", quotePath(n.path))
	case statAttributes(n)&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0:
		return fmt.Sprintf("%s cannot be deleted: clear its attribute with 'chattr -i -a'", quotePath(n.path))
	case n.st.Mode&unix.S_IFMT != unix.S_IFDIR, int(n.st.Uid) == os.Geteuid():
		return ""
	case unix.Faccessat(n.fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS) != nil:
		return fmt.Sprintf("%s belongs to uid %d, and uid %d cannot write to it: as its owner, run 'chmod g+rwx' on it",
			quotePath(n.path), n.st.Uid, os.Geteuid())
	case n.st.Mode&unix.S_ISVTX != 0 && os.Geteuid() != 0:
		return fmt.Sprintf("%s is sticky and belongs to uid %d: as its owner, run 'chmod -t' on it", quotePath(n.path), n.st.Uid)
	}
	return ""
}
