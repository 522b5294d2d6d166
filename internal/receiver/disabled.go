package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
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

// Bounds of the list. A host's entry takes at most 256 bytes, so that a list of
// maxDisabledHosts fits.
const (
	maxDisabledHosts = 4096
	maxDisabledBytes = 1 << 20
)

// ErrDisabledList says that the list of disabled hosts cannot be used. All hosts are
// refused then: a disabled one must not get in because a file is damaged.
var ErrDisabledList = errors.New("the list of disabled hosts cannot be used")

// disabledHosts holds since when each host is disabled.
type disabledHosts map[episode.Name]time.Time

// disabledList is the content of the file.
type disabledList struct {
	Version  int             `json:"schema_version"` // 1
	Disabled []disabledEntry `json:"disabled"`
}

type disabledEntry struct {
	Host  episode.Name `json:"host_id"`
	Since time.Time    `json:"since"`
}

// loadDisabled reads the list, and returns the state of its file, which is zero if there
// is no file: the list is empty then. Any other error wraps [ErrDisabledList].
func loadDisabled(data *durable.Dir) (disabledHosts, durable.Stat, error) {
	b, st, err := readTrusted(data, disabledFile, maxDisabledBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, durable.Stat{}, nil
	}
	if err != nil {
		return nil, st, unusable(data, err)
	}
	hosts, err := parseDisabled(b)
	if err != nil {
		return nil, st, unusable(data, err)
	}
	return hosts, st, nil
}

// readTrusted reads a small file of the data directory that nobody else can have written,
// and one byte more if it is larger than most.
func readTrusted(data *durable.Dir, name string, most int64) ([]byte, durable.Stat, error) {
	f, err := data.Open(name)
	if err != nil {
		return nil, durable.Stat{}, err
	}
	defer f.Close()
	st, err := durable.StatFile(f)
	if err == nil {
		err = checkTrusted(data, st)
	}
	if err != nil {
		return nil, st, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	return b, st, err
}

// unusable says what to do about the file. About permissions the command line knows
// more.
func unusable(data *durable.Dir, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrDisabledList, err)
	}
	return fmt.Errorf("%w: %s: %w; restore it from a backup, or remove it, which enables all hosts", ErrDisabledList, data.Path(disabledFile), err)
}

// checkTrusted returns an error if a user other than the receiver's and root may have
// written the file: such a file decides which hosts have access, and what they believe.
func checkTrusted(data *durable.Dir, st durable.Stat) error {
	dir, err := data.Stat()
	if err != nil {
		return err
	}
	uid, _ := st.Owner()
	owner, _ := dir.Owner()
	switch {
	case !st.Regular():
		return errors.New("not a regular file")
	case uid != 0 && uid != owner && uid != os.Geteuid():
		return fmt.Errorf("it belongs to the user %d, not to the owner of the data directory", uid)
	case st.Perm()&0o022 != 0:
		return fmt.Errorf("others may write to it (mode %04o): check it, then run chmod go-w", st.Perm())
	}
	return nil
}

// parseDisabled parses the content of the file. It accepts nothing that it does not
// understand.
func parseDisabled(b []byte) (disabledHosts, error) {
	if len(b) > maxDisabledBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxDisabledBytes)
	}
	var list disabledList
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&list); err != nil {
		return nil, fmt.Errorf("not valid JSON: \"%s\"", episode.Printable(err.Error()))
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("there is something behind the JSON object")
	}
	if list.Version != 1 {
		return nil, fmt.Errorf("schema_version is %d, not 1; a newer receiver may have written it", list.Version)
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
		hosts[e.Host] = e.Since
	}
	return hosts, nil
}

// save replaces the file. A power cut leaves the old list or the new one.
func (h disabledHosts) save(data *durable.Dir) error {
	list := disabledList{Version: 1, Disabled: []disabledEntry{}}
	for _, host := range slices.Sorted(maps.Keys(h)) {
		list.Disabled = append(list.Disabled, disabledEntry{host, h[host]})
	}
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return data.WriteFile(disabledFile, append(b, '\n'), 0o640)
}

// disabledWatch is the list as a running receiver sees it. Another process changes the
// file, so each use compares its inode, size and times: one system call, where inotify
// would need a goroutine, a descriptor and a fallback, and would be late.
type disabledWatch struct {
	data *durable.Dir
	log  *slog.Logger

	mu     sync.Mutex // guards the fields below
	now    *disabledSnapshot
	at     durable.Stat // the file of now; zero if there was none
	readAt time.Time
}

// disabledRetry is how often a file that cannot be used is read again.
const disabledRetry = time.Second

// disabledSnapshot is the list at one time, or why there is none. It does not change,
// and a list that was read again is another snapshot.
type disabledSnapshot struct {
	hosts disabledHosts
	err   error
}

// watchDisabled reads the list. An error wraps [ErrDisabledList].
func watchDisabled(data *durable.Dir, log *slog.Logger) (*disabledWatch, error) {
	hosts, at, err := loadDisabled(data)
	if err != nil {
		return nil, err
	}
	return &disabledWatch{data: data, log: log, now: &disabledSnapshot{hosts: hosts}, at: at}, nil
}

// current returns the list as it is in the data directory now.
func (w *disabledWatch) current() *disabledSnapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now.err != nil && time.Since(w.readAt) < disabledRetry {
		return w.now
	}
	st, err := w.data.Lstat(disabledFile)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = durable.Stat{}, nil
	}
	if err == nil && w.now.err == nil && sameFile(st, w.at) {
		return w.now
	}
	hosts, at, err := loadDisabled(w.data)
	before := w.now
	w.now, w.at, w.readAt = &disabledSnapshot{hosts, err}, at, time.Now()
	switch {
	case err == nil:
		w.log.Info("list of disabled hosts changed", "disabled", len(hosts))
	case before.err == nil || before.err.Error() != err.Error():
		w.log.Error("all hosts are refused", "err", err)
	}
	return w.now
}

// sameFile reports whether a file was neither replaced nor changed between two looks. A
// replacement has another inode: both exist when it gets its name.
func sameFile(a, b durable.Stat) bool {
	am, ac := a.Times()
	bm, bc := b.Times()
	return a.Same(b) && a.Size() == b.Size() && am == bm && ac == bc
}

// disabledLockWait is how long a command waits for others that change the same.
const disabledLockWait = 10 * time.Second

// changeDisabled changes the list, if change reports that there is something to do.
// It works beside a running receiver. Holder is what the next command is told that has
// to wait for this one too long.
func changeDisabled(ctx context.Context, data *durable.Dir, holder string, change func(disabledHosts) bool) error {
	lock, err := waitForLock(ctx, data, disabledLock, holder)
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

func waitForLock(ctx context.Context, data *durable.Dir, name, holder string) (*durable.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, disabledLockWait)
	defer cancel()
	for {
		lock, err := data.Lock(name, holder)
		if _, locked := errors.AsType[*durable.LockedError](err); !locked {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return lock, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
