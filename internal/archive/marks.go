package archive

import (
	"context"
	"encoding/binary"
	"hash"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// Marks identify the state of a tree by its metadata, without reading files. Two walks of an
// unchanged tree return equal marks.
type Marks struct {
	// Fingerprint is the digest of names, types, inodes, sizes, mtimes, ctimes and link targets.
	Fingerprint digest.Digest
	// Below is the fingerprint without the times of the episode's own directory, which retiring the
	// episode changes.
	Below digest.Digest
	// Skips is the digest of the names and kinds of skipped entries. It is zero if there are none.
	Skips digest.Digest
	// ChangedAt is the latest ctime below the episode's own directory. ChangedLast is the path that
	// has it, in printable ASCII.
	ChangedAt   time.Time
	ChangedLast string
	// RootChangedAt is the ctime of the episode's own directory. MarkerChangedAt is that of its
	// marker, or zero if there is none.
	RootChangedAt, MarkerChangedAt time.Time
	// MarkerAlone reports that only the marker is below the episode's own directory.
	MarkerAlone bool
}

// ReadMarks walks the tree. It opens only directories. It returns errors as [Tree.Survey] does.
func (t *Tree) ReadMarks(ctx context.Context) (Marks, error) {
	w := treeWalker{tree: t, statOnly: true, visit: func(*node) error { return nil }}
	return w.walkTree(ctx)
}

// markSums collects [Marks] during a walk.
type markSums struct {
	all, below, skips hash.Hash
	skipped           bool
	lastChange        unix.Timespec // latest ctime below the root
	lastPath          string
	root, marker      time.Time // their ctimes
	entries           int       // below the root
	record            []byte    // scratch
}

// addNode adds a node. Strings are preceded by their lengths, so that different trees give
// different bytes.
func (s *markSums) addNode(n *node) {
	b := appendStrings(s.record[:0], n.path, n.target, n.skip)
	b = appendInts(b, uint64(n.st.Mode&unix.S_IFMT), n.st.Ino, uint64(n.st.Size))
	untimed := len(b)
	b = appendInts(b, uint64(n.st.Mtim.Sec), uint64(n.st.Mtim.Nsec), uint64(n.st.Ctim.Sec), uint64(n.st.Ctim.Nsec))
	s.all.Write(b)
	if n.path == "" {
		// The size of a directory changes with its names, as its times do.
		s.below.Write(b[:untimed-8])
	} else {
		s.below.Write(b)
		s.addBelow(n)
	}
	if n.skip != "" {
		s.skipped = true
		s.skips.Write(appendStrings(nil, n.path, n.skip))
	}
	s.record = b
}

// addBelow records the latest ctime, and that of the marker.
func (s *markSums) addBelow(n *node) {
	s.entries++
	if n.path == episode.Marker {
		s.marker = time.Unix(n.st.Ctim.Unix())
	}
	if c := n.st.Ctim; c.Sec > s.lastChange.Sec || c.Sec == s.lastChange.Sec && c.Nsec > s.lastChange.Nsec {
		s.lastChange, s.lastPath = c, n.path
	}
}

func (s *markSums) sumMarks() Marks {
	m := Marks{
		Fingerprint: digest.Digest(s.all.Sum(nil)),
		Below:       digest.Digest(s.below.Sum(nil)),
		ChangedAt:   time.Unix(s.lastChange.Unix()),
		ChangedLast: quotePath(s.lastPath),

		RootChangedAt: s.root, MarkerChangedAt: s.marker,
		MarkerAlone: s.entries == 1 && !s.marker.IsZero(),
	}
	if s.skipped {
		m.Skips = digest.Digest(s.skips.Sum(nil))
	}
	return m
}

func appendStrings(b []byte, all ...string) []byte {
	for _, s := range all {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

func appendInts(b []byte, all ...uint64) []byte {
	for _, v := range all {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}
