package notify

import (
	"log/slog"
	"maps"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Limits of [Edges].
const (
	maxSilent = 4096      // hosts that are remembered
	maxEdges  = 512 << 10 // bytes of the file
	// spaceSettled is how long space must be sufficient before low space is reported again.
	spaceSettled = 30 * time.Minute
)

// Edges detects that a host becomes silent, and that space becomes low. It remembers both in a file, so that
// a restart reports nothing twice. It is not safe for concurrent use.
type Edges struct {
	open func() (*durable.Dir, error)
	log  *slog.Logger

	loaded  bool
	state   edgeState
	lastLow time.Time
}

// edgeState is the content of the file.
type edgeState struct {
	// Silent maps each host that was reported to when it had last been heard.
	Silent map[episode.Name]time.Time `json:"silent"`
	Low    bool                       `json:"low_space"`
}

// HostState is what is known about a host that is served.
type HostState struct {
	Host    episode.Name
	Silent  bool
	Contact time.Time // zero if unknown
	// Heard is when the host gave its last sign of life: a report or, if it has never reported, a contact.
	Heard time.Time
}

// SpaceState is what is known about the disk.
type SpaceState struct {
	Low  bool
	Data Data // of the event
}

// Update returns the events for what has changed since the last call. space is nil if it could not be read.
// A host that is missing from an incomplete list stays as it was; one that is missing from a complete list
// was disabled or removed.
func (e *Edges) Update(hosts []HostState, complete bool, space *SpaceState, now time.Time) []Event {
	e.load(now)
	before := edgeState{maps.Clone(e.state.Silent), e.state.Low}
	if complete {
		e.forgetOthers(hosts)
	}
	var events []Event
	for _, h := range hosts {
		if e.updateHost(h) {
			events = append(events, Event{Type: HostSilent, Time: now, Data: Data{Host: h.Host, Contact: h.Contact.UTC()}})
		}
	}
	if space != nil && e.updateSpace(space.Low, now) {
		events = append(events, Event{Type: LowSpace, Time: now, Data: space.Data})
	}
	if before.Low != e.state.Low || !maps.Equal(before.Silent, e.state.Silent) {
		e.save()
	}
	return events
}

// forgetOthers forgets the hosts that are not in a list.
func (e *Edges) forgetOthers(list []HostState) {
	listed := make(map[episode.Name]bool, len(list))
	for _, h := range list {
		listed[h.Host] = true
	}
	maps.DeleteFunc(e.state.Silent, func(host episode.Name, _ time.Time) bool { return !listed[host] })
}

// updateHost remembers whether a host is silent, and reports whether it has become so. For a while after a
// start of the receiver no host is silent, so only a sign of life ends a silence. A contact does not count if
// the host has stopped reporting.
func (e *Edges) updateHost(h HostState) (newlySilent bool) {
	reported, known := e.state.Silent[h.Host]
	switch {
	case !h.Silent && known && h.Heard.After(reported):
		delete(e.state.Silent, h.Host)
		return false
	case !h.Silent, len(e.state.Silent) >= maxSilent && !known:
		return false
	}
	e.state.Silent[h.Host] = h.Heard.UTC()
	return !known
}

// updateSpace remembers whether space is low, and reports whether it has become so.
func (e *Edges) updateSpace(low bool, now time.Time) (newlyLow bool) {
	was := e.state.Low
	switch {
	case low:
		e.state.Low, e.lastLow = true, now
	case was && now.Sub(e.lastLow) >= spaceSettled:
		e.state.Low = false
	}
	return low && !was
}

// load reads the file at the first call.
func (e *Edges) load(now time.Time) {
	if e.loaded {
		return
	}
	e.loaded, e.lastLow = true, now
	if dir, err := e.open(); err == nil {
		defer dir.Close()
		var state edgeState
		if readState(dir, edgesFile, maxEdges, &state) && len(state.Silent) <= maxSilent {
			e.state = state
		}
	}
	if e.state.Silent == nil {
		e.state.Silent = make(map[episode.Name]time.Time)
	}
}

func (e *Edges) save() {
	dir, err := e.open()
	if err != nil {
		e.log.Debug("state of hooks not saved", "file", edgesFile, "err", err)
		return
	}
	defer dir.Close()
	writeState(dir, edgesFile, e.state, e.log)
}
