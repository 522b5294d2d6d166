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

// The events. This is not fsnotify, because that asks for writes as well: a directory in which an
// experiment writes has thousands of them per second.
const (
	nameEvents = unix.IN_CREATE | unix.IN_MOVED_TO
	selfEvents = unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
	watchFlags = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK
	initFlags  = unix.IN_CLOEXEC | unix.IN_NONBLOCK
)

// watchEpisodes reports to the loop which episodes have just become finished. It only saves the
// time until the next scan, which finds whatever is missed here.
func (d *dispatcher) watchEpisodes(ctx context.Context) error {
	w, err := d.newWatcher(ctx)
	if err == nil {
		defer w.f.Close()
		err = w.run()
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("inotify unavailable, scanning only", "every", d.cfg.ScanInterval, "err", err)
	}
	return nil
}

// episodeWatcher watches the episodes directory, and in it the episodes without a marker.
type episodeWatcher struct {
	dispatcher  *dispatcher
	ctx         context.Context // of the run
	f           *os.File
	episodes    *durable.Dir
	root        int32
	names       map[int32]string // by watch descriptor
	limitLogged bool             // that the kernel has no more watches
}

func (d *dispatcher) newWatcher(ctx context.Context) (*episodeWatcher, error) {
	fd, err := d.inotify(initFlags)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	episodes, _ := d.src.Dirs()
	w := &episodeWatcher{dispatcher: d, ctx: ctx, f: os.NewFile(uintptr(fd), "inotify"), episodes: episodes, names: make(map[int32]string)}
	context.AfterFunc(ctx, func() { w.f.Close() })
	root, err := unix.InotifyAddWatch(fd, episodes.Path(""), nameEvents|selfEvents|unix.IN_ONLYDIR)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", episodes.Path(""), err), w.f.Close())
	}
	w.root = int32(root)
	return w, nil
}

func (w *episodeWatcher) run() error {
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

func (w *episodeWatcher) handleEvent(wd int32, mask uint32, name string) error {
	switch {
	case mask&unix.IN_Q_OVERFLOW != 0:
		return w.watchAll()
	case wd == w.root && mask&(selfEvents|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0:
		return w.requestScan() // which finds that the directory was moved
	case mask&unix.IN_IGNORED != 0:
		delete(w.names, wd)
	case wd == w.root:
		return w.checkEpisode(name)
	case name == episode.Marker:
		if of, known := w.names[wd]; known {
			return w.checkEpisode(of)
		}
	}
	return nil
}

// watchAll watches every unfinished episode, at the start and after events were lost. Then it
// requests a scan: an episode may have become finished between the last scan and its watch.
func (w *episodeWatcher) watchAll() error {
	for name, err := range w.dispatcher.src.Names() {
		if err != nil {
			return err
		}
		finished, err := w.dispatcher.src.IsFinished(episode.Name(name))
		if err != nil || finished {
			continue
		}
		if err := w.checkEpisode(name); err != nil {
			return err
		}
	}
	return w.requestScan()
}

// requestScan has the loop start a scan.
func (w *episodeWatcher) requestScan() error {
	if !sendOrDone(w.ctx, w.dispatcher.finishedc, "") {
		return w.ctx.Err()
	}
	return nil
}

// checkEpisode reports a finished episode to the loop, and watches an unfinished one. The marker
// may have come before the watch, so it checks twice.
func (w *episodeWatcher) checkEpisode(name string) error {
	parsed, err := episode.ParseName(name)
	if err != nil {
		return nil // the scan reports it
	}
	finished, err := w.dispatcher.src.IsFinished(parsed)
	if err == nil && !finished {
		if err := w.addWatch(name); err != nil {
			return nil
		}
		finished, err = w.dispatcher.src.IsFinished(parsed)
	}
	if err != nil || !finished {
		return nil
	}
	w.removeWatch(name)
	if !sendOrDone(w.ctx, w.dispatcher.finishedc, parsed) {
		return w.ctx.Err()
	}
	return nil
}

func (w *episodeWatcher) addWatch(name string) error {
	wd, err := unix.InotifyAddWatch(int(w.f.Fd()), w.episodes.Path(name), nameEvents|watchFlags)
	if errors.Is(err, unix.ENOSPC) && !w.limitLogged {
		w.limitLogged = true
		w.dispatcher.log.Warn("inotify watches exhausted", "every", w.dispatcher.cfg.ScanInterval,
			"hint", "some episodes are found only by the scan")
	}
	if err != nil {
		return &fs.PathError{Op: "watch", Path: w.episodes.Path(name), Err: err}
	}
	w.names[int32(wd)] = name
	return nil
}

// removeWatch removes the watch of an episode that is about to be moved away. The kernel may have
// removed it before.
func (w *episodeWatcher) removeWatch(name string) {
	for wd, n := range w.names {
		if n == name {
			delete(w.names, wd)
			unix.InotifyRmWatch(int(w.f.Fd()), uint32(wd))
			return
		}
	}
}
