package receiver

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/store"
)

// quantum is what the archives of a host may cost a scrub in one turn, in bytes read
// (deficit round robin). A host whose archive costs more waits until the others have
// caught up. It is large enough to make up for the listing of a directory.
const quantum = 32 << 20

// newSkips is how many archives that arrived after the beginning of a scrub are passed
// over, beyond as many as the host had then. No host can send faster for long, but one
// that does must not keep the scrub from its end.
const newSkips = 1 << 16

// maxNames bounds the names that hosts keep in memory between their turns. With more
// hosts each of them lists its directory once per turn.
const (
	maxNames = 64 << 10
	minPage  = 256
	maxPage  = 8 << 10
)

// hostWalk is how far a scrub has come with one host.
type hostWalk struct {
	host    episode.Name
	after   episode.Name   // read up to here, in the order of the names
	names   []episode.Name // the next ones
	until   episode.Name   // the last name when the scrub came to the host first
	listed  bool           // until is known
	last    bool           // no names follow those of names
	done    bool
	credit  int64 // what it may still cost in this turn; negative: a debt
	newLeft int   // archives that arrived lately and are passed over
}

// hostCursor is what outlives a restart of a hostWalk.
type hostCursor struct {
	Host  episode.Name `json:"host_id,omitempty"`
	After episode.Name `json:"after,omitempty"`
	Done  bool         `json:"done,omitempty"`
}

// skipsNew reports whether an archive arrived after the scrub began, so that the next
// one reads it. A time of arrival in the future is that of a wrong clock.
func (w *hostWalk) skipsNew(o store.Object, began time.Time) bool {
	if !o.ReceivedAt.After(began) || o.ReceivedAt.After(time.Now()) {
		return false
	}
	w.newLeft--
	return true
}

// hosts reads the archives of all hosts, which take turns.
func (s *scrub) hosts(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	waiting := slices.DeleteFunc(slices.Clone(s.walks), func(w *hostWalk) bool { return w.done })
	for len(waiting) > 0 {
		page := min(max(minPage, maxNames/len(waiting)), maxPage)
		for _, w := range waiting {
			if err := s.turn(ctx, w, page); err != nil {
				return err
			}
			if len(waiting)*page > maxNames {
				w.names, w.last = nil, false
			}
		}
		waiting = slices.DeleteFunc(waiting, func(w *hostWalk) bool { return w.done })
	}
	return nil
}

// begin lists the hosts. The first turn is that of the host behind the one that a
// restart interrupted: an archive that takes longer than the time between two restarts
// must not keep the scrub from all others.
func (s *scrub) begin() error {
	hosts := []episode.Name{s.host}
	if s.host == "" {
		hosts = nil
		for host, err := range s.store.Hosts() {
			if _, stray := errors.AsType[*store.StrayError](err); stray {
				continue
			}
			if err != nil {
				return err
			}
			hosts = append(hosts, host)
		}
		slices.Sort(hosts)
	}
	known := make(map[episode.Name]hostCursor, len(s.cursors))
	for _, c := range s.cursors {
		known[c.Host] = c
	}
	s.walks = make([]*hostWalk, 0, len(hosts))
	for _, host := range hosts {
		c := s.cursor(host, known)
		s.walks = append(s.walks, &hostWalk{host: host, after: c.After, done: c.Done})
	}
	next, found := slices.BinarySearchFunc(s.walks, s.Host, func(w *hostWalk, host episode.Name) int {
		return strings.Compare(string(w.host), string(host))
	})
	if found {
		next++
	}
	s.walks = slices.Concat(s.walks[next:], s.walks[:next])
	s.byName = false
	return nil
}

// turn reads archives of a host until its credit is spent.
func (s *scrub) turn(ctx context.Context, w *hostWalk, page int) error {
	if w.credit += quantum; w.credit <= 0 {
		return ctx.Err()
	}
	s.Host, s.Episode = w.host, w.after
	for w.credit > 0 && !w.done {
		before := s.pace.spent
		if err := s.step(ctx, w, page); err != nil {
			return err
		}
		w.credit -= s.pace.spent - before
		if err := errors.Join(s.keepErr, s.save()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// step reads the next archive of a host, or lists the names of the next ones.
func (s *scrub) step(ctx context.Context, w *hostWalk, page int) error {
	switch {
	case len(w.names) > 0:
		name := w.names[0]
		if err := s.one(ctx, w, episode.Key{Host: w.host, Name: name}); err != nil {
			return err
		}
		w.names, w.after = w.names[1:], name
		s.Episode = name
		if w.newLeft < 0 {
			s.HostsUnfinished++
			w.done = true
		}
	case w.last:
		w.done = true
	default:
		return s.list(w, page)
	}
	return nil
}

// list reads the next names of a host's archives. The first time it notes which is the
// last one.
func (s *scrub) list(w *hostWalk, page int) error {
	p, err := s.store.ListNames(w.host, w.after, w.until, page)
	s.pace.charge(listCost * p.Seen)
	if err != nil {
		w.done = true
		return s.skipHost(w.host, err)
	}
	if !w.listed {
		w.listed, w.until, w.newLeft = true, p.Max, p.Seen+newSkips
	}
	w.names, w.last = p.Names, p.Last
	return nil
}

// skipHost reports a host whose archives cannot be listed. The others are read.
func (s *scrub) skipHost(host episode.Name, err error) error {
	if errors.Is(err, durable.ErrFault) || durable.IsShortage(err) {
		return err
	}
	s.HostsUnreadable++
	s.found(ScrubFinding{Finding: "unreadable", Host: host, Detail: err.Error()})
	return nil
}

// maxCursors bounds scrub.json, of which programs read 64 KiB. Of further hosts the next
// start passes over what this scrub has read, by the times noted at the files.
const maxCursors = 200

// position returns how far the hosts have been read.
func (s *scrub) position() []hostCursor {
	var all []hostCursor
	for _, w := range s.walks {
		if (w.done || w.after != "") && len(all) < maxCursors {
			all = append(all, hostCursor{w.host, w.after, w.done})
		}
	}
	return all
}

// asideKeys remembers which archives a scrub has moved to quarantine, so that their rows
// do not count as missing too. It keeps a hash of each key, and at most maxAsideKeys of
// them: those of further archives count twice.
type asideKeys struct {
	seed maphash.Seed
	keys map[uint64]struct{}
}

const maxAsideKeys = 1 << 18

func (a *asideKeys) add(key episode.Key) {
	if a.keys == nil {
		a.seed, a.keys = maphash.MakeSeed(), make(map[uint64]struct{})
	}
	if len(a.keys) < maxAsideKeys {
		a.keys[maphash.Comparable(a.seed, key)] = struct{}{}
	}
}

func (a *asideKeys) has(key episode.Key) bool {
	if a.keys == nil {
		return false
	}
	_, found := a.keys[maphash.Comparable(a.seed, key)]
	return found
}
