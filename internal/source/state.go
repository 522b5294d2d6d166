package source

import (
	"encoding/binary"
	"errors"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Attributes of a retired episode's directory.
const (
	stateAttr   = "state"   // a [State]
	changedAttr = "changed" // a [Change]
)

// stateVersion begins the attribute. Of another version nothing is known.
const stateVersion = 1

// A ShortDigest is the beginning of a digest, enough to tell states of one tree apart.
type ShortDigest [16]byte

// Shorten returns the beginning of d.
func Shorten(d digest.Digest) ShortDigest { return ShortDigest(d[:len(ShortDigest{})]) }

// State is what was known of an episode when it was retired, or when it was last
// compared with what the receiver has. Its zero value is that nothing was.
type State struct {
	// Fingerprint is of [archive.Marks.Below]. It is zero if a file had changed so
	// shortly before that a later change might not show.
	Fingerprint ShortDigest
	// Skips is of [archive.Marks.Skips]: what the archive left out.
	Skips ShortDigest
	// Contents is the digest of [archive.ContentDigest] that the receiver has
	// reported for its archive; zero until it has.
	Contents digest.Digest
}

// minUnchanged is how long before a walk each file must have changed last for a fingerprint
// to count: a write within the same tick of the clock leaves the ctime as it is.
const minUnchanged = 2 * time.Second

// StateOf returns the state of a tree with these marks, which were taken at a time,
// and whose contents are equal to the archive's.
func StateOf(m archive.Marks, at time.Time) State {
	s := State{Skips: Shorten(m.Skips)}
	if at.Sub(m.ChangedAt) >= minUnchanged {
		s.Fingerprint = Shorten(m.Below)
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

// A Change says that a retired episode is no longer what was shipped.
type Change struct {
	At    time.Time `json:"noted_at"`
	Cause string    `json:"cause"` // printable ASCII
	// Fingerprint is that of a [State] of the changed tree: as long as it has it, it need
	// not be compared again.
	Fingerprint ShortDigest `json:"-"`
	// Partial says that a deletion has begun, and that part of the episode is gone.
	Partial bool `json:"partial,omitempty"`
}

// maxCause bounds the attribute: all of them share a block of the file system.
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

// parseChange reads a note. One that cannot be read still says that there is one.
func parseChange(b []byte) Change {
	const head = 8 + len(ShortDigest{}) + 1
	if len(b) < head {
		return Change{Cause: "the note cannot be read"}
	}
	return Change{
		At:          parseNoteTime(int64(binary.BigEndian.Uint64(b))),
		Cause:       episode.Printable(string(b[head:])),
		Fingerprint: ShortDigest(b[8:]),
		Partial:     b[head-1] == 1,
	}
}

// parseNoteTime returns the time of a note. It is zero where no text could show it: whoever owns
// the episode may have written the attribute.
func parseNoteTime(sec int64) time.Time {
	if at := time.Unix(sec, 0).UTC(); at.Year() >= 1 && at.Year() <= 9999 {
		return at
	}
	return time.Time{}
}

// readState returns what the open directory of a retired episode carries beside its
// receipt.
func readState(dir *durable.Dir) (s State, noted bool, change *Change, err error) {
	b, err := durable.Attr(dir.File(), stateAttr)
	if err != nil && !errors.Is(err, durable.ErrNoAttr) {
		return s, false, nil, err
	}
	s, noted = parseState(b)
	b, err = durable.Attr(dir.File(), changedAttr)
	if errors.Is(err, durable.ErrNoAttr) {
		return s, noted, nil, nil
	}
	if err != nil {
		return s, noted, nil, err
	}
	c := parseChange(b)
	return s, noted, &c, nil
}

// RecordState notes the state of the retired episode in dir, durably, and removes the
// note of a change. A file system without room for it keeps none.
func RecordState(dir *durable.Dir, s State) error {
	return recordAttr(dir, func() error {
		return errors.Join(
			durable.SetAttr(dir.File(), stateAttr, s.encode()),
			durable.RemoveAttr(dir.File(), changedAttr))
	})
}

// RecordChange notes at dir, durably, that the episode in it is no longer what was
// shipped. The time of an earlier note stays, and so does all of one that says that part
// of the episode is gone.
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
