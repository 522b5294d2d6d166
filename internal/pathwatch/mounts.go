package pathwatch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/printable"
)

const mountinfoPath = "/proc/self/mountinfo"

// maxMountinfo bounds the list of mounts in bytes, at about 100,000 mounts.
const maxMountinfo = 64 << 20

// maxMountLine bounds a line of the list. Only options follow beyond it.
const maxMountLine = 64 << 10

// mountEntry is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mountEntry struct {
	id     uint64
	device string
	root   string // path within the file system
	point  string
	fsType string // of file system
	source string
}

// mountLine is a mountEntry with its options, which may change while a mount stays.
type mountLine struct {
	mountEntry
	options string // of the mount, then of the file system
}

// mountWatch detects that something was mounted or unmounted at some paths or above them. In a
// mount namespace, the kernel puts a mount from outside beneath the one that this process has at
// the same place. No path leads to it: only the list of mounts shows it.
type mountWatch struct {
	mu      sync.Mutex
	f       *os.File                // guarded by mu
	paths   map[string]string       // paths of directories, by where they really are
	initial map[mountEntry]struct{} // the mounts at these paths and above, when the watch began
	moved   *MovedError             // guarded by mu; never reset
	// pending says that the kernel reported a change that was not examined yet; guarded by mu.
	pending bool
}

// watchMounts starts to watch the paths of directories. It returns an error wrapping
// [fs.ErrNotExist] if there is no list of mounts.
func watchMounts(dirs []*durable.Dir) (*mountWatch, error) {
	w := &mountWatch{paths: make(map[string]string)}
	for _, d := range dirs {
		real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(d.File().Fd())))
		if err != nil {
			return nil, err
		}
		w.paths[real] = d.File().Name()
	}
	// Not os.Open: the runtime would poll the file too, and consume the reports of changes.
	fd, err := unix.Open(mountinfoPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: mountinfoPath, Err: err}
	}
	w.f = os.NewFile(uintptr(fd), mountinfoPath)
	if w.initial, err = w.readTable(); err != nil {
		return nil, errors.Join(err, w.f.Close())
	}
	return w, nil
}

func (w *mountWatch) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.Close()
}

// checkUnmoved returns a [*MovedError] if something was mounted or unmounted. Concurrent calls wait
// for one examination, because the kernel reports a change only once.
func (w *mountWatch) checkUnmoved() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.moved != nil {
		return w.moved
	}
	changed, err := w.hasChanged()
	if err != nil || !changed && !w.pending {
		return err
	}
	w.pending = true
	now, err := w.readTable()
	if err != nil {
		return err
	}
	w.pending = false
	w.moved = w.compareMounts(now)
	if w.moved != nil {
		return w.moved
	}
	return nil
}

// hasChanged asks the kernel whether the list of mounts has changed since the last call.
func (w *mountWatch) hasChanged() (bool, error) {
	fds := []unix.PollFd{{Fd: int32(w.f.Fd()), Events: unix.POLLPRI}}
	err := durable.RetryEINTR(func() error {
		_, err := unix.Poll(fds, 0)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("poll %s: %w", mountinfoPath, err)
	}
	return fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0, nil
}

// readTable returns the mounts at the paths and above them.
func (w *mountWatch) readTable() (map[mountEntry]struct{}, error) {
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	found := make(map[mountEntry]struct{})
	err := eachMount(w.f, func(m mountEntry) {
		for real := range w.paths {
			if isBelow(real, m.point) {
				found[m] = struct{}{}
				return
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", mountinfoPath, err)
	}
	return found, nil
}

// compareMounts returns what happened to one of the paths, or nil.
func (w *mountWatch) compareMounts(now map[mountEntry]struct{}) *MovedError {
	for m := range now {
		if _, old := w.initial[m]; !old {
			return w.movedBy(m, causeMounted)
		}
	}
	for m := range w.initial {
		if _, still := now[m]; !still {
			return w.movedBy(m, causeUnmount)
		}
	}
	return nil
}

func (w *mountWatch) movedBy(m mountEntry, cause string) *MovedError {
	for real, path := range w.paths {
		if isBelow(real, m.point) {
			return &MovedError{Path: path, Cause: fmt.Sprintf("%s: %s from %s on %s", cause, printable.Text(m.fsType), printable.Text(m.source), printable.Text(m.point))}
		}
	}
	return &MovedError{Path: m.point, Cause: cause}
}

// isBelow reports whether path is dir or below it. Both are clean.
func isBelow(path, dir string) bool {
	rest, found := strings.CutPrefix(path, dir)
	return found && (rest == "" || rest[0] == '/' || strings.HasSuffix(dir, "/"))
}

// eachMount calls do for each mount of a list.
func eachMount(list io.Reader, do func(mountEntry)) error {
	return eachMountLine(list, func(m mountLine) { do(m.mountEntry) })
}

// eachMountLine is eachMount with the options. It skips malformed lines: others choose the names,
// and no such line is of our directories.
func eachMountLine(list io.Reader, do func(mountLine)) error {
	limited := &io.LimitedReader{R: list, N: maxMountinfo}
	r := bufio.NewReaderSize(limited, maxMountLine)
	for {
		line, err := r.ReadSlice('\n')
		if m, ok := parseMount(line); ok {
			do(m)
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a long line
			_, err = r.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			if limited.N == 0 {
				return fmt.Errorf("more than %d bytes", maxMountinfo)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// parseMount parses a line of the list.
func parseMount(line []byte) (mountLine, bool) {
	before, after, found := bytes.Cut(line, []byte(" - "))
	fields := bytes.Split(before, []byte(" "))
	rest := bytes.Split(bytes.TrimSuffix(after, []byte("\n")), []byte(" "))
	if !found || len(fields) < 6 || len(rest) < 2 {
		return mountLine{}, false
	}
	id, err := strconv.ParseUint(string(fields[0]), 10, 64)
	if err != nil || len(fields[4]) == 0 || fields[4][0] != '/' {
		return mountLine{}, false
	}
	m := mountLine{
		mountEntry: mountEntry{
			id: id, device: string(fields[2]), root: unescapePath(fields[3]), point: unescapePath(fields[4]),
			fsType: unescapePath(rest[0]), source: unescapePath(rest[1]),
		},
		options: string(fields[5]),
	}
	if len(rest) > 2 {
		m.options += "," + string(rest[2])
	}
	return m, true
}

// unescapePath decodes a backslash and three octal digits to a byte. Other bytes represent
// themselves.
func unescapePath(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		if b[0] == '\\' && len(b) >= 4 {
			if n, err := strconv.ParseUint(string(b[1:4]), 8, 8); err == nil {
				out, b = append(out, byte(n)), b[4:]
				continue
			}
		}
		out, b = append(out, b[0]), b[1:]
	}
	return string(out)
}

// Mount describes a mount and its file system. Other users may have chosen the texts.
type Mount struct {
	ID      uint64
	Type    string // of the file system, such as ext4
	Source  string // usually a device
	Point   string
	Options []string // of the mount, then of the file system
}

// MountOf returns the mount that a directory is on. It returns an error wrapping [fs.ErrNotExist] if the list
// of mounts does not have it.
func MountOf(d *durable.Dir) (Mount, error) {
	st, err := statOpen(d.File())
	if err != nil {
		return Mount{}, err
	}
	path, err := filepath.EvalSymlinks(d.File().Name())
	if err != nil {
		return Mount{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return Mount{}, err
	}
	list, err := os.Open(mountinfoPath)
	if err != nil {
		return Mount{}, err
	}
	defer list.Close()
	return findMount(list, path, st)
}

// findMount returns the mount of a directory. Kernels before 5.8 do not say which it is: then it is
// the last one of the list that is nearest above path, which hides the others.
func findMount(list *os.File, path string, st unix.Statx_t) (Mount, error) {
	var found *mountLine
	err := eachMountLine(list, func(m mountLine) {
		if st.Mask&unix.STATX_MNT_ID != 0 {
			if m.id == st.Mnt_id {
				found = &m
			}
			return
		}
		if isBelow(path, m.point) && (found == nil || len(m.point) >= len(found.point)) {
			found = &m
		}
	})
	if err == nil && found == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Mount{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	return Mount{
		ID: found.id, Type: found.fsType, Source: found.source, Point: found.point,
		Options: strings.Split(found.options, ","),
	}, nil
}
