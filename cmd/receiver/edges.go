package main

import (
	"context"
	"sync"
	"time"

	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/fleet"
	"cis490/internal/notify"
)

// edgeInterval is how often the daemon looks for hosts that became silent, and for low space.
const edgeInterval = time.Minute

// runHooks watches edges and sends heartbeats until ctx ends. Neither can fail.
func runHooks(ctx context.Context, hooks *notify.Notifier, source *factSource, heartbeat *notify.Heartbeat) error {
	var both sync.WaitGroup
	both.Go(func() { watchEdges(ctx, hooks, source) })
	both.Go(func() { heartbeat.Run(ctx) })
	both.Wait()
	return nil
}

// watchEdges tells the hooks which hosts become silent, and when space becomes low, until ctx ends.
func watchEdges(ctx context.Context, hooks *notify.Notifier, source *factSource) {
	edges := hooks.Edges()
	if edges == nil {
		return
	}
	tick := time.NewTicker(edgeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f := source.latest()
		for _, e := range edges.Update(hostStates(f), f.hostsErr == nil, spaceState(f), time.Now()) {
			hooks.Notify(e)
		}
	}
}

// hostStates returns the hosts that are served, as 'receiver hosts' judges them.
func hostStates(f facts) []notify.HostState {
	var list []notify.HostState
	for _, h := range f.hosts {
		if !h.IsServed() {
			continue
		}
		s := notify.HostState{Host: h.Name(), Silent: h.HasProblem("silent")}
		if h.LastContact != nil {
			s.Contact, s.Heard = *h.LastContact, *h.LastContact
		}
		if h.Report != nil {
			s.Heard = h.Report.ReceivedAt
		}
		list = append(list, s)
	}
	return list
}

// spaceState returns the state of the disk, or nil if it could not be read.
func spaceState(f facts) *notify.SpaceState {
	if f.statusErr != nil {
		return nil
	}
	s := &notify.SpaceState{Low: isSpaceLow(f.status), Data: notify.Data{MinFree: &f.status.MinFree, FullIn: f.status.FullInHours}}
	if f.status.FreeBytes != durable.UnknownSpace {
		s.Data.Free = &f.status.FreeBytes
	}
	return s
}

// isSpaceLow reports whether uploads are refused for lack of space, or the forecast of 'receiver status
// --check' is at least a warning.
func isSpaceLow(st diskbackend.Status) bool {
	return st.FreeBytes < st.MinFree ||
		st.FreeInodes != nil && *st.FreeInodes < st.MinFreeInodes ||
		fleet.ForecastSeverity(fleet.FromHours(st.FullInHours)) > fleet.OK
}
