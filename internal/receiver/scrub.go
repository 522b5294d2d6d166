package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
)

// Progress is how far a scrub has come.
type Progress struct {
	Started time.Time `json:"started"`
	// Host and Episode are what was read last. The hosts take turns.
	Host    episode.Name `json:"host_id,omitempty"`
	Episode episode.Name `json:"episode_id,omitempty"`
	Ended   time.Time    `json:"ended,omitzero"`

	Objects     int64 `json:"objects"`     // read
	Bytes       int64 `json:"bytes"`       // read
	Skipped     int64 `json:"skipped"`     // read lately, underway, or received since Started
	Damaged     int64 `json:"damaged"`     // bytes that are not those of the sha256
	Unreadable  int64 `json:"unreadable"`  // bytes that the disk does not give
	Undecodable int64 `json:"undecodable"` // the bytes that came, and no archive
	Missing     int64 `json:"missing"`     // rows without an archive
	SetAside    int64 `json:"set_aside"`   // moved to quarantine

	// HostsUnreadable is how many hosts have a folder that cannot be listed: none of
	// their archives was read.
	HostsUnreadable int64 `json:"hosts_unreadable"`

	// HostsUnfinished is how many hosts sent archives faster than this scrub passed over
	// them, so that some of their earlier ones may not have been read.
	HostsUnfinished int64 `json:"hosts_unfinished,omitzero"`

	// Expanding is how many archives decode to more than [archive.MaxRatio] times their
	// size. They are decoded once; afterwards only their bytes are read.
	Expanding int64 `json:"expanding,omitzero"`

	// NotOpened is how many of the unreadable archives were not read at all, because they
	// or what is known of them could not be opened.
	NotOpened int64 `json:"not_opened"`

	// WholeSince is when the last scrub that read all to its end began: whatever
	// was stored by then has been read back since.
	WholeSince time.Time `json:"whole_since,omitzero"`

	// Decoded says that archives are decoded by this scrub. Those of receivers before
	// 2026-11-28 did not, and have read nothing in this sense.
	Decoded bool `json:"decoded"`

	// Disk is the [device.Volume.ID] of what was read. On another one nothing was read.
	Disk string `json:"disk,omitempty"`

	// cursors say how far each host has been read, once hosts take turns; see [scrub.save].
	cursors []hostCursor
	byName  bool // Host and Episode are those of a scrub that went by names
}

// Lost returns how many archives are not what they were.
func (p Progress) Lost() int64 { return p.Damaged + p.Unreadable + p.Missing }

// A ScrubFinding is one thing that is not as it should be.
type ScrubFinding struct {
	Finding  string       `json:"finding"` // damaged, unreadable, undecodable, missing or expanding
	Host     episode.Name `json:"host_id"`
	Episode  episode.Name `json:"episode_id"` // empty: all of the host's
	SetAside bool         `json:"set_aside"`
	Detail   string       `json:"detail"`

	logged bool // by [Receiver.readBack]
}

// scrub is one walk through the store, from where progress says.
type scrub struct {
	*Progress
	walks []*hostWalk // in the order in which the hosts take turns
	aside asideKeys   // what this scrub has moved to quarantine
	store *store.Reader
	since time.Time // what was read back since then is not read again
	host  episode.Name
	pace  *pacer
	prove func(context.Context, episode.Key, *pacer) (proof, error)
	rows  func() (*os.File, error)
	found func(ScrubFinding)
	// lock is [prover]'s: a row whose archive is looked for under it is a row
	// whose archive is missing.
	lock func(episode.Key) func()
	// settle notes at an archive that it has a row. It is nil where the walk must
	// not write, and is called under lock.
	settle func(store.Object) error
	// save is called after each archive. It notes the position if it is time for that, or
	// returns why the scrub cannot go on.
	save func() error
	// keep, unless nil, is save while an archive is read. keepErr is what it returned.
	keep    func() error
	keepErr error
}

// run walks to the end.
func (s *scrub) run(ctx context.Context) error {
	s.pace.tick = func() {
		if s.keep != nil && s.keepErr == nil {
			s.keepErr = s.keep()
		}
	}
	if err := s.hosts(ctx); err != nil {
		return err
	}
	if err := errors.Join(s.missing(ctx), s.keepErr); err != nil {
		return err
	}
	s.Ended = time.Now().UTC()
	s.Host, s.Episode = "", ""
	return nil
}

// one reads one archive of a host, if it is due.
func (s *scrub) one(ctx context.Context, w *hostWalk, key episode.Key) error {
	o, err := s.store.Stat(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && w.skipsNew(o, s.Started) {
		// It is in memory still, and more come: to wait would let them come faster
		// than the scrub passes over them.
		s.Skipped++
		s.pace.charge(skipCost)
		return nil
	}
	if err := s.pace.wait(ctx, seekCost); err != nil {
		return err
	}
	if err == nil && (o.Underway || o.VerifiedAt.After(s.since)) {
		s.Skipped++
		return nil
	}
	found, err := s.prove(ctx, key, s.pace) // also of what cannot be looked at: it is counted
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err):
		return err
	}
	logged := err == nil
	switch {
	case err != nil && found.bad == nil: // no right to read it, say: others are read all the same
		s.NotOpened++
		found.bad = errors.Join(store.ErrUnreadable, err)
	case err != nil: // it was read, and could not be set aside
		found.bad = errors.Join(found.bad, err)
	}
	s.Objects++
	s.Bytes += found.Size
	s.note(key, found, logged)
	return nil
}

// note counts and reports what is to be said of an archive that was read.
func (s *scrub) note(key episode.Key, found proof, logged bool) {
	if found.expands > 0 {
		s.Expanding++
	}
	if found.expandsNew {
		s.found(ScrubFinding{Finding: "expanding", Host: key.Host, Episode: key.Name, Detail: fmt.Sprintf(
			"decodes to %d bytes, %d times its size; it is decoded once, and afterwards only its bytes are read", found.expands, found.expands/max(found.Size, 1))})
	}
	if found.bad == nil {
		return
	}
	f := ScrubFinding{Host: key.Host, Episode: key.Name, SetAside: found.aside, Detail: found.bad.Error(), logged: logged}
	switch {
	case errors.Is(found.bad, store.ErrUnreadable):
		f.Finding = "unreadable"
		s.Unreadable++
	case errors.Is(found.bad, store.ErrUndecodable):
		f.Finding = "undecodable"
		s.Undecodable++
	default:
		f.Finding = "damaged"
		s.Damaged++
	}
	if found.aside {
		s.SetAside++
		s.aside.add(key)
	}
	s.found(f)
}

// missing looks for the archive of each row. Memory is a row's.
func (s *scrub) missing(ctx context.Context) error {
	in, err := s.rows()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	end, err := in.Stat()
	if err != nil {
		return err
	}
	n := 0
	// Rows that are appended from now on are for the next scrub, or this one would not
	// end as long as enough of them come.
	for row, err := range index.Rows(io.LimitReader(in, end.Size())) {
		if _, bad := errors.AsType[*index.LineError](err); bad {
			continue // 'receiver index verify' tells of it
		}
		if err != nil {
			return err
		}
		if n++; n%256 == 0 {
			if err := s.pace.wait(ctx, seekCost); err != nil {
				return err
			}
		}
		if s.host != "" && row.Host != s.host || row.Repaired {
			continue // a repaired key has an earlier row
		}
		if err := s.look(ctx, row); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// look sees whether the archive of a row is there, and looks again with its key
// locked: one that is being repaired is away for a moment. An archive that does not
// say that it has a row, because it was noted by an older version or the store was
// moved, says so from now on: nobody needs to search the index for it.
func (s *scrub) look(ctx context.Context, row index.Row) error {
	key := row.Key()
	o, err := s.store.Stat(key)
	settle := func() bool {
		return err == nil && s.settle != nil && !o.Settled && !o.Underway && o.Digest == row.SHA256 && o.Size == row.Size
	}
	if settle() {
		if err := s.pace.wait(ctx, seekCost); err != nil {
			return err
		}
	}
	if settle() || errors.Is(err, fs.ErrNotExist) {
		unlock := s.lock(key)
		defer unlock()
		if o, err = s.store.Stat(key); settle() {
			o.ReceivedAt = row.ReceivedAt
			err = s.settle(o)
		}
	}
	if errors.Is(err, durable.ErrFault) || durable.IsShortage(err) {
		return err
	}
	_, stray := errors.AsType[*store.StrayError](err) // a link or a folder in its place, which the walk has passed by
	if stray || errors.Is(err, fs.ErrNotExist) {
		s.missed(key, err, stray)
	}
	return nil
}

// missed reports a row whose archive is not in the store, unless this scrub has moved it
// and counted it.
func (s *scrub) missed(key episode.Key, err error, stray bool) {
	if s.aside.has(key) {
		return
	}
	why := s.store.Path(key) + " has a row and is not there"
	if stray {
		why = err.Error() + ", and has a row"
	}
	s.Missing++
	s.found(ScrubFinding{Finding: "missing", Host: key.Host, Episode: key.Name, Detail: why})
}
