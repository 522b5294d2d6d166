package diskbackend

import (
	"cmp"
	"errors"
	"io/fs"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/device"
	"cis490/internal/durable"
	"cis490/internal/fleet"
	"cis490/internal/index"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// Status describes the data directory at one moment. It is read without a walk through the
// store.
type Status struct {
	DataDir string `json:"data_dir"`
	Running string `json:"running"` // which process holds the lock; empty if none does, or if that is unknown
	// RunningUnknown reports that this user may not read the lock.
	RunningUnknown bool `json:"running_unknown,omitempty"`

	FreeBytes int64 `json:"free_bytes"`
	MinFree   int64 `json:"min_free"`
	// FullInHours is when the free space falls to MinFree, at the rate of the last day or week. It is
	// nil if it does not fall, or if too little is known.
	FullInHours *float64 `json:"full_in_hours,omitempty"`
	// FreeInodes is the number of free inodes; nil if the file system has no limit.
	FreeInodes    *int64 `json:"free_inodes,omitempty"`
	MinFreeInodes int64  `json:"min_free_inodes"`
	Quarantined   int    `json:"quarantined"` // files in quarantine
	// TornTails are the files that have what was cut from the end of the index.
	TornTails index.TornTails `json:"torn_tails"`
	// DisabledHosts is the number of disabled hosts. It is nil if the list cannot be used:
	// then all hosts are refused.
	DisabledHosts *int `json:"disabled_hosts"`
	// Store is nil before the first start, and if its identity cannot be used.
	Store *datadir.Identity `json:"store,omitempty"`
	// Disk describes the disk of the archives, and Lifetime how long verifications on it
	// count, see [device.Volume].
	Disk     string          `json:"disk"`
	Lifetime device.Lifetime `json:"readings_bound_to"`
	// Problems are the errors of entries of the data directory.
	Problems  []string       `json:"problems,omitempty"`
	ScrubRate int64          `json:"scrub_rate"` // bytes per second; 0: the scrub is disabled
	Scrub     scrub.Progress `json:"scrub"`
	// OldestRead is the maximum time since an archive was last read, in seconds. It is nil if
	// no scrub has read the whole store.
	OldestRead *int64 `json:"oldest_unread_seconds"`
}

// InspectStatus reads the status of c's data directory. It writes nothing, and may run beside a
// live receiver.
func InspectStatus(c Config, now time.Time) (Status, error) {
	st := Status{DataDir: c.DataDir, MinFree: c.MinFree, ScrubRate: int64(c.Scrub.Rate)}
	data, err := durable.Open(c.DataDir)
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
	if err := st.inspectSpace(c, data, now); err != nil {
		return st, err
	}
	st.Quarantined = store.CountQuarantined(data, func(err error) { st.Problems = append(st.Problems, err.Error()) })
	if st.TornTails, err = index.ReadTornTails(data, datadir.IndexFile); err != nil {
		st.Problems = append(st.Problems, err.Error())
	}
	if n, err := datadir.CountDisabled(c.DataDir); err != nil {
		st.Problems = append(st.Problems, err.Error())
	} else {
		st.DisabledHosts = &n
	}
	if is, err := datadir.InspectStore(c.DataDir); err == nil {
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
		st.OldestRead = &age
	}
	return st, nil
}

// inspectSpace sets the free space, and a problem if uploads are refused for it.
func (st *Status) inspectSpace(c Config, data *durable.Dir, now time.Time) error {
	free, err := data.FreeSpace()
	if err != nil {
		return err
	}
	st.FreeBytes = free.Bytes
	if free.TotalInodes > 0 {
		st.FreeInodes, st.MinFreeInodes = &free.Inodes, c.InodeFloor(free.TotalInodes)
	}
	if kept, err := fleet.ReadReceiver(data); err == nil && !free.IsUnknown() {
		if left := fleet.TimeUntilFull(kept.Samples, fleet.Sample{At: now.Unix(), Free: free.Bytes}, c.MinFree); left > 0 {
			hours := fleet.InHours(left)
			st.FullInHours = &hours
		}
	}
	if err := c.checkSpace(data); err != nil {
		st.Problems = append(st.Problems, err.Error())
	}
	return nil
}

// inspectDisk sets the disk, and drops the progress of a scrub on another one.
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
	// An id that lasts until a restart differs in this process: that is not another disk.
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
