// Package scrub verifies stored archives in the background: it reads each of them from the
// disk, compares its sha256 and decodes it, and then looks for the archive of each row.
//
// The hosts take turns, and a budget of bytes per second bounds what a scrub costs. A
// [Scheduler] runs one pass per interval beside a live receiver, and continues a pass that
// a restart interrupted. [RunOnce] runs a single pass from the command line.
//
// Invariant: an archive is quarantined only after two readings that found it corrupt. If more than
// three archives in a row cannot be read, the disk is considered bad, and nothing more is moved.
package scrub

import (
	"time"

	"cis490/internal/archive"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// MaxRatio is how many times its size an archive may decode to and still be decoded by
// each scrub.
const MaxRatio = archive.MaxRatio

// UnreadableHint says what to do about an entry of the store that cannot be read.
const UnreadableHint = "make it readable for the receiver's user, or move it out of the data directory"

// Config says how often and how fast the stored archives are verified.
type Config struct {
	Rate     config.Bytes    `toml:"rate"`     // bytes read per second; 0 disables the scrub
	Interval config.Duration `toml:"interval"` // between the starts of two passes
}

// Validate returns what is wrong with each key of c.
func (c Config) Validate() []error {
	var errs []error
	if c.Rate != 0 && c.Rate < 4<<10 {
		errs = append(errs, config.InvalidValue("scrub.rate", "must be at least 4KiB, or 0B for none"))
	}
	if c.Interval.Std() < time.Minute {
		errs = append(errs, config.InvalidValue("scrub.interval", "must be at least 1m"))
	}
	return errs
}

// Progress is the state of a pass over the store.
type Progress struct {
	Started time.Time `json:"started"`
	// Host and Episode name the archive that was read last. The hosts take turns.
	Host    episode.Name `json:"host_id,omitempty"`
	Episode episode.Name `json:"episode_id,omitempty"`
	Ended   time.Time    `json:"ended,omitzero"`

	Objects     int64 `json:"objects"`     // archives read
	Bytes       int64 `json:"bytes"`       // bytes read
	Skipped     int64 `json:"skipped"`     // verified recently, in flight, or received since Started
	Damaged     int64 `json:"damaged"`     // corrupt: the bytes do not have their sha256
	Unreadable  int64 `json:"unreadable"`  // the disk does not return the bytes
	Undecodable int64 `json:"undecodable"` // the sha256 matches, and decoding fails
	Missing     int64 `json:"missing"`     // rows without an archive
	Quarantined int64 `json:"set_aside"`   // archives moved to quarantine

	// HostsUnreadable is the number of hosts whose directory cannot be listed. None of
	// their archives was read.
	HostsUnreadable int64 `json:"hosts_unreadable"`

	// HostsUnfinished is the number of hosts that sent archives faster than this pass
	// skipped them. Some of their earlier archives may not have been read.
	HostsUnfinished int64 `json:"hosts_unfinished,omitzero"`

	// Expanding is the number of archives that decode to more than [MaxRatio] times their
	// size. They are decoded once. Later passes only compare their sha256.
	Expanding int64 `json:"expanding,omitzero"`

	// NotOpened is the number of unreadable archives that were not read at all, because
	// the file or its attributes could not be opened. In a bucket it is that of all unreadable archives
	// and of the batches of the index that could not be read.
	NotOpened int64 `json:"not_opened"`

	// WholeSince is when the last complete pass started. All archives stored by then have
	// been read since.
	WholeSince time.Time `json:"whole_since,omitzero"`

	// Decoded reports that this pass decodes archives. Receivers before 2026-11-28 did
	// not: their passes do not count.
	Decoded bool `json:"decoded"`

	// Disk is the [device.Volume.ID] of what was read. A pass does not count on another
	// disk.
	Disk string `json:"disk,omitempty"`

	// cursors hold the position in each host's archives, see [pass.savedPosition].
	cursors []hostCursor
	byName  bool // Host and Episode are the position of a pass in the order of names
}

// A Finding is a problem with one archive, or with all archives of a host.
type Finding struct {
	Finding     string       `json:"finding"` // damaged, unreadable, undecodable, missing or expanding
	Host        episode.Name `json:"host_id"`
	Episode     episode.Name `json:"episode_id"` // empty: all of the host's
	Quarantined bool         `json:"set_aside"`
	Detail      string       `json:"detail"`

	verified bool // the archive was verified, and the finding is the result of that
}

// IsLoss reports whether a finding means lost or corrupt bytes. What only cannot be read or decoded may
// be in order.
func (f Finding) IsLoss() bool {
	return f.Episode != "" && (f.Quarantined || f.Finding == "damaged" || f.Finding == "missing")
}

// Layout describes the names that this package creates in the data directory.
func Layout() durable.Layout {
	return durable.Layout{{Match: durable.MatchNames(positionFile, durable.TempName(positionFile)), Perm: 0o640}}
}
