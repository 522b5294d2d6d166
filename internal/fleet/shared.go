package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Encode returns the record of a host, for other receivers. The error wraps [fs.ErrNotExist] if there is
// none.
func (r *Reports) Encode(host episode.Name) ([]byte, error) {
	dir, err := r.openDir()
	if err != nil {
		return nil, err
	}
	record, err := readRecord(dir, host)
	if err != nil {
		return nil, err
	}
	return json.Marshal(record)
}

// CheckWait returns the [*wire.Problem] with which [Reports.Add] would refuse a report because it comes too
// soon after the last one that is known here. It costs other receivers nothing.
func (r *Reports) CheckWait(host episode.Name, report wire.Report, now time.Time) error {
	dir, err := r.openDir()
	if err != nil {
		return err
	}
	now = now.UTC().Truncate(time.Second)
	record, err := readRecord(dir, host)
	if err != nil || record.isAhead(now) {
		return nil // Add says what is wrong
	}
	return record.checkWait(report, now)
}

// Keep keeps a record of a host that another receiver has encoded, unless the one here is newer.
func (r *Reports) Keep(host episode.Name, encoded []byte, now time.Time) error {
	var record Record
	if len(encoded) > maxRecord || json.Unmarshal(encoded, &record) != nil || !record.isValid() {
		return fmt.Errorf("the record of host %s %w", host, ErrInvalid)
	}
	dir, err := r.openDir()
	if err != nil {
		return err
	}
	if !r.reserveHost(host) {
		return nil // the host reports here: its record will be newer
	}
	defer r.releaseHost(host)
	own, err := readRecord(dir, host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = checkRoom(dir, now)
	case errors.Is(err, ErrInvalid):
		err = nil
	case err == nil && !record.ReceivedAt.After(own.ReceivedAt) && !own.ReceivedAt.After(now.Add(maxClockAhead)):
		return nil
	}
	if err != nil {
		return err
	}
	return writeJSON(dir, string(host)+suffix, record)
}

// NoteShared remembers that all records of other receivers were read at a time.
func (r *Reports) NoteShared(at time.Time) error {
	if _, err := r.openDir(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at = at.UTC().Truncate(time.Second)
	if at.Sub(r.receiver.SharedAt) > maxSharedAge {
		r.receiver.SharedSince = at
	}
	r.receiver.SharedAt = at
	return r.writeReceiver()
}

// MaxEncoded is the maximum size of what [Reports.Encode] returns.
const MaxEncoded = maxRecord

// MaxHosts is the maximum number of hosts with a record.
const MaxHosts = maxHosts
