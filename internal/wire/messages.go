package wire

import (
	"encoding/json"
	"fmt"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/printable"
)

// Upload is what a sender says of an archive before its bytes.
type Upload struct {
	Key     episode.Key
	Digest  digest.Digest
	Size    int64
	Skipped int  // files that the sender left out of the archive
	Resent  bool // the host had a receipt for the episode once: there may be a row of it
}

// Status says what a PUT came to.
type Status string

// The two ways in which a PUT succeeds.
const (
	Stored         Status = "stored"
	AlreadyPresent Status = "already-present"
)

// unfinishedStatus is what stands in an [announceResponse] in the place of a receipt's.
const unfinishedStatus Status = "unfinished"

// Receipt says that the receiver has an archive and its row on the disk.
type Receipt struct {
	Status     Status        `json:"status"`
	Host       episode.Name  `json:"host_id"`
	Episode    episode.Name  `json:"episode_id"`
	Digest     digest.Digest `json:"sha256"`
	Size       int64         `json:"size_bytes"`
	ReceivedAt Timestamp     `json:"received_at_wall"`
	// Store is the one that has it. Its index has the row of this receipt. Nil if the
	// receiver does not name its store. A receipt of another store than before retires
	// nothing, which is for the shipper to see.
	Store *Store `json:"store,omitempty"`
}

// Covers returns nil if the receipt is one for u, and what differs otherwise.
func (r Receipt) Covers(u Upload) error {
	switch {
	case r.Status != Stored && r.Status != AlreadyPresent:
		return fmt.Errorf("the receipt has the status %+q", string(r.Status))
	case r.Host != u.Key.Host || r.Episode != u.Key.Name:
		return fmt.Errorf("the receipt is for %s/%s", r.Host, r.Episode)
	case r.Digest != u.Digest:
		return fmt.Errorf("the receipt is for the sha256 %s", r.Digest)
	case r.Size != u.Size:
		return fmt.Errorf("the receipt is for %d bytes", r.Size)
	}
	return nil
}

// MinAnnounced is the size from which a [Client] announces an archive before it
// sends it. The receiver can then refuse it, or say that it is there already, and
// keeps what has arrived when the connection breaks. A smaller one costs one round
// trip, and is sent again whole.
const MinAnnounced = 256 << 10

// Unfinished is an upload of which the receiver has a part, or nothing yet.
type Unfinished struct {
	ID     string // names it, to its host alone
	Offset int64  // bytes that are on the receiver's disk
	Length int64  // of the archive, or -1 if it is not known
}

// Piece is what a sender says of the bytes with which it goes on.
type Piece struct {
	Offset int64
	Size   int64
	Last   bool // the archive ends with them
	// Interrupt makes the body end with err: somebody else goes on with the
	// upload.
	Interrupt func(err error)
}

// announceResponse is the answer to an announcement: where to go on, or a receipt.
type announceResponse struct {
	Receipt
	Upload string `json:"upload_id,omitempty"`
	Offset int64  `json:"upload_offset,omitempty"`
}

// PingResponse is the answer to a ping.
type PingResponse struct {
	Status   string       `json:"status"` // "ok"
	Host     episode.Name `json:"host_id"`
	Auth     Auth         `json:"auth"`
	Time     time.Time    `json:"server_time"`
	Receiver ServerInfo   `json:"receiver"`
	Limits   Limits       `json:"limits"`
	Storage  Storage      `json:"storage"`
	Store    *Store       `json:"store,omitempty"` // nil if the receiver does not name it
}

// Auth says how the receiver knows the caller.
type Auth struct {
	Method       string    `json:"method"` // "mtls" or "proxy", perhaps with "+token"
	CertNotAfter time.Time `json:"cert_not_after"`
}

// ServerInfo says what the receiver is.
type ServerInfo struct {
	Version  string   `json:"version"`
	Protocol []string `json:"protocol"`
}

// Limits is what the receiver takes.
type Limits struct {
	MaxSize        int64 `json:"max_size"`         // bytes of one archive
	Uploads        int   `json:"uploads"`          // at once, of all hosts
	UploadsPerHost int   `json:"uploads_per_host"` // at once, of one
	// UnfinishedAge is how long an upload is kept with which nobody goes on.
	UnfinishedAge time.Duration `json:"-"`
}

// Storage says what room the receiver has for a host.
type Storage struct {
	FreeBytes int64 `json:"free_bytes"` // above min_free, and within the host's quota
	// FreeInodes is how many files the disk has room for, above its floor; nil if the
	// file system has no limit, or if the receiver is older than 2026-11-29.
	FreeInodes *int64 `json:"free_inodes,omitempty"`
	Accepting  bool   `json:"accepting"`
	Detail     string `json:"detail,omitempty"` // why it does not accept, for a person
}

// Err returns nil if the receiver accepts uploads, and a [*Problem] of [Full] if not.
func (s Storage) Err() error {
	switch {
	case s.Accepting:
		return nil
	case s.Detail == "":
		return Refuse(Full, "reachable but not accepting uploads")
	}
	return Refuse(Full, "reachable but not accepting uploads: %s", printable.Text(s.Detail))
}

// Timestamp is a time in the form of the index ([episode.FormatWall]).
type Timestamp struct{ time.Time }

// MarshalText writes the form of the index.
func (w Timestamp) MarshalText() ([]byte, error) { return []byte(episode.FormatWall(w.Time)), nil }

// MarshalJSON writes the form of the index, where time.Time would write its own.
func (w Timestamp) MarshalJSON() ([]byte, error) { return json.Marshal(episode.FormatWall(w.Time)) }

// UnmarshalJSON reads the form of the index.
func (w *Timestamp) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	t, err := episode.ParseWall(s)
	w.Time = t
	return err
}
