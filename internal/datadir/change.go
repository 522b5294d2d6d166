package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// HostChange is what a change of a [HostList] did for a host.
type HostChange struct {
	Host    episode.Name `json:"host_id"`
	State   HostState    `json:"state"`
	Changed bool         `json:"changed"`         // it had the other state before
	Since   *time.Time   `json:"since,omitempty"` // when it was disabled
	Known   bool         `json:"known"`           // the receiver has, or had, archives or uploads of it
}

// HostList changes the list of disabled hosts. A running receiver notices.
type HostList struct {
	Dir    string     // the data directory
	Holder string     // describes this process to others that wait for the lock
	Shared SharedList // of several receivers; nil: the list in Dir is the only one
}

// Disable makes the receiver refuse hosts until [HostList.Enable], and end their requests. When it
// returns without an error the change is durable.
func (l HostList) Disable(ctx context.Context, names []episode.Name, now time.Time) ([]HostChange, error) {
	since := now.UTC().Truncate(time.Second)
	return l.change(ctx, names, func(list *hostList, change *HostChange) {
		change.State = HostDisabled
		if e, already := list.disabled[change.Host]; already {
			change.Since = &e.Since
			return
		}
		list.disabled[change.Host] = disabledEntry{Host: change.Host, Since: since}
		change.Changed, change.Since = true, &since
	})
}

// Remove makes the receiver refuse hosts until they join again with a new certificate. What
// they have stored stays. Otherwise it is as [HostList.Disable].
func (l HostList) Remove(ctx context.Context, names []episode.Name, now time.Time) ([]HostChange, error) {
	since := now.UTC().Truncate(time.Second)
	return l.change(ctx, names, func(list *hostList, change *HostChange) {
		change.State = HostRemoved
		e, disabled := list.disabled[change.Host]
		if !disabled {
			e = disabledEntry{Host: change.Host, Since: since}
		}
		change.Changed, change.Since = !e.Removed, &e.Since
		e.Removed = true
		list.disabled[change.Host] = e
	})
}

// Readmit serves a removed host again, with the certificate that it has just got. Its former
// certificates must already be refused here. With several receivers, they end at all of them.
func (l HostList) Readmit(ctx context.Context, name episode.Name, serial string, notBefore time.Time) error {
	_, err := l.change(ctx, []episode.Name{name}, func(list *hostList, change *HostChange) {
		if list.disabled[name].Removed {
			delete(list.disabled, name)
			change.Changed = true
		}
		if l.Shared != nil {
			e := replacedEntry{Host: name, NotBefore: notBefore, By: serial}
			if former := list.replaced[name]; former.NotBefore.After(notBefore) {
				e.NotBefore = former.NotBefore // of a clock that was ahead: what has ended stays ended
			}
			list.replaced[name] = e
			change.Changed = true
		}
	})
	return err
}

// Enable reverts [HostList.Disable]. A certificate that is revoked or expired stays so, and a host
// that was removed stays removed.
func (l HostList) Enable(ctx context.Context, names []episode.Name) ([]HostChange, error) {
	return l.change(ctx, names, func(list *hostList, change *HostChange) {
		change.State = HostActive
		e, disabled := list.disabled[change.Host]
		switch {
		case e.Removed:
			change.State, change.Since = HostRemoved, &e.Since
		case disabled:
			delete(list.disabled, change.Host)
			change.Changed, change.Since = true, &e.Since
		}
	})
}

func (l HostList) change(ctx context.Context, names []episode.Name, apply func(*hostList, *HostChange)) ([]HostChange, error) {
	data, err := durable.Open(l.Dir)
	if l.Shared != nil && errors.Is(err, fs.ErrNotExist) {
		data, err = nil, nil // no receiver has run on this machine
	}
	if err != nil {
		return nil, err
	}
	if data != nil {
		defer data.Close()
	}
	var changes []HostChange
	change := func(list *hostList) bool {
		changes = nil // those of an attempt that another receiver overtook
		changed := false
		for _, name := range names {
			change := HostChange{Host: name, Known: l.isKnown(data, name)}
			apply(list, &change)
			changed = changed || change.Changed
			changes = append(changes, change)
		}
		return changed
	}
	if l.Shared != nil {
		err = l.changeShared(ctx, data, change)
	} else {
		var moved error
		err = changeDisabled(ctx, data, l.Holder, func(list *hostList) bool {
			// Checked under the lock: a copy of the store takes it to read the list, once the store has moved.
			moved = CheckHere(l.Dir)
			if moved != nil {
				return false
			}
			return change(list)
		})
		err = errors.Join(err, moved)
	}
	if err != nil {
		return nil, fmt.Errorf("change the list of disabled hosts: %w", err)
	}
	return changes, nil
}

// isKnown reports whether the data directory has archives or uploads of a host, or with several
// receivers its report. If that cannot be read it returns true: the result is for a hint only.
func (l HostList) isKnown(data *durable.Dir, host episode.Name) bool {
	if data == nil {
		return true
	}
	names := map[string]string{"episodes": string(host), "staging": string(host)}
	if l.Shared != nil {
		names = map[string]string{"reports": string(host) + ".report"}
	}
	for name, entry := range names {
		dir, err := data.OpenDir(name)
		if err == nil {
			_, err = dir.Lstat(entry)
			dir.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}
