package notify

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/printable"
)

// Type says what happened.
type Type string

// The types of events. docs/hooks.md says when each is sent and which members its data has.
const (
	Stored     Type = "stored"
	Conflict   Type = "conflict"
	HostSilent Type = "host_silent"
	LowSpace   Type = "low_space"
	Damage     Type = "damage"
	Test       Type = "test" // only by 'receiver hooks test'
)

// Types returns the types that a configuration can name.
func Types() []Type { return []Type{Stored, Conflict, HostSilent, LowSpace, Damage} }

// allTypes returns the types that an event can have.
func allTypes() []Type { return append(Types(), Test) }

// UnmarshalText parses a type that a configuration can name.
func (t *Type) UnmarshalText(text []byte) error {
	if !slices.Contains(Types(), Type(text)) {
		names := make([]string, 0, len(Types()))
		for _, known := range Types() {
			names = append(names, string(known))
		}
		return fmt.Errorf("%s is not an event: use %s", printable.Quote(string(text), 100), strings.Join(names, ", "))
	}
	*t = Type(text)
	return nil
}

// MaxEvent is the maximum size of an event in bytes.
const MaxEvent = 4 << 10

// Event is what a webhook and a command get, as JSON.
type Event struct {
	// ID is the same in each attempt to deliver the event, so that a recipient can ignore repetitions.
	ID   string    `json:"id"`
	Type Type      `json:"type"`
	Time time.Time `json:"timestamp"`
	Data Data      `json:"data"`
	// Dropped is the number of events of this type that could not be queued just before this one.
	Dropped int64 `json:"dropped"`
}

// Data has the facts of an event. Its type decides which of them are set. Their names are those in rows of the
// index and in the JSON of commands.
type Data struct {
	Host    episode.Name  `json:"host_id,omitempty"`
	Episode episode.Name  `json:"episode_id,omitempty"`
	SHA256  digest.Digest `json:"sha256,omitzero"`
	Size    int64         `json:"size_bytes,omitempty"`

	Repaired bool          `json:"repaired,omitempty"`      // the archive supersedes one that was corrupt or lost
	Stored   digest.Digest `json:"stored_sha256,omitzero"`  // of a conflict: what the receiver has
	Finding  string        `json:"finding,omitempty"`       // of damage: "damaged", "unreadable" or "missing"
	Removed  bool          `json:"quarantined,omitempty"`   // of damage: the copy was moved to quarantine
	Contact  time.Time     `json:"last_contact,omitzero"`   // of a silent host
	Free     *int64        `json:"free_bytes,omitempty"`    // of low space
	MinFree  *int64        `json:"min_free,omitempty"`      // of low space
	FullIn   *float64      `json:"full_in_hours,omitempty"` // of low space: if the disk fills
}

// eventJSON is an Event whose type may be [Test].
type eventJSON struct {
	Event
	Type string `json:"type"` // hides that of Event
}

// idPattern is what an id must look like: it becomes part of the text that is signed, and of a header.
var idPattern = regexp.MustCompile(`^msg_[0-9A-Za-z]{20,40}$`)

func newID() string { return "msg_" + rand.Text() }

// Encode returns the event as JSON, without a newline.
func (e Event) Encode() ([]byte, error) {
	b, err := json.Marshal(e)
	if err == nil && len(b) > MaxEvent {
		err = fmt.Errorf("the event is larger than %d bytes", MaxEvent)
	}
	return b, err
}

// ParseEvent parses an event of a queue. It accepts everything that [Event.Encode] returns, also with white
// space around it, and ignores unknown members.
func ParseEvent(b []byte) (Event, error) {
	if len(b) > MaxEvent {
		return Event{}, fmt.Errorf("larger than %d bytes", MaxEvent)
	}
	var j eventJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&j); err != nil {
		return Event{}, fmt.Errorf("not the JSON of an event: \"%s\"", printable.Text(err.Error()))
	}
	if _, err := dec.Token(); err != io.EOF {
		return Event{}, errors.New("something follows the JSON object")
	}
	e := j.Event
	e.Type = Type(j.Type)
	switch {
	case !slices.Contains(allTypes(), e.Type):
		return Event{}, fmt.Errorf("unknown type %s", printable.Quote(j.Type, 100))
	case !idPattern.MatchString(e.ID):
		return Event{}, fmt.Errorf("invalid id %s", printable.Quote(e.ID, 100))
	case e.Time.IsZero():
		return Event{}, errors.New("it has no timestamp")
	case e.Dropped < 0:
		return Event{}, errors.New("dropped is negative")
	}
	return e, nil
}
