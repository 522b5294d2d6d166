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
)

// Limits of the list. An entry takes at most 256 bytes, so that a list of maxDisabledHosts
// fits.
const (
	maxDisabledHosts = 4096
	maxDisabledBytes = 1 << 20
)

// ErrDisabledList says that the list of disabled hosts cannot be used. Then all hosts are
// refused: a disabled one must not get access because a file is damaged.
var ErrDisabledList = errors.New("the list of disabled hosts cannot be used")

// disabledHosts has the hosts that are disabled or removed.
type disabledHosts map[episode.Name]disabledEntry

// disabledList is the content of the file.
type disabledList struct {
	Version  int             `json:"schema_version"` // 1
	Disabled []disabledEntry `json:"disabled"`
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
func loadDisabled(data *durable.Dir) (disabledHosts, durable.Stat, error) {
	b, st, err := readTrusted(data, disabledFile, maxDisabledBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, durable.Stat{}, nil
	}
	if err != nil {
		return nil, st, disabledListError(data, err)
	}
	hosts, err := parseDisabled(b)
	if err != nil {
		return nil, st, disabledListError(data, err)
	}
	return hosts, st, nil
}

// disabledListError wraps an error of the file and adds what to do about it. For a
// permission error the command line adds that.
func disabledListError(data *durable.Dir, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrDisabledList, err)
	}
	return fmt.Errorf("%w: %s: %w; restore it from a backup, or remove it, which enables all hosts", ErrDisabledList, data.Path(disabledFile), err)
}

// parseDisabled parses the content of the file. It refuses what it does not understand.
func parseDisabled(b []byte) (disabledHosts, error) {
	var list disabledList
	if err := decodeJSON(b, maxDisabledBytes, &list, &list.Version); err != nil {
		return nil, err
	}
	if list.Disabled == nil {
		return nil, errors.New("there is no member \"disabled\"")
	}
	hosts := make(disabledHosts, len(list.Disabled))
	for _, e := range list.Disabled {
		if _, err := episode.ParseName(string(e.Host)); err != nil {
			return nil, err
		}
		if _, twice := hosts[e.Host]; twice {
			return nil, fmt.Errorf("host %s is in it twice", e.Host)
		}
		hosts[e.Host] = e
	}
	return hosts, nil
}

// save replaces the file. A power loss leaves the old list or the new one.
func (h disabledHosts) save(data *durable.Dir) error {
	list := disabledList{Version: 1, Disabled: []disabledEntry{}}
	for _, host := range slices.Sorted(maps.Keys(h)) {
		list.Disabled = append(list.Disabled, h[host])
	}
	return writeJSON(data, disabledFile, list)
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
}

// DisabledSnapshot is the list at one time. It is immutable, and a list that was read again
// is another snapshot.
type DisabledSnapshot struct {
	hosts disabledHosts
	Err   error // why the list cannot be used; wraps [ErrDisabledList]
}

// Has reports whether a host is disabled.
func (s *DisabledSnapshot) Has(host episode.Name) bool {
	_, disabled := s.hosts[host]
	return disabled
}

// IsRemoved reports whether a host can only join again.
func (s *DisabledSnapshot) IsRemoved(host episode.Name) bool { return s.hosts[host].Removed }

// WatchDisabled reads the list. The error wraps [ErrDisabledList].
func WatchDisabled(data *durable.Dir, log *slog.Logger) (*DisabledWatch, error) {
	hosts, st, err := loadDisabled(data)
	if err != nil {
		return nil, err
	}
	return &DisabledWatch{data: data, log: log, now: &DisabledSnapshot{hosts: hosts}, stat: st}, nil
}

// Current returns the list that is in the data directory now.
func (w *DisabledWatch) Current() *DisabledSnapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
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
	hosts, st, err := loadDisabled(w.data)
	before := w.now
	w.now, w.stat, w.readAt = &DisabledSnapshot{hosts, err}, st, time.Now()
	switch {
	case err == nil:
		w.log.Info("list of disabled hosts changed", "disabled", len(hosts))
	case before.Err == nil || before.Err.Error() != err.Error():
		w.log.Error("all hosts are refused", "err", err)
	}
	return w.now
}

// changeDisabled saves the list if change reports that it has changed it. It may run beside
// a live receiver. holder describes this process to others that wait for the lock.
func changeDisabled(ctx context.Context, data *durable.Dir, holder string, change func(disabledHosts) bool) error {
	lock, err := data.WaitLock(ctx, disabledLock, holder)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	hosts, _, err := loadDisabled(data)
	if err != nil {
		return err
	}
	if hosts == nil {
		hosts = make(disabledHosts)
	}
	if !change(hosts) {
		return nil
	}
	if len(hosts) > maxDisabledHosts {
		return fmt.Errorf("at most %d hosts can be disabled; use a CRL for more", maxDisabledHosts)
	}
	return hosts.save(data)
}
