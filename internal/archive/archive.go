// Package archive writes an episode's directory as a tar.zst stream, and reads such streams.
//
// Malware fills the directory, and may write the archive that a lab host sends. Names, types, sizes
// and bytes are hostile. [OpenTree] opens the directory, [Tree.Survey] measures it without reading
// files, [Packer.Pack] writes it, and [Compare] checks that it is still what was written. [Read],
// [Verify] and [ReadMeta] read an archive.
//
// The same tree gives the same bytes: one zstd frame with content size and checksum. In it is a PAX
// tar with sorted entries, <name>/meta.json first, modes &0777 and owner 0, and nothing that the
// directory did not have. If Pack returns nil, the tree was still as surveyed after its last byte
// was read. Memory depends neither on the size of a tree nor on that of an archive.
//
// Invariant: only regular files and directories are opened, inside the episode and on its mount. The
// type is checked on a descriptor (O_PATH), and that descriptor is then opened for reading.
// Replacing a name meanwhile has no effect, and no link is followed.
package archive

import (
	"cmp"
	"errors"
	"fmt"

	"cis490/internal/printable"
)

// ErrChanged says that a tree changed while it was read. What was written must be discarded, and
// the episode retried later.
var ErrChanged = errors.New("the episode changed while it was read")

// UnpackableError says that an episode cannot be packed, and that a retry does not help. It must be
// held until the operator has done what Cause says.
type UnpackableError struct {
	Cause string // printable ASCII
}

func (u *UnpackableError) Error() string { return u.Cause }

// Limits bound an episode. A larger one gives an [UnpackableError]. For a zero field the limit
// of [DefaultLimits] applies.
type Limits struct {
	Bytes   int64 // bytes in all files together, holes included
	Entries int   // files, directories, links and skipped entries
	Depth   int   // names in a path below the episode
	Path    int   // bytes in a path below the episode
}

// DefaultLimits returns limits far above any real episode.
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

// maxShown bounds how much of a hostile path a message shows.
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
