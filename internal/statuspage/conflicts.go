package statuspage

import (
	"time"

	"cis490/internal/datadir"
)

// conflicts are the episodes whose name is taken.
type conflicts struct {
	List []conflict
	// Unnamed are hosts that hold more episodes for a conflict than List has: the others were refused before
	// the receiver started, or were dropped from its list.
	Unnamed []unnamed
}

// conflict is an episode that was refused, with the commands that resolve the conflict.
type conflict struct {
	Host, URL, Episode text
	Last               moment
	Times              int
	Commands           []text // on the host
}

type unnamed struct {
	Host, URL text
	Held      int64
}

// newConflicts returns the conflicts of a host, or of all hosts if host is empty. The link root leads from
// the page to the overview. Conflicts are resolved if their host has reported since, and holds none.
func newConflicts(s State, host string, root text) conflicts {
	held, since := make(map[string]int64), make(map[string]time.Time)
	for _, h := range s.Hosts {
		if r := h.Report; r != nil && !r.Silent && h.State == datadir.HostActive {
			held[string(h.Name())], since[string(h.Name())] = r.Held["conflict"], r.ReceivedAt
		}
	}
	var all conflicts
	named := make(map[string]int64)
	for _, c := range s.Conflicts {
		name := string(c.Key.Host)
		if host != "" && name != host || since[name].After(c.Last) && held[name] == 0 {
			continue
		}
		named[name]++
		all.List = append(all.List, conflict{
			Host: clean(name), URL: hostURL(root, name), Episode: clean(string(c.Key.Name)), Last: momentOf(c.Last, s.Now), Times: c.Times,
			Commands: []text{"shipper held", commandLine("shipper retry --keep-both %s", string(c.Key.Name))},
		})
	}
	for _, h := range s.Hosts {
		name := string(h.Name())
		if n := held[name] - named[name]; n > 0 && (host == "" || host == name) {
			all.Unnamed = append(all.Unnamed, unnamed{clean(name), hostURL(root, name), n})
		}
	}
	return all
}
