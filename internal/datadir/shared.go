package datadir

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// SharedList is the list of disabled hosts that several receivers share. Package sharedhosts keeps it in
// a bucket; the file in each data directory is a copy of one of its versions. It is an interface because
// this package knows no object store.
type SharedList interface {
	// Change stores what change returns as the next version, and returns the newest one, or nil if there
	// is none. It calls change with the number of the next version and the newest one, and again if another
	// process was faster. change returns nil to change nothing. known is a version that must still be there.
	Change(ctx context.Context, known SharedVersion, change func(next int64, newest []byte) ([]byte, error)) ([]byte, error)
}

// SharedVersion says which version of a [SharedList] a list is. It is zero with one receiver.
type SharedVersion struct {
	Number int64 `json:"version,omitempty"`
	// Change is random. By it a process recognizes its own version after a lost answer, and another one of
	// the same number after the bucket was restored from a backup.
	Change string `json:"change,omitempty"`
}

// IsOf reports whether this is what a version states. If the change is not known, the number
// decides.
func (v SharedVersion) IsOf(version []byte) bool {
	list, err := parseDisabled(version)
	return v.Change == "" || err == nil && list.shared == v
}

// replacedEntry ends the certificates of a host that were valid from NotBefore on or earlier, except the
// one with the serial number By. A record of package hostrecord says the same for one receiver.
type replacedEntry struct {
	Host      episode.Name `json:"host_id"`
	NotBefore time.Time    `json:"not_before"`
	By        string       `json:"by"`
}

// HasReplaced reports whether a certificate of a host ended at all receivers when the host joined again.
func (s *DisabledSnapshot) HasReplaced(host episode.Name, serial string, notBefore time.Time) bool {
	e, replaced := s.list.replaced[host]
	return replaced && serial != e.By && !notBefore.After(e.NotBefore)
}

// SharedVersion returns which version of a [SharedList] the list in the data directory is a copy of. It is
// zero if that is not a copy.
func (w *DisabledWatch) SharedVersion() SharedVersion {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.readFile().list.shared
}

// UseShared makes a version of the list current, whatever the file says, unless the file has a newer one.
// One that cannot be understood is current too, and the error wraps [ErrDisabledList]: all hosts are
// refused until UseShared is called with another one. nil is the list before the first version.
func (w *DisabledWatch) UseShared(number int64, version []byte) (SharedVersion, error) {
	list, err := hostList{}, error(nil)
	if version != nil {
		list, err = parseVersion(number, version)
	}
	if err != nil {
		w.RefuseAll(number, err)
		return SharedVersion{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.current()
	w.shared = &DisabledSnapshot{list: list}
	if before.Err != nil || before.list.shared.Number != number {
		w.log.Info("list of disabled hosts changed", "disabled", len(list.disabled))
	}
	return list.shared, nil
}

// SaveShared writes the file, unless it has the list of [DisabledWatch.UseShared] or a newer one. A damaged
// file is replaced: it is a copy. holder describes this process to others that wait for the lock.
func (w *DisabledWatch) SaveShared(ctx context.Context, holder string) error {
	w.mu.Lock()
	shared, file := w.shared, w.readFile()
	w.mu.Unlock()
	if shared == nil || shared.Err != nil || shared.list.shared.Number == 0 {
		return nil
	}
	if file.list.shared.Number >= shared.list.shared.Number {
		return nil
	}
	saved, err := saveVersion(ctx, w.data, holder, shared.list)
	if saved && file.Err != nil {
		w.log.Warn("damaged list of disabled hosts replaced", "err", file.Err, "hint", "it was read again from the bucket")
	}
	return err
}

// RefuseAll refuses all hosts until [DisabledWatch.UseShared] is called. err says why the version of a
// number cannot be used, and wraps [ErrDisabledList].
func (w *DisabledWatch) RefuseAll(number int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shared != nil && w.shared.Err != nil && w.shared.Err.Error() == err.Error() {
		return // as before
	}
	w.shared = &DisabledSnapshot{list: hostList{shared: SharedVersion{Number: number}}, Err: err}
	w.log.Error("all hosts are refused", "err", err)
}

// parseVersion parses a version of a shared list. Its error wraps [ErrDisabledList].
func parseVersion(number int64, version []byte) (hostList, error) {
	list, err := parseDisabled(version)
	if err == nil && list.shared.Number != number {
		err = fmt.Errorf("it says that it is version %d", list.shared.Number)
	}
	if err != nil {
		return hostList{}, fmt.Errorf("%w: version %d in the bucket: %w; upgrade this receiver if a newer one wrote it", ErrDisabledList, number, err)
	}
	return list, nil
}

// saveVersion writes the copy of a version in the data directory, unless that has a newer one, and reports
// whether it did.
func saveVersion(ctx context.Context, data *durable.Dir, holder string, list hostList) (bool, error) {
	lock, err := data.WaitLock(ctx, disabledLock, holder)
	if err != nil {
		return false, err
	}
	defer lock.Unlock()
	if current, _, err := loadDisabled(data); current.shared.Number >= list.shared.Number {
		return false, err
	}
	err = list.save(data)
	return err == nil, err
}

// changeShared changes the list of all receivers, and then the copy in data, which may be nil. A list in
// data that was not shared before is added first: the copy takes its place.
func (l HostList) changeShared(ctx context.Context, data *durable.Dir, change func(*hostList) bool) error {
	own := hostList{}
	var damage error
	if data != nil {
		own, _, damage = loadDisabled(data)
	}
	newest, err := changeVersion(ctx, l.Shared, own, damage, change)
	if err != nil || data == nil {
		return err
	}
	if newest.shared.Number == 0 {
		return nil
	}
	if _, err := saveVersion(ctx, data, l.Holder, newest); err != nil {
		return fmt.Errorf("changed for all receivers, but the copy in %s was not written: %w", l.Dir, err)
	}
	return nil
}

// changeVersion changes a shared list, and returns its newest version. own is the list of a data directory,
// whose entries are added unless it is a copy of the shared one. damage is why that could not be read: as a
// copy it is not needed, once the shared list has a version.
func changeVersion(ctx context.Context, shared SharedList, own hostList, damage error, change func(*hostList) bool) (newest hostList, err error) {
	id := rand.Text()
	_, err = shared.Change(ctx, own.shared, func(next int64, version []byte) ([]byte, error) {
		var list hostList
		if version == nil && damage != nil {
			return nil, damage // it may be the only list
		}
		if version != nil {
			var err error
			if list, err = parseVersion(next-1, version); err != nil {
				return nil, err
			}
		}
		list.makeMaps()
		newest = list
		adopted := own.shared.Number == 0 && list.adopt(own)
		if !change(&list) && !adopted {
			return nil, nil
		}
		list.shared = SharedVersion{next, id}
		newest = list
		if err := list.checkSize(); err != nil {
			return nil, err
		}
		return json.Marshal(list.content())
	})
	return newest, err
}

// Adopt adds the hosts of the list in the data directory to the shared one, if it was not shared before:
// a receiver of an older release had a list of its own, and a host that it refused must not get
// access. Of a list that is damaged, nothing can be added: see [HostList.Restore].
func (l HostList) Adopt(ctx context.Context) error {
	data, err := durable.Open(l.Dir)
	if err != nil {
		return err
	}
	defer data.Close()
	own, _, damage := loadDisabled(data)
	if damage != nil || own.shared.Number > 0 || len(own.disabled)+len(own.replaced) == 0 {
		return nil
	}
	err = l.changeShared(ctx, data, func(*hostList) bool { return false })
	if err != nil {
		return fmt.Errorf("add the hosts of %s to the list of all receivers: %w", data.Path(disabledFile), err)
	}
	return nil
}

// Restore replaces a damaged copy of the shared list, if that has a version.
func (l HostList) Restore(ctx context.Context) error {
	_, err := l.change(ctx, nil, nil)
	return err
}

// Replaced ends the certificates of a host that were valid from NotBefore on or earlier, except the one with
// the serial number By.
type Replaced struct {
	NotBefore time.Time
	By        string
}

// AdoptReplaced adds the certificates that have ended by the records of one receiver to the list of all,
// unless current, the newest version, has an entry for the host: before the list was shared, only the
// records had it.
func (l HostList) AdoptReplaced(ctx context.Context, current *DisabledSnapshot, replaced map[episode.Name]Replaced) error {
	missing := false
	for host := range replaced {
		_, known := current.list.replaced[host]
		missing = missing || !known
	}
	if !missing {
		return nil
	}
	hosts := slices.Collect(maps.Keys(replaced))
	_, err := l.change(ctx, hosts, func(list *hostList, change *HostChange) {
		if _, known := list.replaced[change.Host]; !known {
			e := replaced[change.Host]
			list.replaced[change.Host] = replacedEntry{Host: change.Host, NotBefore: e.NotBefore, By: e.By}
			change.Changed = true
		}
	})
	return err
}

// adopt adds the entries of another list, and reports whether that changed anything.
func (l *hostList) adopt(own hostList) (changed bool) {
	for host, e := range own.disabled {
		shared, known := l.disabled[host]
		switch {
		case !known:
			shared = e
		case e.Removed && !shared.Removed:
			shared.Removed = true
		default:
			continue
		}
		l.disabled[host], changed = shared, true
	}
	for host, e := range own.replaced {
		if known, is := l.replaced[host]; !is || e.NotBefore.After(known.NotBefore) {
			l.replaced[host], changed = e, true
		}
	}
	return changed
}
