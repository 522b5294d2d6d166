package shipper

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Events that are asked for. A directory in which an experiment writes has
// thousands of others a second, which is why this is not fsnotify: that asks
// for writes as well and cannot be told not to.
const (
	onName  = unix.IN_CREATE | unix.IN_MOVED_TO
	onSelf  = unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
	onDirs  = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK
	noFlags = unix.IN_CLOEXEC | unix.IN_NONBLOCK
)

// watch tells the loop which episodes have just become finished. It is a
// courtesy that saves the time to the next scan: whatever goes wrong here, the
// scan finds.
func (d *dispatcher) watch(ctx context.Context) error {
	w, err := d.newWatcher(ctx)
	if err == nil {
		defer w.f.Close()
		err = w.run()
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("no wake-up by the file system; episodes are found by scanning", "every", d.cfg.ScanInterval, "err", err)
	}
	return nil
}

// watcher watches the episodes folder, and in it the episodes that have no
// marker yet.
type watcher struct {
	d           *dispatcher
	ctx         context.Context // of the run
	f           *os.File
	episodes    *durable.Dir
	root        int32
	names       map[int32]string // by watch
	limitLogged bool             // the kernel has no more watches; said once
}

func (d *dispatcher) newWatcher(ctx context.Context) (*watcher, error) {
	fd, err := d.inotify(noFlags)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	episodes, _ := d.src.Dirs()
	w := &watcher{d: d, ctx: ctx, f: os.NewFile(uintptr(fd), "inotify"), episodes: episodes, names: make(map[int32]string)}
	context.AfterFunc(ctx, func() { w.f.Close() })
	root, err := unix.InotifyAddWatch(fd, episodes.Path(""), onName|onSelf|unix.IN_ONLYDIR)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", episodes.Path(""), err), w.f.Close())
	}
	w.root = int32(root)
	return w, nil
}

func (w *watcher) run() error {
	if err := w.watchAll(); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return fmt.Errorf("inotify: %w", err)
		}
		for events := buf[:n]; len(events) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(events))
			mask := binary.NativeEndian.Uint32(events[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
			name, _, _ := bytes.Cut(events[unix.SizeofInotifyEvent:size], []byte{0})
			if err := w.handleEvent(wd, mask, string(name)); err != nil {
				return err
			}
			events = events[size:]
		}
	}
}

func (w *watcher) handleEvent(wd int32, mask uint32, name string) error {
	switch {
	case mask&unix.IN_Q_OVERFLOW != 0:
		return w.watchAll()
	case wd == w.root && mask&(onSelf|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0:
		return w.requestScan() // which sees that the folder has moved
	case mask&unix.IN_IGNORED != 0:
		delete(w.names, wd)
	case wd == w.root:
		return w.check(name)
	case name == episode.Marker:
		if of, known := w.names[wd]; known {
			return w.check(of)
		}
	}
	return nil
}

// watchAll watches every episode that is not finished, at the start and when events
// were lost, and then has the folders scanned for those that are: one may have
// become so between the last scan and its watch.
func (w *watcher) watchAll() error {
	for name, err := range w.d.src.Names() {
		if err != nil {
			return err
		}
		finished, err := w.d.src.IsFinished(episode.Name(name))
		if err != nil || finished {
			continue
		}
		if err := w.check(name); err != nil {
			return err
		}
	}
	return w.requestScan()
}

// requestScan has the loop scan the folders now.
func (w *watcher) requestScan() error {
	if !publish(w.ctx, w.d.finishedc, "") {
		return w.ctx.Err()
	}
	return nil
}

// check tells the loop of an episode that is finished, and watches one that is
// not. The marker may have come before the watch did: hence the second look.
func (w *watcher) check(name string) error {
	parsed, err := episode.ParseName(name)
	if err != nil {
		return nil // the scan reports it
	}
	finished, err := w.d.src.IsFinished(parsed)
	if err == nil && !finished {
		if err := w.addWatch(name); err != nil {
			return nil
		}
		finished, err = w.d.src.IsFinished(parsed)
	}
	if err != nil || !finished {
		return nil
	}
	w.removeWatch(name)
	if !publish(w.ctx, w.d.finishedc, parsed) {
		return w.ctx.Err()
	}
	return nil
}

func (w *watcher) addWatch(name string) error {
	wd, err := unix.InotifyAddWatch(int(w.f.Fd()), w.episodes.Path(name), onName|onDirs)
	if errors.Is(err, unix.ENOSPC) && !w.limitLogged {
		w.limitLogged = true
		w.d.log.Warn("the kernel has no more inotify watches; some episodes are found by scanning", "every", w.d.cfg.ScanInterval)
	}
	if err != nil {
		return &fs.PathError{Op: "watch", Path: w.episodes.Path(name), Err: err}
	}
	w.names[int32(wd)] = name
	return nil
}

// removeWatch ends the watch of an episode that is about to be moved away. What the
// kernel has forgotten by itself is no error.
func (w *watcher) removeWatch(name string) {
	for wd, n := range w.names {
		if n == name {
			delete(w.names, wd)
			unix.InotifyRmWatch(int(w.f.Fd()), uint32(wd))
			return
		}
	}
}
