package shipper

import (
	"context"
	"log/slog"
	"time"

	"cis490/internal/episode"
	"cis490/internal/source"
)

// maxStrays is the maximum number of entries that never ship in the log, and in a status.
const maxStrays = 100

// logStray logs, once, an entry that never ships. The level depends on whether it seems to be meant
// as an episode.
func (d *dispatcher) logStray(s *source.StrayError) {
	if d.loggedStrays[s.Entry] || len(d.loggedStrays) >= maxStrays {
		return
	}
	d.loggedStrays[s.Entry] = true
	level := slog.LevelDebug
	switch {
	case s.Marked:
		level = slog.LevelWarn
	case s.Link:
		level = slog.LevelInfo
	}
	d.log.Log(context.Background(), level, "entry never ships", "entry", s.Entry, "reason", s.Reason)
}

// Progress is the part of [Status] about what is not finished or never ships.
type Progress struct {
	// Unfinished counts the directories without a marker. Oldest is the one in which no name has
	// changed for longest.
	Unfinished int                `json:"unfinished"`
	Oldest     *source.Unfinished `json:"oldest_unfinished,omitempty"`
	// LastFinished is the latest ctime of a marker, of what waits or is shipped: when it came to this
	// host, whatever its mtime.
	LastFinished time.Time `json:"last_finished_at,omitzero"`
	// Strays are entries of the episodes directory that never ship as they are, the first of
	// StraysTotal.
	Strays      []*source.StrayError `json:"strays"`
	StraysTotal int                  `json:"strays_total"`
}

// addFinished adds the time at which an episode was finished.
func (p *Progress) addFinished(at time.Time) {
	if at.After(p.LastFinished) {
		p.LastFinished = wholeSecond(at)
	}
}

// addUnfinished adds a directory without a marker.
func (p *Progress) addUnfinished(src *source.Source, name string) {
	u, err := src.InspectUnfinished(name)
	if err != nil {
		return // it is gone
	}
	u.ChangedAt = wholeSecond(u.ChangedAt)
	if p.Unfinished++; p.Oldest == nil || u.ChangedAt.Before(p.Oldest.ChangedAt) {
		p.Oldest = &u
	}
}

// addUnnamed adds the unfinished directories whose name is not valid for an episode, for example
// one that is being copied.
func (p *Progress) addUnnamed(src *source.Source) error {
	for name, err := range src.Names() {
		if err != nil {
			return err
		}
		if _, err := episode.ParseName(name); err != nil && src.NameError(name) == nil {
			p.addUnfinished(src, name)
		}
	}
	return nil
}
