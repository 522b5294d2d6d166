package archive

import (
	"bytes"
	"context"
	"fmt"

	"cis490/internal/digest"
)

// Survey describes the contents of a tree. Two surveys of an unchanged tree are equal.
type Survey struct {
	Fingerprint digest.Digest // digest of names, types, inodes, sizes, mtimes, ctimes and link targets
	Size        int64         // exact size of the tar stream that Pack will write
	Entries     int           // members of the archive: files, directories and links
	Bytes       int64         // bytes in the files
	Skipped     Skips
	Marks       Marks // of the same walk
}

// IsLarge reports whether the episode takes long to pack, and uses more than one core.
func (s Survey) IsLarge() bool { return s.Bytes >= minLargeSize }

// Skips are the entries that the archive leaves out: sockets, FIFOs, devices, mount points, and
// hard links to files of other owners.
type Skips struct {
	Count int
	First []Skip // the first 16
}

// Skip is a skipped entry. Both fields are printable ASCII.
type Skip struct {
	Path   string
	Reason string
}

const maxSkips = 16

func (s *Skips) addSkip(n *node) {
	s.Count++
	if len(s.First) < maxSkips {
		s.First = append(s.First, Skip{Path: quotePath(n.path), Reason: n.skip})
	}
}

// Survey walks the tree. It opens directories and no files. It returns an [UnpackableError] if the
// episode must be held, and [ErrChanged] if it changes meanwhile. With an [UnpackableError], the
// Marks only say when the entries visited so far had changed.
func (t *Tree) Survey(ctx context.Context) (Survey, error) {
	s := Survey{Size: tarTrailer}
	var head bytes.Buffer // the writer says how long its header is
	w := treeWalker{tree: t, statOnly: true, visit: func(n *node) error {
		h := n.tarHeader(t.memberName(n))
		head.Reset()
		if err := writeHeader(&head, h); err != nil {
			return fmt.Errorf("name %s in an archive: %w", quotePath(n.path), err)
		}
		s.Entries++
		s.Size += int64(head.Len()) + h.Size + tarPadding(h.Size)
		return nil
	}}
	marks, err := w.walkTree(ctx)
	if err != nil {
		met := w.sums.sumMarks()
		return Survey{Marks: Marks{ChangedAt: met.ChangedAt, ChangedLast: met.ChangedLast, RootChangedAt: met.RootChangedAt}}, err
	}
	s.Fingerprint, s.Bytes, s.Skipped, s.Marks = marks.Fingerprint, w.bytes, w.skipped, marks
	return s, nil
}

// memberName returns the name of n in the archive, without the slash of a directory.
func (t *Tree) memberName(n *node) string {
	if n.path == "" {
		return string(t.name)
	}
	return string(t.name) + "/" + n.path
}
