// Package archive turns an episode's directory into a tar.zst stream, and back.
//
// The directory was filled by malware, and so may be an archive that a lab host
// sends: names, types, sizes and bytes are hostile. [OpenTree] opens the
// directory, [Tree.Survey] sizes it up without reading content, [Packer.Pack]
// writes it down, [Compare] tells whether it still is what was written. On the
// other side [Read], [Verify] and [ReadMeta] take an archive in.
//
// It promises: the same tree gives the same bytes. They are one zstd frame that
// states its content size and has a checksum; in it a PAX tar with sorted
// entries, <name>/meta.json first, modes &0777, owner 0 and nothing that the
// directory did not hold. When Pack returns nil, the tree was, after its last
// byte had been read, still as surveyed. Memory depends neither on the size of
// a tree nor on that of an archive.
//
// The law of this package: only regular files and directories are opened, by a
// descriptor that already proved to be one, below the episode, on its mount.
// Whatever the names point at meanwhile, nothing else is opened or followed.
package archive

import (
	"cmp"
	"errors"
	"fmt"

	"cis490/internal/printable"
)

// ErrChanged says that a tree changed while it was read: what was written is
// to be thrown away, and the episode tried again later.
var ErrChanged = errors.New("the episode changed while it was read")

// UnpackableError says that an episode cannot be packed and that waiting will not help:
// it is to be held until a person has done what Cause says.
type UnpackableError struct {
	Cause string // printable ASCII
}

func (u *UnpackableError) Error() string { return u.Cause }

// Limits bound what an episode may be; beyond them it is [UnpackableError]. A zero field
// stands for that of [DefaultLimits].
type Limits struct {
	Bytes   int64 // content of all files together; holes count
	Entries int   // files, directories, links and whatever is skipped
	Depth   int   // names in a path below the episode
	Path    int   // bytes in a path below the episode
}

// DefaultLimits returns limits that no honest episode comes near to.
func DefaultLimits() Limits {
	return Limits{Bytes: 64 << 30, Entries: 200_000, Depth: 64, Path: 1024}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	return Limits{
		Bytes:   cmp.Or(l.Bytes, d.Bytes),
		Entries: cmp.Or(l.Entries, d.Entries),
		Depth:   cmp.Or(l.Depth, d.Depth),
		Path:    cmp.Or(l.Path, d.Path),
	}
}

// maxShown is how much of a hostile path stands in a message.
const maxShown = 200

// quotePath returns an untrusted path as printable ASCII.
func quotePath(path string) string {
	if path == "" {
		return "the episode's directory"
	}
	return printable.Quote(path, maxShown)
}

func changedError(path, how string) error {
	return fmt.Errorf("%s %s: %w", quotePath(path), how, ErrChanged)
}
