package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/store"
)

// HostState says whether the receiver serves a host.
type HostState string

// The states of a host.
const (
	HostActive   HostState = "active"
	HostDisabled HostState = "disabled"
	HostRemoved  HostState = "removed" // disabled, and can only join again
)

// Host is the state of a host in the data directory.
type Host struct {
	Host          episode.Name `json:"host_id"`
	State         HostState    `json:"state"`
	DisabledSince *time.Time   `json:"disabled_since,omitempty"`
	Stored        bool         `json:"stored"` // it has a folder of archives
}

// ListHosts returns the hosts that have stored something, are disabled or were removed, sorted by
// name. It changes nothing, and may run beside a live receiver.
func ListHosts(dir string) ([]Host, error) {
	data, err := durable.Open(dir)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	disabled, _, err := loadDisabled(data)
	if err != nil {
		return nil, err
	}
	all := make(map[episode.Name]Host)
	for name, e := range disabled {
		h := Host{Host: name, State: HostDisabled, DisabledSince: &e.Since}
		if e.Removed {
			h.State = HostRemoved
		}
		all[name] = h
	}
	if err := addStored(dir, all); err != nil {
		return nil, err
	}
	hosts := make([]Host, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		hosts = append(hosts, all[name])
	}
	return hosts, nil
}

// CountDisabled returns how many hosts are disabled. An error that wraps
// [ErrDisabledList] says that a receiver would refuse them all.
func CountDisabled(dir string) (int, error) {
	data, err := durable.Open(dir)
	if err != nil {
		return 0, err
	}
	defer data.Close()
	list, _, err := loadDisabled(data)
	return len(list), err
}

// DisabledHosts returns the sorted names of the hosts that are disabled but not removed.
func DisabledHosts(dir string) ([]episode.Name, error) {
	data, err := durable.Open(dir)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	list, _, err := loadDisabled(data)
	maps.DeleteFunc(list, func(_ episode.Name, e disabledEntry) bool { return e.Removed })
	return slices.Sorted(maps.Keys(list)), err
}

// addStored adds the hosts that have a folder of archives.
func addStored(dir string, all map[episode.Name]Host) error {
	r, err := store.OpenReader(filepath.Join(dir, "episodes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the receiver has never run
	}
	if err != nil {
		return err
	}
	defer r.Close()
	hosts, err := r.HostNames()
	for _, name := range hosts {
		h, known := all[name]
		if !known {
			h = Host{Host: name, State: HostActive}
		}
		h.Stored = true
		all[name] = h
	}
	return err
}

// HostChange is what [DisableHosts] or [EnableHosts] did for a host.
type HostChange struct {
	Host    episode.Name `json:"host_id"`
	State   HostState    `json:"state"`
	Changed bool         `json:"changed"`         // it had the other state before
	Since   *time.Time   `json:"since,omitempty"` // when it was disabled
	Known   bool         `json:"known"`           // the receiver has, or had, archives or uploads of it
}

// DisableHosts makes the receiver refuse hosts until [EnableHosts]. A running receiver
// notices, and ends their requests. When DisableHosts returns without an error the change is
// durable. holder describes this process to others that wait for the lock.
func DisableHosts(ctx context.Context, dir string, names []episode.Name, holder string, now time.Time) ([]HostChange, error) {
	since := now.UTC().Truncate(time.Second)
	return changeHosts(ctx, dir, names, holder, func(list disabledHosts, change *HostChange) {
		change.State = HostDisabled
		if e, already := list[change.Host]; already {
			change.Since = &e.Since
			return
		}
		list[change.Host] = disabledEntry{Host: change.Host, Since: since}
		change.Changed, change.Since = true, &since
	})
}

// RemoveHosts makes the receiver refuse hosts until they join again with a new certificate. What
// they have stored stays. Otherwise it is as [DisableHosts].
func RemoveHosts(ctx context.Context, dir string, names []episode.Name, holder string, now time.Time) ([]HostChange, error) {
	since := now.UTC().Truncate(time.Second)
	return changeHosts(ctx, dir, names, holder, func(list disabledHosts, change *HostChange) {
		change.State = HostRemoved
		e, disabled := list[change.Host]
		if !disabled {
			e = disabledEntry{Host: change.Host, Since: since}
		}
		change.Changed, change.Since = !e.Removed, &e.Since
		e.Removed = true
		list[change.Host] = e
	})
}

// ReadmitHost serves a removed host again. Its former certificates must already be refused.
func ReadmitHost(ctx context.Context, dir string, name episode.Name, holder string) error {
	_, err := changeHosts(ctx, dir, []episode.Name{name}, holder, func(list disabledHosts, change *HostChange) {
		if list[name].Removed {
			delete(list, name)
			change.Changed = true
		}
	})
	return err
}

// EnableHosts reverts [DisableHosts]. A certificate that is revoked or expired stays so, and a host
// that was removed stays removed.
func EnableHosts(ctx context.Context, dir string, names []episode.Name, holder string) ([]HostChange, error) {
	return changeHosts(ctx, dir, names, holder, func(list disabledHosts, change *HostChange) {
		change.State = HostActive
		e, disabled := list[change.Host]
		switch {
		case e.Removed:
			change.State, change.Since = HostRemoved, &e.Since
		case disabled:
			delete(list, change.Host)
			change.Changed, change.Since = true, &e.Since
		}
	})
}

func changeHosts(ctx context.Context, dir string, names []episode.Name, holder string, apply func(disabledHosts, *HostChange)) ([]HostChange, error) {
	data, err := durable.Open(dir)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	var changes []HostChange
	err = changeDisabled(ctx, data, holder, func(list disabledHosts) bool {
		changed := false
		for _, name := range names {
			change := HostChange{Host: name, Known: isKnown(data, name)}
			apply(list, &change)
			changed = changed || change.Changed
			changes = append(changes, change)
		}
		return changed
	})
	if err != nil {
		return nil, fmt.Errorf("change the list of disabled hosts: %w", err)
	}
	return changes, nil
}

// isKnown reports whether the data directory has archives or uploads of a host. If that
// cannot be read it returns true: the result is for a hint only.
func isKnown(data *durable.Dir, host episode.Name) bool {
	for _, name := range []string{"episodes", "staging"} {
		dir, err := data.OpenDir(name)
		if err == nil {
			_, err = dir.Lstat(string(host))
			dir.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}
