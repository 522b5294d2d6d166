package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Reason is the kind of a [Hold].
type Reason string

// Why an episode is held.
const (
	Unpackable Reason = "unfit"    // it cannot be packed as it is
	Refused    Reason = "refused"  // the receiver refuses it as it is
	Conflict   Reason = "conflict" // the receiver has another archive of this name
	Changed    Reason = "changed"  // it has changed since it was packed

	// The shipper retries these by itself, with backoff.

	Stuck      Reason = "stuck"      // it is delivered, and cannot be moved
	Unreadable Reason = "unreadable" // the disk does not return its data
)

// IsRetried reports whether an episode held for this reason is retried without an operator.
func (r Reason) IsRetried() bool { return r == Stuck || r == Unreadable }

// Hold says why an episode is not sent.
type Hold struct {
	Reason Reason         `json:"reason"`
	Cause  string         `json:"cause"` // a sentence for an operator
	HeldAt time.Time      `json:"held_at"`
	Digest *digest.Digest `json:"sha256,omitempty"`        // of the entry on this host
	Stored *digest.Digest `json:"stored_sha256,omitempty"` // of the receiver's archive
	// Delivered is the digest of the archive for which there was a receipt before the hold.
	Delivered *digest.Digest `json:"delivered_sha256,omitempty"`
	// SecondName is the name that the episode gets to keep both copies, once that has begun.
	SecondName episode.Name `json:"beside,omitempty"`
}

// maxHoldSize bounds the size of a hold, which an operator may have edited.
const maxHoldSize = 64 << 10

// Hold holds an episode, durably. Its entry, if any, stays. The caller must hold the lock, unless
// the episode is held already.
func (o *Outbox) Hold(name episode.Name, h Hold) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	return o.dir.WriteFile(string(name)+heldEnd, append(b, '\n'), 0o640)
}

// ReadHold returns why an episode is held, or an error wrapping [fs.ErrNotExist]. An unreadable
// hold is still a hold.
func (o *Outbox) ReadHold(name episode.Name) (Hold, error) {
	b, err := o.readFile(string(name) + heldEnd)
	if errors.Is(err, fs.ErrNotExist) {
		return Hold{}, err
	}
	var h Hold
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		return Hold{Cause: fmt.Sprintf("the hold itself cannot be read: %v", err)}, nil
	}
	return h, nil
}

// Release lets a held episode be retried, durably. It returns an error wrapping [fs.ErrNotExist] if
// the episode is not held.
func (o *Outbox) Release(name episode.Name) error {
	file := string(name) + heldEnd
	if _, err := o.dir.Lstat(file); err != nil {
		return err
	}
	return o.dir.Remove(file)
}

// Accept is [Outbox.Release] for an episode that is held as [Changed]. Once the receiver confirms
// that it has what was packed, the episode is retired as it is now. For any other episode it
// returns an error.
func (o *Outbox) Accept(name episode.Name) error {
	h, err := o.ReadHold(name)
	if err != nil {
		return err
	}
	if h.Reason != Changed {
		return fmt.Errorf("%s is held for another reason (%s) than a change after it was packed: fix that, and retry without accepting", name, h.Reason)
	}
	entry, err := o.OpenEntry(name)
	if err != nil {
		return fmt.Errorf("%s has no packed copy that could be accepted: %w", name, err)
	}
	defer entry.Close()
	if err := o.dir.WriteFile(string(name)+acceptedEnd, []byte(entry.Digest.String()), 0o640); err != nil {
		return err
	}
	return o.Release(name)
}

// IsAccepted reports whether an operator has accepted the episode as it is.
func (o *Outbox) IsAccepted(name episode.Name) (bool, error) {
	b, err := o.readFile(string(name) + acceptedEnd)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// A crash may have left the file of an earlier entry of that name.
	entry, err := o.OpenEntry(name)
	if err != nil {
		return false, err
	}
	defer entry.Close()
	return string(b) == entry.Digest.String(), nil
}

func (o *Outbox) readFile(name string) ([]byte, error) { return o.readBounded(name, maxHoldSize) }

// readBounded reads a small regular file, which an operator may have edited.
func (o *Outbox) readBounded(name string, maxSize int64) ([]byte, error) {
	f, err := o.dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return durable.ReadAtMost(f, f.Name(), maxSize)
}

// RemoveHold removes a hold whose episode and entry an operator has renamed or removed.
func (o *Outbox) RemoveHold(name episode.Name) error {
	err := o.Release(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
