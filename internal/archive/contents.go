package archive

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"io/fs"
	"strings"

	"cis490/internal/digest"
)

// contentHash hashes what [Compare] compares: names below the episode, types, link targets, sizes
// and contents, in the archive's order. It leaves out modes, times, owners and skipped entries.
type contentHash struct {
	hash hash.Hash
	head []byte // scratch
}

func newContentHash() *contentHash { return &contentHash{hash: sha256.New()} }

// beginEntry starts an entry. The content of a regular file follows. Strings and contents are
// preceded by their lengths, so that different trees give different bytes.
func (c *contentHash) beginEntry(path string, kind fs.FileMode, target string, size int64) {
	c.head = appendStrings(c.head[:0], path, target)
	c.head = appendInts(c.head, uint64(kind), uint64(size))
	c.hash.Write(c.head)
}

func (c *contentHash) sum() digest.Digest { return digest.Digest(c.hash.Sum(nil)) }

// HashContents reads all files of the tree. It returns the digest that [ContentDigest] returns for
// its archive, and the marks of the tree. It calls pace with the size of each piece before it uses
// the piece; an error of pace ends it. It returns [ErrChanged] if the tree changes meanwhile.
func (t *Tree) HashContents(ctx context.Context, pace func(n int) error) (digest.Digest, Marks, error) {
	c, buf := newContentHash(), make([]byte, copyBufferSize)
	w := treeWalker{tree: t, visit: func(n *node) error {
		h := n.tarHeader("")
		c.beginEntry(n.path, fileType(n), h.Linkname, h.Size)
		if !n.isRegular() {
			return nil
		}
		return n.readContent(ctx, buf, func(b []byte) error {
			c.hash.Write(b)
			return pace(len(b))
		})
	}}
	m, err := w.walkTree(ctx)
	if err != nil {
		return digest.Digest{}, Marks{}, err
	}
	return c.sum(), m, t.checkFingerprint(ctx, m.Fingerprint)
}

// ContentDigest reads the archive in r as [Read] does, and returns the digest of its contents. It
// equals [Tree.HashContents] of the episode. All decoded bytes, headers included, are also written
// to decoded, whose error ends the reading.
func ContentDigest(r io.Reader, decoded io.Writer) (digest.Digest, error) {
	s, err := openStream(r, maxContent)
	if err != nil {
		return digest.Digest{}, err
	}
	defer s.close()
	s.out.copyTo = decoded
	c := newContentHash()
	for {
		m, err := s.nextMember()
		if err == io.EOF {
			return c.sum(), nil
		}
		if err != nil {
			return digest.Digest{}, err
		}
		_, below, _ := strings.Cut(strings.TrimSuffix(m.Name, "/"), "/")
		c.beginEntry(below, m.Mode.Type(), m.Link, m.Size)
		if _, err := io.Copy(c.hash, m.Content); err != nil {
			return digest.Digest{}, err
		}
	}
}
