package wire

import (
	"encoding/json"
	"fmt"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/printable"
)

// Upload describes an archive before its bytes are sent.
type Upload struct {
	Key     episode.Key
	Digest  digest.Digest
	Size    int64
	Skipped int  // files that the sender left out of the archive
	Resent  bool // the host has had a receipt for the episode: there may be an older row
}

// Status is the result of a PUT.
type Status string

// The values of [Receipt.Status] for a PUT that succeeds.
const (
	Stored         Status = "stored"
	AlreadyPresent Status = "already-present"
)

// unfinishedStatus is the status in an [announceResponse] that is not a receipt.
const unfinishedStatus Status = "unfinished"

// Receipt confirms that the archive and its index row are on the receiver's disk.
type Receipt struct {
	Status     Status        `json:"status"`
	Host       episode.Name  `json:"host_id"`
	Episode    episode.Name  `json:"episode_id"`
	Digest     digest.Digest `json:"sha256"`
	Size       int64         `json:"size_bytes"`
	ReceivedAt Timestamp     `json:"received_at_wall"`
	// Store is the store that has the archive and, in its index, the row of this receipt. It is nil
	// if the receiver does not name its store. The shipper must check it: a receipt of another
	// store retires nothing.
	Store *Store `json:"store,omitempty"`
}

// Covers returns nil if receipt is for u, and an error that names the difference otherwise.
func (r Receipt) Covers(u Upload) error {
	switch {
	case r.Status != Stored && r.Status != AlreadyPresent:
		return fmt.Errorf("receipt has the status %+q", string(r.Status))
	case r.Host != u.Key.Host || r.Episode != u.Key.Name:
		return fmt.Errorf("receipt is for %s/%s", r.Host, r.Episode)
	case r.Digest != u.Digest:
		return fmt.Errorf("receipt is for the sha256 %s", r.Digest)
	case r.Size != u.Size:
		return fmt.Errorf("receipt is for %d bytes", r.Size)
	}
	return nil
}

// MinAnnounced is the size from which a [Client] announces an archive before it sends it. The
// receiver can then refuse the archive or return its receipt before any byte is sent, and keeps
// what arrived if the connection breaks. A smaller archive is sent whole again.
const MinAnnounced = 256 << 10

// Unfinished is the state of an upload that is not complete.
type Unfinished struct {
	ID     string // identifies the upload to its host only
	Offset int64  // bytes on the receiver's disk
	Length int64  // of the archive in bytes, or -1 if it is not known
}

// Piece describes the body of a PATCH.
type Piece struct {
	Offset int64
	Size   int64
	Last   bool // the archive ends with this piece
	// Interrupt makes the body return err. It is for another request that continues the upload.
	Interrupt func(err error)
}

// announceResponse is the response to an announcement: a receipt, or where to continue.
type announceResponse struct {
	Receipt
	Upload string `json:"upload_id,omitempty"`
	Offset int64  `json:"upload_offset,omitempty"`
}

// PingResponse is the response to a ping.
type PingResponse struct {
	Status   string       `json:"status"` // "ok"
	Host     episode.Name `json:"host_id"`
	Auth     Auth         `json:"auth"`
	Time     time.Time    `json:"server_time"`
	Receiver ServerInfo   `json:"receiver"`
	Limits   Limits       `json:"limits"`
	Storage  Storage      `json:"storage"`
	Store    *Store       `json:"store,omitempty"` // nil if the receiver does not name its store
	CAs      *CAs         `json:"cas,omitempty"`   // nil if the receiver does not name its CAs
}

// CAs says which CAs a receiver has, in the response to a ping.
type CAs struct {
	// Server are the roots that the host should trust: the SHA-256 of each SubjectPublicKeyInfo, in
	// hex. It gets them by [Client.ServerCAs].
	Server []string `json:"server"`
	// Renew asks the host to renew its certificate now.
	Renew bool `json:"renew,omitempty"`
}

// Auth says how the receiver authenticated the caller.
type Auth struct {
	Method       string    `json:"method"` // "mtls" or "proxy", with "+token" if a token was checked too
	CertNotAfter time.Time `json:"cert_not_after"`
}

// ServerInfo describes the receiver's software.
type ServerInfo struct {
	Version  string   `json:"version"`
	Protocol []string `json:"protocol"`
}

// Limits are the receiver's limits on uploads.
type Limits struct {
	MaxSize        int64 `json:"max_size"`         // bytes per archive
	Uploads        int   `json:"uploads"`          // at once, of all hosts
	UploadsPerHost int   `json:"uploads_per_host"` // at once, per host
	// UnfinishedAge is how long the receiver keeps an upload after its last byte.
	UnfinishedAge time.Duration `json:"-"`
}

// Storage describes the free space that the receiver has for a host.
type Storage struct {
	FreeBytes int64 `json:"free_bytes"` // above min_free, and within the host's quota
	// FreeInodes is how many files fit on the disk above its minimum. It is nil if the file system
	// has no limit, or if the receiver is older than 2026-11-29.
	FreeInodes *int64 `json:"free_inodes,omitempty"`
	Accepting  bool   `json:"accepting"`
	Detail     string `json:"detail,omitempty"` // why uploads are not accepted, for the operator
}

// Err returns nil if the receiver accepts uploads, and a [*Problem] with [Full] otherwise.
func (s Storage) Err() error {
	switch {
	case s.Accepting:
		return nil
	case s.Detail == "":
		return Refuse(Full, "reachable but not accepting uploads")
	}
	return Refuse(Full, "reachable but not accepting uploads: %s", printable.Text(s.Detail))
}

// Timestamp is a time in the format of the index ([episode.FormatWall]).
type Timestamp struct{ time.Time }

// MarshalText returns the format of the index.
func (w Timestamp) MarshalText() ([]byte, error) { return []byte(episode.FormatWall(w.Time)), nil }

// MarshalJSON returns the format of the index. Without it, time.Time would write its own.
func (w Timestamp) MarshalJSON() ([]byte, error) { return json.Marshal(episode.FormatWall(w.Time)) }

// UnmarshalJSON parses the format of the index.
func (w *Timestamp) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	t, err := episode.ParseWall(s)
	w.Time = t
	return err
}
