package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Tree is the open directory of an episode. Its methods must not be called concurrently.
type Tree struct {
	name   episode.Name
	dir    *os.File // only to open what is below; its offset is never used
	limits Limits
}

// OpenTree opens the directory dir in the open directory parent as the tree of the episode called
// name. The directory of a retired episode may have another name. OpenTree returns an
// [UnpackableError] if dir is not a directory or is a mount point, and an error wrapping
// [fs.ErrNotExist] if it does not exist.
func OpenTree(parent *os.File, dir string, name episode.Name, l Limits) (*Tree, error) {
	fd, err := durable.OpenBeneath(int(parent.Fd()), dir, unix.O_RDONLY|unix.O_DIRECTORY)
	switch {
	case err == nil:
		t := &Tree{name: name, dir: os.NewFile(uintptr(fd), string(name)), limits: l.orDefault()}
		if err := t.checkSibling(parent); err != nil {
			return nil, errors.Join(err, t.Close())
		}
		return t, nil
	case errors.Is(err, unix.ENOTDIR): // also for a link
		return nil, &UnpackableError{fmt.Sprintf("%s is not a directory: remove it, or put the episode itself there", name)}
	case errors.Is(err, unix.EXDEV):
		return nil, misplacedError(name, "a mount point")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open episode %s: %w", name, err)
	}
	return nil, fileError("open", string(name), err)
}

// checkSibling returns an [UnpackableError] unless the tree is on the file system of its parent. A
// btrfs subvolume is a file system of its own without a mount.
func (t *Tree) checkSibling(parent *os.File) error {
	var own, of unix.Stat_t
	if err := unix.Fstat(int(t.dir.Fd()), &own); err != nil {
		return fileError("stat", string(t.name), err)
	}
	if err := unix.Fstat(int(parent.Fd()), &of); err != nil {
		return fmt.Errorf("stat %s: %w", parent.Name(), err)
	}
	if own.Dev != of.Dev {
		return misplacedError(t.name, "a file system of its own, a btrfs subvolume perhaps")
	}
	return nil
}

// misplacedError is the error for a directory that cannot be moved as others are.
func misplacedError(name episode.Name, what string) *UnpackableError {
	return &UnpackableError{fmt.Sprintf("%s is %s, and cannot be moved with its neighbours: copy it with cp -a to a place outside of this folder, "+
		"remove or unmount it here, and move the copy to its place", name, what)}
}

// Close closes the directory.
func (t *Tree) Close() error { return t.dir.Close() }
