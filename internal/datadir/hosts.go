package datadir

import (
	"errors"
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
	for name, e := range disabled.disabled {
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
	return len(list.disabled), err
}

// DisabledHosts returns the sorted names of the hosts that are disabled but not removed.
func DisabledHosts(dir string) ([]episode.Name, error) {
	data, err := durable.Open(dir)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	list, _, err := loadDisabled(data)
	maps.DeleteFunc(list.disabled, func(_ episode.Name, e disabledEntry) bool { return e.Removed })
	return slices.Sorted(maps.Keys(list.disabled)), err
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
