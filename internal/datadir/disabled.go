package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// The list of disabled hosts in the data directory, and the lock of its writers.
const (
	disabledFile = "disabled-hosts.json"
	disabledLock = ".disabled-hosts.lock"
	// indexCopyFile is in the data directory of a receiver whose store is in a bucket: see package batchlog.
	indexCopyFile = ".index.copied.json"
)

// Limits of the list. An entry takes at most 256 bytes, so that a list of maxDisabledHosts
// fits, and as many replaced certificates.
const (
	maxDisabledHosts = 4096
	// MaxDisabledBytes is the maximum size of the list.
	MaxDisabledBytes = 2 << 20
)

// ErrDisabledList says that the list of disabled hosts cannot be used. Then all hosts are
// refused: a disabled one must not get access because a file is damaged.
var ErrDisabledList = errors.New("the list of disabled hosts cannot be used")

// hostList has the hosts that are disabled or removed. With several receivers it also has the
// certificates that ended when a host joined again: see [SharedList].
type hostList struct {
	shared   SharedVersion
	disabled map[episode.Name]disabledEntry
	replaced map[episode.Name]replacedEntry
}

// disabledList is the content of the file.
type disabledList struct {
	Version  int             `json:"schema_version"` // 1
	Disabled []disabledEntry `json:"disabled"`
	SharedVersion
	Replaced []replacedEntry `json:"replaced,omitempty"`
}

type disabledEntry struct {
	Host  episode.Name `json:"host_id"`
	Since time.Time    `json:"since"`
	// Removed says that the host can only join again. Older programs ignore it: to them, the host
	// is disabled.
	Removed bool `json:"removed,omitempty"`
}

// loadDisabled reads the list and returns it with the state of its file. If there is no
// file the list is empty and the state zero. Any other error wraps [ErrDisabledList].
func loadDisabled(data *durable.Dir) (hostList, durable.Stat, error) {
	b, st, err := readTrusted(data, disabledFile, MaxDisabledBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return hostList{}, durable.Stat{}, nil
	}
	if err != nil {
		return hostList{}, st, disabledListError(data, err)
	}
	list, err := parseDisabled(b)
	if err != nil {
		return hostList{}, st, disabledListError(data, err)
	}
	return list, st, nil
}

// disabledListError wraps an error of the file and adds what to do about it. For a
// permission error the command line adds that.
func disabledListError(data *durable.Dir, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrDisabledList, err)
	}
	advice := "restore it from a backup, or remove it, which enables all hosts"
	if _, serr := data.Lstat(indexCopyFile); serr == nil {
		advice = "remove it: it is a copy, and is read again from the bucket"
	}
	return fmt.Errorf("%w: %s: %w; %s", ErrDisabledList, data.Path(disabledFile), err, advice)
}

// parseDisabled parses the content of the file. It refuses what it does not understand.
func parseDisabled(b []byte) (hostList, error) {
	var file disabledList
	if err := decodeJSON(b, MaxDisabledBytes, &file, &file.Version); err != nil {
		return hostList{}, err
	}
	if file.Disabled == nil {
		return hostList{}, errors.New("there is no member \"disabled\"")
	}
	if file.Number < 0 {
		return hostList{}, fmt.Errorf("its version is %d", file.Number)
	}
	list := hostList{shared: file.SharedVersion}
	var err error
	if list.disabled, err = byHost(file.Disabled, func(e disabledEntry) episode.Name { return e.Host }); err != nil {
		return hostList{}, err
	}
	list.replaced, err = byHost(file.Replaced, func(e replacedEntry) episode.Name { return e.Host })
	return list, err
}

// byHost returns the entries of a list by their hosts.
func byHost[E any](list []E, hostOf func(E) episode.Name) (map[episode.Name]E, error) {
	entries := make(map[episode.Name]E, len(list))
	for _, e := range list {
		host := hostOf(e)
		if _, err := episode.ParseName(string(host)); err != nil {
			return nil, err
		}
		if _, twice := entries[host]; twice {
			return nil, fmt.Errorf("host %s is in it twice", host)
		}
		entries[host] = e
	}
	return entries, nil
}

// content returns the content of the file.
func (l hostList) content() disabledList {
	file := disabledList{Version: 1, Disabled: []disabledEntry{}, SharedVersion: l.shared}
	for _, host := range slices.Sorted(maps.Keys(l.disabled)) {
		file.Disabled = append(file.Disabled, l.disabled[host])
	}
	for _, host := range slices.Sorted(maps.Keys(l.replaced)) {
		file.Replaced = append(file.Replaced, l.replaced[host])
	}
	return file
}

// save replaces the file. A power loss leaves the old list or the new one.
func (l hostList) save(data *durable.Dir) error { return writeJSON(data, disabledFile, l.content()) }

// checkSize returns an error if the list is too long.
func (l hostList) checkSize() error {
	if len(l.disabled) > maxDisabledHosts {
		return fmt.Errorf("at most %d hosts can be disabled; use a CRL for more", maxDisabledHosts)
	}
	if len(l.replaced) > maxDisabledHosts {
		return fmt.Errorf("at most %d hosts can join again; use a CRL for more", maxDisabledHosts)
	}
	return nil
}

// DisabledWatch reads the list for a running receiver. Other processes change the file, so
// each use compares its inode, size and times: one system call, where inotify would need a
// goroutine, a descriptor and a fallback, and would be late.
type DisabledWatch struct {
	data *durable.Dir
	log  *slog.Logger

	mu     sync.Mutex // guards the fields below
	now    *DisabledSnapshot
	stat   durable.Stat // of the file that now was read from; zero if there was none
	readAt time.Time
	shared *DisabledSnapshot // see [DisabledWatch.UseShared]; nil with one receiver
}

// DisabledSnapshot is the list at one time. It is immutable, and a list that was read again
// is another snapshot.
type DisabledSnapshot struct {
	list hostList
	Err  error // why the list cannot be used; wraps [ErrDisabledList]
}

// Has reports whether a host is disabled.
func (s *DisabledSnapshot) Has(host episode.Name) bool {
	_, disabled := s.list.disabled[host]
	return disabled
}

// IsRemoved reports whether a host can only join again.
func (s *DisabledSnapshot) IsRemoved(host episode.Name) bool { return s.list.disabled[host].Removed }

// WatchDisabled reads the list. The error wraps [ErrDisabledList].
func WatchDisabled(data *durable.Dir, log *slog.Logger) (*DisabledWatch, error) {
	list, st, err := loadDisabled(data)
	if err != nil {
		return nil, err
	}
	return &DisabledWatch{data: data, log: log, now: &DisabledSnapshot{list: list}, stat: st}, nil
}

// WatchCopy is [WatchDisabled] for a receiver that shares the list with others. A copy that is damaged refuses
// all hosts until [DisabledWatch.UseShared] is called.
func WatchCopy(data *durable.Dir, log *slog.Logger) *DisabledWatch {
	list, st, err := loadDisabled(data)
	return &DisabledWatch{data: data, log: log, now: &DisabledSnapshot{list, err}, stat: st, readAt: time.Now()}
}

// Current returns the list that is in the data directory now, or a newer one of several receivers.
func (w *DisabledWatch) Current() *DisabledSnapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current()
}

// current is [DisabledWatch.Current]. The caller must hold w.mu.
func (w *DisabledWatch) current() *DisabledSnapshot {
	file := w.readFile()
	if w.shared == nil || file.Err == nil && file.list.shared.Number > w.shared.list.shared.Number {
		return file
	}
	return w.shared
}

// readFile returns the list that is in the data directory now. The caller must hold w.mu.
func (w *DisabledWatch) readFile() *DisabledSnapshot {
	if w.now.Err != nil && time.Since(w.readAt) < rereadInterval {
		return w.now
	}
	st, err := w.data.Lstat(disabledFile)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = durable.Stat{}, nil
	}
	if err == nil && w.now.Err == nil && isUnchanged(st, w.stat) {
		return w.now
	}
	list, st, err := loadDisabled(w.data)
	before := w.now
	w.now, w.stat, w.readAt = &DisabledSnapshot{list, err}, st, time.Now()
	switch {
	case w.shared != nil && (err != nil || list.shared.Number <= w.shared.list.shared.Number): // a copy
	case err == nil:
		w.log.Info("list of disabled hosts changed", "disabled", len(list.disabled))
	case before.Err == nil || before.Err.Error() != err.Error():
		w.log.Error("all hosts are refused", "err", err)
	}
	return w.now
}

// changeDisabled saves the list if change reports that it has changed it. It may run beside
// a live receiver. holder describes this process to others that wait for the lock.
func changeDisabled(ctx context.Context, data *durable.Dir, holder string, change func(*hostList) bool) error {
	lock, err := data.WaitLock(ctx, disabledLock, holder)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	list, _, err := loadDisabled(data)
	if err != nil {
		return err
	}
	list.makeMaps()
	if !change(&list) {
		return nil
	}
	if err := list.checkSize(); err != nil {
		return err
	}
	return list.save(data)
}

// makeMaps makes the list one that can be changed.
func (l *hostList) makeMaps() {
	if l.disabled == nil {
		l.disabled = make(map[episode.Name]disabledEntry)
	}
	if l.replaced == nil {
		l.replaced = make(map[episode.Name]replacedEntry)
	}
}
