package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"cis490/internal/episode"
)

// maxNames bounds the bytes of names in memory: those of the directories above the current
// entry.
const maxNames = 16 << 20

// readAhead is how many names are read between two checks of the limits.
const readAhead = 1024

// treeWalker visits the entries of a tree in the archive's order: a regular meta.json, the
// episode's directory, then depth first, sorted by the bytes of the names. It holds one
// descriptor per directory above the current entry.
type treeWalker struct {
	tree     *Tree
	visit    func(*node) error // not called for skipped entries
	statOnly bool              // visit opens nothing, so files need no descriptor
	observe  func(*node)       // called for every node, skipped or not; may be nil

	owner   uint32 // of the episode's directory
	entries int
	bytes   int64
	names   int // bytes of names in memory
	skipped Skips
	sums    markSums
}

// walkTree walks the whole tree and returns the marks of the state that it saw.
func (w *treeWalker) walkTree(ctx context.Context) (Marks, error) {
	w.sums = markSums{all: sha256.New(), below: sha256.New(), skips: sha256.New()}
	w.entries = 1
	root := &node{fd: int(w.tree.dir.Fd())} // owned by the tree: not closed here
	if err := root.readStat(); err != nil {
		return Marks{}, err
	}
	w.owner = root.st.Uid
	w.sums.root = time.Unix(root.st.Ctim.Unix())
	if err := w.visitRoot(ctx, root); err != nil {
		return Marks{}, err
	}
	return w.sums.sumMarks(), nil
}

func (w *treeWalker) visitRoot(ctx context.Context, root *node) error {
	dir, err := root.openDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := w.listNames(ctx, dir, "")
	if err != nil {
		return err
	}
	if i := slices.Index(names, episode.MetaFile); i >= 0 {
		done, err := w.visitMeta(ctx, dir)
		if err != nil {
			return err
		}
		if done {
			names = slices.Delete(names, i, i+1)
		}
	}
	if err := w.visitNode(ctx, root); err != nil {
		return err
	}
	return w.visitChildren(ctx, dir, "", names, 1)
}

// visitMeta visits meta.json first if it is a regular file. Otherwise it is an entry like others.
func (w *treeWalker) visitMeta(ctx context.Context, dir *os.File) (bool, error) {
	n, err := w.openNode(dir, episode.MetaFile, episode.MetaFile)
	if err != nil {
		return false, err
	}
	defer n.close()
	w.skipForeignLink(n)
	if !n.isRegular() {
		return false, nil
	}
	if n.st.Size == 0 {
		w.sums.addBelow(n)
		return false, &UnpackableError{"meta.json is empty, as a power cut on the host leaves it: write it anew or remove it"}
	}
	return true, w.visitNode(ctx, n)
}

func (w *treeWalker) openNode(parent *os.File, base, path string) (*node, error) {
	if w.statOnly {
		if n, err := statNode(int(parent.Fd()), base, path); n != nil || err != nil {
			return n, err
		}
	}
	return openNode(int(parent.Fd()), base, path)
}

func (w *treeWalker) visitChildren(ctx context.Context, dir *os.File, path string, names []string, depth int) error {
	for _, base := range names {
		below := base
		if path != "" {
			below = path + "/" + base
		}
		if err := w.visitChild(ctx, dir, base, below, depth); err != nil {
			return err
		}
	}
	for _, base := range names {
		w.names -= len(base)
	}
	return nil
}

func (w *treeWalker) visitChild(ctx context.Context, parent *os.File, base, path string, depth int) error {
	l := w.tree.limits
	if depth > l.Depth || len(path) > l.Path {
		return &UnpackableError{fmt.Sprintf("%s lies deeper than %d directories or %d bytes: move it out of the episode, or raise the limit",
			quotePath(path), l.Depth, l.Path)}
	}
	n, err := w.openNode(parent, base, path)
	if err != nil {
		return err
	}
	defer n.close()
	w.skipForeignLink(n)
	if err := w.visitNode(ctx, n); err != nil || !n.isDirectory() {
		return err
	}
	dir, err := n.openDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := w.listNames(ctx, dir, path)
	if err != nil {
		return err
	}
	return w.visitChildren(ctx, dir, path, names, depth+1)
}

// listNames returns the sorted names in dir. It checks the limits while it reads, so that a
// directory of ten million names costs no more than one of the permitted size.
func (w *treeWalker) listNames(ctx context.Context, dir *os.File, path string) ([]string, error) {
	var names []string
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		some, err := dir.Readdirnames(readAhead)
		for _, s := range some {
			w.names += len(s)
		}
		names = append(names, some...)
		w.entries += len(some)
		if w.entries > w.tree.limits.Entries || w.names > maxNames {
			return nil, &UnpackableError{fmt.Sprintf("more than %d entries, or too many long names, by the time of %s: move some out of the episode, or raise the limit",
				w.tree.limits.Entries, quotePath(path))}
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, fileError("list", path, err)
		}
	}
}

// skipForeignLink skips a hard link to a file of another owner, which another user may have linked into
// the episode to have it read.
func (w *treeWalker) skipForeignLink(n *node) {
	if n.isRegular() && n.st.Nlink > 1 && n.st.Uid != w.owner {
		n.skip = "hard link to a file of another owner"
	}
}

// visitNode counts n and visits it.
func (w *treeWalker) visitNode(ctx context.Context, n *node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.sums.addNode(n)
	if w.observe != nil {
		w.observe(n)
	}
	if n.skip != "" {
		w.skipped.addSkip(n)
		return nil
	}
	if n.isRegular() {
		if n.st.Size > w.tree.limits.Bytes-w.bytes {
			return &UnpackableError{fmt.Sprintf("the files hold more than %d bytes by the time of %s (%d bytes): move it out of the episode, or raise the limit",
				w.tree.limits.Bytes, quotePath(n.path), n.st.Size)}
		}
		w.bytes += n.st.Size
	}
	return w.visit(n)
}
