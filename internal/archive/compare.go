package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Difference is the first difference between a tree and an archive.
type Difference struct {
	Path string // printable ASCII
	What string
}

func (d *Difference) Error() string { return d.Path + " " + d.What }

// Compare returns nil if t and the archive in r have the same names, types, link targets, sizes and
// contents. Times, modes and owners are ignored, because an installer's chown must not hold a
// backlog. It returns a [*Difference] if they differ, [ErrChanged] if the tree changes meanwhile,
// and other errors as [Packer.Pack] and [Verify] do. The archive must come from a [Packer]. The
// marks are those of the compared tree.
func Compare(ctx context.Context, r io.Reader, t *Tree) (Marks, error) {
	s, err := openStream(r, maxContent)
	if err != nil {
		return Marks{}, err
	}
	defer s.close()
	c := treeComparer{tree: t, archive: s, file: make([]byte, copyBufferSize), packed: make([]byte, copyBufferSize)}
	w := treeWalker{tree: t, visit: func(n *node) error { return c.compareNode(ctx, n) }}
	marks, err := w.walkTree(ctx)
	if err != nil {
		return Marks{}, err
	}
	switch m, err := s.nextMember(); {
	case err == nil:
		return Marks{}, &Difference{quotePath(m.Name), "was packed and is not there any more"}
	case err != io.EOF:
		return Marks{}, err
	}
	return marks, t.checkFingerprint(ctx, marks.Fingerprint)
}

// treeComparer walks tree and archive in parallel. Both have the same order.
type treeComparer struct {
	tree         *Tree
	archive      *tarStream
	file, packed []byte
}

func (c *treeComparer) compareNode(ctx context.Context, n *node) error {
	h := n.tarHeader(c.tree.memberName(n))
	m, err := c.archive.nextMember()
	differs := func(format string, a ...any) error {
		return &Difference{quotePath(h.Name), fmt.Sprintf(format, a...)}
	}
	switch {
	case err == io.EOF:
		return differs("was not there when the episode was packed")
	case err != nil:
		return err
	case m.Name != h.Name:
		return differs("stands where %s was packed: a name was added or removed", quotePath(m.Name))
	case m.Mode.Type() != fileType(n):
		return differs("is of another type than was packed")
	case m.Link != h.Linkname:
		return differs("links to another target than was packed")
	case m.Size != h.Size:
		return differs("has %d bytes and had %d when it was packed", h.Size, m.Size)
	case !n.isRegular():
		return nil
	}
	return n.readContent(ctx, c.file, func(b []byte) error {
		if err := c.compareBytes(m.Content, b); errors.Is(err, errDiffers) {
			return differs("has another content than was packed")
		} else if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		return nil
	})
}

var errDiffers = errors.New("differs")

func (c *treeComparer) compareBytes(r io.Reader, b []byte) error {
	p := c.packed[:len(b)]
	if _, err := io.ReadFull(r, p); err != nil {
		return tornError(err)
	}
	if !bytes.Equal(p, b) {
		return errDiffers
	}
	return nil
}

func fileType(n *node) fs.FileMode {
	switch n.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFLNK:
		return fs.ModeSymlink
	}
	return 0
}
