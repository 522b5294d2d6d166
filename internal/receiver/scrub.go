package receiver

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"golang.org/x/time/rate"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
)

// Progress is how far a scrub has come.
type Progress struct {
	Started time.Time `json:"started"`
	// Host and Episode are what was read last: the walk goes in the order of
	// the names.
	Host    episode.Name `json:"host_id,omitempty"`
	Episode episode.Name `json:"episode_id,omitempty"`
	Ended   time.Time    `json:"ended,omitzero"`

	Objects     int64 `json:"objects"`     // read
	Bytes       int64 `json:"bytes"`       // read
	Skipped     int64 `json:"skipped"`     // read lately, or underway
	Damaged     int64 `json:"damaged"`     // bytes that are not those of the sha256
	Unreadable  int64 `json:"unreadable"`  // bytes that the disk does not give
	Undecodable int64 `json:"undecodable"` // the bytes that came, and no archive
	Missing     int64 `json:"missing"`     // rows without an archive
	SetAside    int64 `json:"set_aside"`   // moved to quarantine

	// HostsUnreadable is how many hosts have a folder that cannot be listed: none of
	// their archives was read.
	HostsUnreadable int64 `json:"hosts_unreadable"`

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
}

// Lost returns how many archives are not what they were.
func (p Progress) Lost() int64 { return p.Damaged + p.Unreadable + p.Missing }

// A ScrubFinding is one thing that is not as it should be.
type ScrubFinding struct {
	Finding  string       `json:"finding"` // damaged, unreadable, undecodable or missing
	Host     episode.Name `json:"host_id"`
	Episode  episode.Name `json:"episode_id"` // empty: all of the host's
	SetAside bool         `json:"set_aside"`
	Detail   string       `json:"detail"`

	logged bool // by [Receiver.readBack]
}

// scrub is one walk through the store, from where progress says.
type scrub struct {
	*Progress
	store *store.Reader
	since time.Time // what was read back since then is not read again
	host  episode.Name
	pace  *pacer
	prove func(context.Context, episode.Key, *pacer) (proof, error)
	rows  func() (io.ReadCloser, error)
	found func(ScrubFinding)
	// lock is [prover]'s: a row whose archive is looked for under it is a row
	// whose archive is missing.
	lock func(episode.Key) func()
	// settle notes at an archive that it has a row. It is nil where the walk must
	// not write, and is called under lock.
	settle func(store.Object) error
	save   func() error // called after each archive
}

// run walks to the end.
func (s *scrub) run(ctx context.Context) error {
	if err := s.hosts(ctx); err != nil {
		return err
	}
	if err := s.missing(ctx); err != nil {
		return err
	}
	s.Ended = time.Now().UTC()
	s.Host, s.Episode = "", ""
	return nil
}

// hosts reads all files behind the position, host by host.
func (s *scrub) hosts(ctx context.Context) error {
	if s.host != "" {
		return s.episodes(ctx, s.host, "")
	}
	if s.Host != "" { // the rest of the host that was interrupted
		if err := s.episodes(ctx, s.Host, s.Episode); err != nil {
			return err
		}
	}
	for last := false; !last; {
		var hosts []episode.Name
		var err error
		if hosts, last, err = s.store.HostsAfter(s.Host); err != nil {
			return err
		}
		for _, host := range hosts {
			if err := s.episodes(ctx, host, ""); err != nil {
				return err
			}
			s.Host, s.Episode = host, ""
		}
	}
	return nil
}

func (s *scrub) episodes(ctx context.Context, host, after episode.Name) error {
	for last := false; !last; {
		var names []episode.Name
		var err error
		if names, last, err = s.store.NamesAfter(host, after); err != nil {
			return s.skipHost(host, err)
		}
		for _, name := range names {
			if err := s.one(ctx, episode.Key{Host: host, Name: name}); err != nil {
				return err
			}
			after = name
			s.Host, s.Episode = host, name
			if err := s.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// skipHost reports a host whose archives cannot be listed. The others are read.
func (s *scrub) skipHost(host episode.Name, err error) error {
	if errors.Is(err, durable.ErrFault) || store.IsShortage(err) {
		return err
	}
	s.HostsUnreadable++
	s.found(ScrubFinding{Finding: "unreadable", Host: host, Detail: err.Error()})
	return nil
}

// one reads one archive, if it is due.
func (s *scrub) one(ctx context.Context, key episode.Key) error {
	if err := s.pace.wait(ctx, seek); err != nil {
		return err
	}
	o, err := s.store.Stat(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && (o.Underway || o.VerifiedAt.After(s.since)) {
		s.Skipped++
		return nil
	}
	var found proof
	if err == nil {
		found, err = s.prove(ctx, key, s.pace)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || store.IsShortage(err):
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

func (s *scrub) note(key episode.Key, found proof, logged bool) {
	if found.bad == nil {
		return
	}
	f := ScrubFinding{Host: key.Host, Episode: key.Name, SetAside: found.aside, Detail: found.bad.Error(), logged: logged}
	switch {
	case errors.Is(found.bad, store.ErrUnreadable):
		f.Finding = "unreadable"
		s.Unreadable++
	case errors.Is(found.bad, store.ErrUnfit):
		f.Finding = "undecodable"
		s.Undecodable++
	default:
		f.Finding = "damaged"
		s.Damaged++
	}
	if found.aside {
		s.SetAside++
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
	n := 0
	for row, err := range index.Rows(in) {
		if _, bad := errors.AsType[*index.LineError](err); bad {
			continue // 'receiver index verify' tells of it
		}
		if err != nil {
			return err
		}
		if n++; n%256 == 0 {
			if err := s.pace.wait(ctx, seek); err != nil {
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
		if err := s.pace.wait(ctx, seek); err != nil {
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
	if errors.Is(err, durable.ErrFault) || store.IsShortage(err) {
		return err
	}
	_, stray := errors.AsType[*store.StrayError](err) // a link or a folder in its place, which the walk has passed by
	if stray || errors.Is(err, fs.ErrNotExist) {
		s.missed(key, err, stray)
	}
	return nil
}

// missed reports a row whose archive is not in the store.
func (s *scrub) missed(key episode.Key, err error, stray bool) {
	why := s.store.Path(key) + " has a row and is not there"
	if stray {
		why = err.Error() + ", and has a row"
	}
	s.Missing++
	s.found(ScrubFinding{Finding: "missing", Host: key.Host, Episode: key.Name, Detail: why})
}

// seek is what it costs to begin a file, in bytes that could be read meanwhile.
const seek = 64 << 10

// whileBusy is how many times slower a scrub is while uploads are under way.
const whileBusy = 8

// pacer says how fast a scrub may read.
type pacer struct {
	limit *rate.Limiter
	burst int
	busy  func() bool
}

// newPacer returns a pacer for so many bytes a second; 0 is as fast as can be.
func newPacer(perSecond int64, busy func() bool) *pacer {
	if perSecond <= 0 {
		return &pacer{limit: rate.NewLimiter(rate.Inf, 0), burst: 1 << 30, busy: busy}
	}
	burst := int(min(max(perSecond, 4<<10), 1<<20))
	return &pacer{limit: rate.NewLimiter(rate.Limit(perSecond), burst), burst: burst, busy: busy}
}

// wait waits until n bytes may be read.
func (p *pacer) wait(ctx context.Context, n int) error {
	if p.busy() {
		n *= whileBusy
	}
	for n > 0 {
		some := min(n, p.burst)
		if err := p.limit.WaitN(ctx, some); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		n -= some
	}
	return ctx.Err()
}
