package index

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"cis490/internal/durable"
)

// NoticeKind says what a [TailNotice] is about.
type NoticeKind string

// Kinds of notices.
const (
	Completed NoticeKind = "completed" // the last row got the newline that it lacked
	TailCut   NoticeKind = "tail-cut"  // bytes at the end that are not a row were saved and cut
	Shortened NoticeKind = "shortened" // another process truncated the index: rows are missing
)

// A TailNotice is a repair or a loss that an operator should know. The index stays usable.
type TailNotice struct {
	Kind  NoticeKind
	Path  string // of the index
	Bytes int64  // added, cut or missing
	Saved string // the file that has what was cut; empty if nothing was cut
}

// String describes the notice for an operator.
func (n TailNotice) String() string {
	switch n.Kind {
	case Completed:
		return fmt.Sprintf("%s: the last row got the newline that it lacked", n.Path)
	case TailCut:
		return fmt.Sprintf("%s: %d bytes at the end that are not a row were cut, and saved as %s", n.Path, n.Bytes, n.Saved)
	}
	return fmt.Sprintf("%s: %d bytes shorter than it was: %s", n.Path, n.Bytes, n.Hint())
}

// Hint says what to do about a notice, or "".
func (n TailNotice) Hint() string {
	if n.Kind == Shortened {
		return "'receiver index backfill' makes the missing rows, and 'receiver store replaces --rewound' tells the hosts; never rotate the index"
	}
	return ""
}

// TornTails are the files with what was cut from the end of an index.
type TornTails struct {
	Count int    `json:"count"`
	Last  string `json:"last,omitempty"` // the name of the latest
}

// ReadTornTails returns the torn tails of the index called name in dir. It lists dir.
func ReadTornTails(dir *durable.Dir, name string) (TornTails, error) {
	var t TornTails
	for e, err := range dir.Names() {
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return t, err
		}
		if strings.HasPrefix(e.Name(), baseName(name)+tornInfix) {
			t.Count++
			t.Last = max(t.Last, e.Name())
		}
	}
	return t, nil
}
