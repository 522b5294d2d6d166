package source

import (
	"encoding/binary"
	"errors"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/printable"
)

// Attributes of a retired episode's directory.
const (
	stateAttr   = "state"   // a [State]
	changedAttr = "changed" // a [Change]
)

// stateVersion is the first byte of the attribute. Other versions are ignored.
const stateVersion = 1

// State is what was known of an episode when it was retired, or when it was last compared with what
// the receiver has. Its zero value means that nothing was.
type State struct {
	// Fingerprint is of [archive.Marks.Below]. It is zero if a file had changed so recently that a
	// later change might not show.
	Fingerprint digest.Short
	// Skips is of [archive.Marks.Skips]: what the archive left out.
	Skips digest.Short
	// Contents is the [archive.ContentDigest] that the receiver has reported for its archive; zero
	// until it has.
	Contents digest.Digest
}

// minUnchanged is for how long each file must not have changed before a walk for a fingerprint to
// count: a write within the same clock tick does not change the ctime.
const minUnchanged = 2 * time.Second

// StateOf returns the state of a tree whose contents are equal to the archive's. The marks must be
// of a walk that started at at.
func StateOf(m archive.Marks, at time.Time) State {
	s := State{Skips: m.Skips.Short()}
	if at.Sub(m.ChangedAt) >= minUnchanged {
		s.Fingerprint = m.Below.Short()
	}
	return s
}

func (s State) encode() []byte {
	b := append([]byte{stateVersion}, s.Fingerprint[:]...)
	b = append(b, s.Skips[:]...)
	return append(b, s.Contents[:]...)
}

func parseState(b []byte) (State, bool) {
	var s State
	if len(b) != 1+len(s.Fingerprint)+len(s.Skips)+len(s.Contents) || b[0] != stateVersion {
		return s, false
	}
	rest := b[1:]
	rest = rest[copy(s.Fingerprint[:], rest):]
	rest = rest[copy(s.Skips[:], rest):]
	copy(s.Contents[:], rest)
	return s, true
}

// Change says that a retired episode is no longer what was shipped.
type Change struct {
	At    time.Time `json:"noted_at"`
	Cause string    `json:"cause"` // printable ASCII
	// Fingerprint is that of a [State] of the changed tree. While the tree has it, it need not be
	// compared again.
	Fingerprint digest.Short `json:"-"`
	// Partial reports that a deletion has begun, and that part of the episode is gone.
	Partial bool `json:"partial,omitempty"`
}

// maxCause bounds the attribute: all attributes share a block of the file system.
const maxCause = 400

func (c Change) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.At.Unix()))
	b = append(b, c.Fingerprint[:]...)
	partial := byte(0)
	if c.Partial {
		partial = 1
	}
	b = append(b, partial)
	return append(b, c.Cause[:min(len(c.Cause), maxCause)]...)
}

// parseChange parses a recorded change. If it is not valid, the episode counts as changed all the
// same.
func parseChange(b []byte) Change {
	const head = 8 + len(digest.Short{}) + 1
	if len(b) < head {
		return Change{Cause: "the note cannot be read"}
	}
	return Change{
		At:          parseNoteTime(int64(binary.BigEndian.Uint64(b))),
		Cause:       printable.Text(string(b[head:])),
		Fingerprint: digest.Short(b[8:]),
		Partial:     b[head-1] == 1,
	}
}

// parseNoteTime returns the time of a change, or zero if it cannot be formatted: the owner of the
// episode may have written the attribute.
func parseNoteTime(sec int64) time.Time {
	if at := time.Unix(sec, 0).UTC(); at.Year() >= 1 && at.Year() <= 9999 {
		return at
	}
	return time.Time{}
}

// readState returns what the open directory of a retired episode has besides its receipt.
func readState(dir *durable.Dir) (s State, noted bool, change *Change, err error) {
	b, err := durable.ReadAttr(dir.File(), stateAttr)
	if err != nil && !errors.Is(err, durable.ErrNoAttr) {
		return s, false, nil, err
	}
	s, noted = parseState(b)
	b, err = durable.ReadAttr(dir.File(), changedAttr)
	if errors.Is(err, durable.ErrNoAttr) {
		return s, noted, nil, nil
	}
	if err != nil {
		return s, noted, nil, err
	}
	c := parseChange(b)
	return s, noted, &c, nil
}

// RecordState records the state of the retired episode in dir, durably, and removes a recorded
// change. It does nothing if the file system cannot store it.
func RecordState(dir *durable.Dir, s State) error {
	return recordAttr(dir, func() error {
		return errors.Join(
			durable.SetAttr(dir.File(), stateAttr, s.encode()),
			durable.RemoveAttr(dir.File(), changedAttr))
	})
}

// RecordChange records at dir, durably, that the episode in it is no longer what was shipped. The
// time of an earlier change stays, and so does all of one with Partial.
func RecordChange(dir *durable.Dir, c Change) error {
	_, _, earlier, err := readState(dir)
	if err != nil {
		return err
	}
	if earlier != nil && earlier.Partial {
		return nil
	}
	if earlier != nil && !earlier.At.IsZero() {
		c.At = earlier.At
		if *earlier == c {
			return nil
		}
	}
	return recordAttr(dir, func() error { return durable.SetAttr(dir.File(), changedAttr, c.encode()) })
}

func recordAttr(dir *durable.Dir, set func() error) error {
	err := set()
	if err == nil {
		return dir.Sync()
	}
	if cannotStoreAttr(err) {
		return nil
	}
	return err
}
