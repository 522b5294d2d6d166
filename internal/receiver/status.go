package receiver

import (
	"cmp"
	"errors"
	"io/fs"
	"time"

	"cis490/internal/admission"
	"cis490/internal/datadir"
	"cis490/internal/device"
	"cis490/internal/durable"
	"cis490/internal/index"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// Status is what the data directory says at one moment, without a walk through
// the store.
type Status struct {
	DataDir string `json:"data_dir"`
	Running string `json:"running"` // who has the data directory; empty if nobody, or if that is unknown
	// RunningUnknown says that the user who asks may not look at the lock.
	RunningUnknown bool `json:"running_unknown,omitempty"`

	FreeBytes int64 `json:"free_bytes"`
	MinFree   int64 `json:"min_free"`
	// FreeInodes is how many files the disk has room for; nil if it has no limit.
	FreeInodes    *int64 `json:"free_inodes,omitempty"`
	MinFreeInodes int64  `json:"min_free_inodes"`
	SetAside      int    `json:"quarantined"` // copies that are not what they were
	// TornTails is what was cut from the end of the index, and saved.
	TornTails index.TornTails `json:"torn_tails"`
	// DisabledHosts is how many hosts are refused; nil if the list cannot be used, and
	// then all are.
	DisabledHosts *int `json:"disabled_hosts"`
	// Store is nil before the first start, and if its name cannot be used.
	Store *datadir.Identity `json:"store,omitempty"`
	// Disk says how long what was read back counts, see [device.Volume].
	Disk     string          `json:"disk"`
	Lifetime device.Lifetime `json:"readings_bound_to"`
	// Problems are the entries of the data directory that cannot be looked at.
	Problems  []string       `json:"problems,omitempty"`
	ScrubRate int64          `json:"scrub_rate"` // bytes a second; 0: the store is not read back
	Scrub     scrub.Progress `json:"scrub"`
	// Unread is how long ago the oldest reading of an archive may lie, in
	// seconds; nil if the store was never read to its end.
	Unread *int64 `json:"oldest_unread_seconds"`
}

// Inspect reads what there is to know of c's data directory. It writes nothing,
// and works beside a running receiver.
func Inspect(c Config, now time.Time) (Status, error) {
	st := Status{DataDir: string(c.DataDir), MinFree: int64(c.MinFree), ScrubRate: int64(c.Scrub.Rate)}
	data, err := durable.Open(string(c.DataDir))
	if err != nil {
		return st, err
	}
	defer data.Close()
	holder, state, err := datadir.Holder(data)
	if err != nil {
		return st, err
	}
	st.RunningUnknown = state == durable.LockUnknown
	if state == durable.LockHeld {
		st.Running = cmp.Or(holder, "another process")
	}
	if err := st.inspectSpace(c, data); err != nil {
		return st, err
	}
	st.SetAside = store.CountSetAside(data, func(err error) { st.Problems = append(st.Problems, err.Error()) })
	if st.TornTails, err = index.ReadTornTails(data, datadir.IndexFile); err != nil {
		st.Problems = append(st.Problems, err.Error())
	}
	if n, err := datadir.CountDisabled(string(c.DataDir)); err != nil {
		st.Problems = append(st.Problems, err.Error())
	} else {
		st.DisabledHosts = &n
	}
	if is, err := datadir.InspectStore(string(c.DataDir)); err == nil {
		st.Store = &is
	} else if !errors.Is(err, fs.ErrNotExist) {
		st.Problems = append(st.Problems, err.Error())
	}
	var perr error
	if st.Scrub, perr = scrub.LoadProgress(data); perr != nil && errors.Is(perr, durable.ErrFault) {
		return st, perr
	}
	if err := st.inspectDisk(c); err != nil {
		return st, err
	}
	if !st.Scrub.WholeSince.IsZero() {
		age := int64(now.Sub(st.Scrub.WholeSince) / time.Second)
		st.Unread = &age
	}
	return st, nil
}

// inspectSpace says what is free, and whether uploads are refused for it.
func (st *Status) inspectSpace(c Config, data *durable.Dir) error {
	free, err := data.Free()
	if err != nil {
		return err
	}
	st.FreeBytes = free.Bytes
	if free.TotalInodes > 0 {
		st.FreeInodes, st.MinFreeInodes = &free.Inodes, admission.FloorOf(c.MinFreeInodes, free.TotalInodes)
	}
	if err := c.checkSpace(data); err != nil {
		st.Problems = append(st.Problems, err.Error())
	}
	return nil
}

// inspectDisk drops what was read on another disk than the present one.
func (st *Status) inspectDisk(c Config) error {
	v, err := VolumeOf(c)
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			st.Problems = append(st.Problems, err.Error())
		}
		return nil
	}
	st.Disk, st.Lifetime = v.String(), v.Lifetime
	// A number of this process is not that of the daemon's: its readings count there.
	if st.Scrub.Disk != v.ID() && v.Lifetime != device.UntilRestart {
		st.Scrub = scrub.Progress{}
	}
	return nil
}

// VolumeOf returns the file system and the disk of c's stored archives. The error
// wraps [fs.ErrNotExist] before the first start.
func VolumeOf(c Config) (device.Volume, error) {
	episodes, _ := c.Paths()
	r, err := store.OpenReader(episodes)
	if err != nil {
		return device.Volume{}, err
	}
	defer r.Close()
	return r.Volume()
}
