package shipper

import (
	"context"
	"log/slog"
	"time"

	"cis490/internal/episode"
	"cis490/internal/source"
)

// maxStrays is how many entries that never ship are in the log, and in a status.
const maxStrays = 100

// logStray logs, once, an entry that never ships: as loud as it is likely that somebody
// waits for it.
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
	d.log.Log(context.Background(), level, "an entry never ships", "entry", s.Entry, "reason", s.Why)
}

// Progress says of what is not finished, and never was sent.
type Progress struct {
	// Unfinished counts the folders without a marker, and Oldest is the one in which no
	// name has changed for longest.
	Unfinished int                `json:"unfinished"`
	Oldest     *source.Unfinished `json:"oldest_unfinished,omitempty"`
	// LastFinished is the latest time at which a marker, of what waits or is shipped, came
	// to this host: by the clock of the kernel, whatever time the marker bears.
	LastFinished time.Time `json:"last_finished_at,omitzero"`
	// Strays are entries of the episodes folder that never ship as they are, the first of
	// StraysTotal.
	Strays      []*source.StrayError `json:"strays"`
	StraysTotal int                  `json:"strays_total"`
}

// addFinished takes in when something was finished.
func (p *Progress) addFinished(at time.Time) {
	if at.After(p.LastFinished) {
		p.LastFinished = at.UTC().Truncate(time.Second)
	}
}

func (p *Progress) addStray(s *source.StrayError) {
	if p.StraysTotal++; len(p.Strays) < maxStrays {
		p.Strays = append(p.Strays, s)
	}
}

// addUnfinished takes in a folder without a marker.
func (p *Progress) addUnfinished(src *source.Source, name string) {
	u, err := src.Unfinished(name)
	if err != nil {
		return // it is gone
	}
	u.ChangedAt = u.ChangedAt.UTC().Truncate(time.Second)
	if p.Unfinished++; p.Oldest == nil || u.ChangedAt.Before(p.Oldest.ChangedAt) {
		p.Oldest = &u
	}
}

// addUnnamed takes in the folders that are not finished and have no name of an episode yet:
// one that is being copied, say.
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
