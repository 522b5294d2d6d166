package scrub

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/store"
)

// quantum is what the archives of a host may cost in one turn, in bytes read (deficit round
// robin). A host whose archive costs more waits until the others have caught up. It is
// large enough to pay for the listing of a directory.
const quantum = 32 << 20

// maxNewSkips is how many archives that arrived after the start of a pass are skipped,
// beyond as many as the host had then. No host can send faster for long, but one that does
// must not prevent the end of the pass.
const maxNewSkips = 1 << 16

// maxBufferedNames is the maximum number of names in memory between the turns of hosts.
// With more hosts each of them lists its directory once per turn.
const (
	maxBufferedNames = 64 << 10
	minPageSize      = 256
	maxPageSize      = 8 << 10
)

// hostWalk is the state of a pass over one host.
type hostWalk struct {
	host      episode.Name
	after     episode.Name   // the last name that was read
	names     []episode.Name // the next ones
	lastName  episode.Name   // of the host, when the pass first listed it
	listed    bool           // lastName is known
	listedAll bool           // no names follow those of names
	done      bool
	credit    int64 // what it may still cost in this turn; negative: a debt
	skipsLeft int   // archives that arrived recently and may be skipped
}

// hostCursor is the part of a hostWalk that survives a restart.
type hostCursor struct {
	Host  episode.Name `json:"host_id,omitempty"`
	After episode.Name `json:"after,omitempty"`
	Done  bool         `json:"done,omitempty"`
}

// skipNew reports whether an archive arrived after the pass started, so that the next one
// reads it, and counts it. A time of arrival in the future comes from a wrong clock.
func (w *hostWalk) skipNew(o store.Object, started time.Time) bool {
	if !o.ReceivedAt.After(started) || o.ReceivedAt.After(time.Now()) {
		return false
	}
	w.skipsLeft--
	return true
}

// verifyHosts verifies the archives of all hosts, which take turns.
func (p *scrubPass) verifyHosts(ctx context.Context) error {
	if err := p.startWalks(); err != nil {
		return err
	}
	waiting := slices.DeleteFunc(slices.Clone(p.walks), func(w *hostWalk) bool { return w.done })
	for len(waiting) > 0 {
		pageSize := min(max(minPageSize, maxBufferedNames/len(waiting)), maxPageSize)
		for _, w := range waiting {
			if err := p.runTurn(ctx, w, pageSize); err != nil {
				return err
			}
			if len(waiting)*pageSize > maxBufferedNames {
				w.names, w.listedAll = nil, false
			}
		}
		waiting = slices.DeleteFunc(waiting, func(w *hostWalk) bool { return w.done })
	}
	return nil
}

// startWalks lists the hosts and sets p.walks. The first turn goes to the host after the
// one that a restart interrupted: an archive that takes longer than the time between two
// restarts must not block all others.
func (p *scrubPass) startWalks() error {
	hosts := []episode.Name{p.onlyHost}
	if p.onlyHost == "" {
		var err error
		if hosts, err = p.verifier.Store.HostNames(); err != nil {
			return err
		}
	}
	saved := make(map[episode.Name]hostCursor, len(p.progress.cursors))
	for _, c := range p.progress.cursors {
		saved[c.Host] = c
	}
	p.walks = make([]*hostWalk, 0, len(hosts))
	for _, host := range hosts {
		c := p.progress.cursorOf(host, saved)
		p.walks = append(p.walks, &hostWalk{host: host, after: c.After, done: c.Done})
	}
	next, found := slices.BinarySearchFunc(p.walks, p.progress.Host, func(w *hostWalk, host episode.Name) int {
		return strings.Compare(string(w.host), string(host))
	})
	if found {
		next++
	}
	p.walks = slices.Concat(p.walks[next:], p.walks[:next])
	p.progress.byName = false
	return nil
}

// runTurn verifies archives of a host until its credit is spent.
func (p *scrubPass) runTurn(ctx context.Context, w *hostWalk, pageSize int) error {
	w.credit += quantum
	if w.credit <= 0 {
		return ctx.Err()
	}
	p.progress.Host, p.progress.Episode = w.host, w.after
	for w.credit > 0 && !w.done {
		before := p.budget.spent
		if err := p.advanceWalk(ctx, w, pageSize); err != nil {
			return err
		}
		w.credit -= p.budget.spent - before
		if err := errors.Join(p.saveErr, p.afterArchive()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// advanceWalk verifies the next archive of a host, or lists the names of the next ones.
func (p *scrubPass) advanceWalk(ctx context.Context, w *hostWalk, pageSize int) error {
	switch {
	case len(w.names) > 0:
		name := w.names[0]
		if err := p.verifyIfDue(ctx, w, episode.Key{Host: w.host, Name: name}); err != nil {
			return err
		}
		w.names, w.after = w.names[1:], name
		p.progress.Episode = name
		if w.skipsLeft < 0 {
			p.progress.HostsUnfinished++
			w.done = true
		}
	case w.listedAll:
		w.done = true
	default:
		return p.listNames(w, pageSize)
	}
	return nil
}

// listNames lists the next names of a host's archives. The first time it records the last
// name.
func (p *scrubPass) listNames(w *hostWalk, pageSize int) error {
	names, err := p.verifier.Store.ListNames(w.host, w.after, w.lastName, pageSize)
	p.budget.chargeBytes(listCost * names.Seen)
	if err != nil {
		w.done = true
		return p.reportUnlistable(w.host, err)
	}
	if !w.listed {
		w.listed, w.lastName, w.skipsLeft = true, names.Max, names.Seen+maxNewSkips
	}
	w.names, w.listedAll = names.Names, names.Last
	return nil
}

// reportUnlistable reports a host whose archives cannot be listed. It returns err if that
// says nothing about the host.
func (p *scrubPass) reportUnlistable(host episode.Name, err error) error {
	if errors.Is(err, durable.ErrFault) || durable.IsShortage(err) {
		return err
	}
	p.progress.HostsUnreadable++
	p.onFinding(Finding{Finding: "unreadable", Host: host, Detail: err.Error()})
	return nil
}

// maxCursors is the maximum number of hosts in scrub.json, which must not exceed
// maxPositionBytes. After a restart, what was verified of further hosts is skipped by the
// attributes of the files.
const maxCursors = 200

// savedPosition returns the progress with a cursor for each host.
func (p *scrubPass) savedPosition() Progress {
	at := p.progress
	at.cursors = nil
	for _, w := range p.walks {
		if (w.done || w.after != "") && len(at.cursors) < maxCursors {
			at.cursors = append(at.cursors, hostCursor{w.host, w.after, w.done})
		}
	}
	return at
}
