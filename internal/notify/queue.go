package notify

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/printable"
)

// Limits of a queue.
const (
	maxPerType = 200            // events of one type
	maxNames   = 10_000         // names of its directory that are read; another user may write to it
	recount    = time.Second    // how often a full queue is counted again
	tempAge    = time.Minute    // a crash has left a temporary file that is older
	entryPerm  = 0o640          // the user of the command is in the group
	maxAhead   = 24 * time.Hour // of the clock
)

// Entry is a file of a queue.
type Entry struct {
	Name   string
	Number uint64 // nanoseconds since 1970, or one more than that of the preceding entry
	Type   Type
}

// isPlausible reports whether this queue may have chosen the number. No larger number could follow one that
// another user made up, and a clock that was far ahead must not determine all later numbers.
func (e Entry) isPlausible(now time.Time) bool {
	return e.Number <= uint64(max(0, now.Add(maxAhead).UnixNano()))
}

var entryPattern = regexp.MustCompile(`^([0-9]{20})-([a-z_]+)\.json$`)

func entryName(number uint64, t Type) string { return fmt.Sprintf("%020d-%s.json", number, t) }

// parseEntry parses the name of a file.
func parseEntry(name string) (Entry, bool) {
	m := entryPattern.FindStringSubmatch(name)
	if m == nil || !slices.Contains(allTypes(), Type(m[2])) {
		return Entry{}, false
	}
	n, err := strconv.ParseUint(m[1], 10, 63)
	return Entry{name, n, Type(m[2])}, err == nil
}

// Queue is a directory with a file per event. One process adds events, and one removes them.
type Queue struct {
	open func() (*durable.Dir, error)
	log  *slog.Logger
	keep []string // other files of its directory
	// shared says that another user may write to the directory: a file that cannot be read must not block
	// the others. In the receiver's own directory that is a fault to report.
	shared bool
	wake   chan struct{} // has a value after an event was added

	total atomic.Int64 // events that were dropped

	mu        sync.Mutex
	dir       *durable.Dir // nil until it could be opened
	last      uint64       // the largest number that is plausible
	counts    map[Type]int
	countedAt time.Time
	dropped   map[Type]int64  // since an event of that type was last queued
	failure   string          // of the last write; only changes of it are logged
	ignored   map[string]bool // files that could not be removed or read
}

// newQueue returns the queue in the directory that open opens. It calls open when it needs the directory.
func newQueue(open func() (*durable.Dir, error), log *slog.Logger) *Queue {
	return &Queue{
		open: open, log: log, wake: make(chan struct{}, 1),
		counts: make(map[Type]int), dropped: make(map[Type]int64), ignored: make(map[string]bool),
	}
}

// Close closes the directory.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closeDir()
}

func (q *Queue) closeDir() error {
	if q.dir == nil {
		return nil
	}
	err := q.dir.Close()
	q.dir = nil
	return err
}

// check returns an error if no event could be added.
func (q *Queue) check() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.openAndCount()
	if err == nil {
		if path := q.dir.Path(""); unix.Access(path, unix.W_OK|unix.X_OK) != nil {
			err = fmt.Errorf("%s: %w for the user of the receiver", path, errNoAccess)
		}
	}
	if err != nil {
		_ = q.closeDir()
	}
	return err
}

// Dropped returns the number of events that did not fit or could not be written.
func (q *Queue) Dropped() int64 { return q.total.Load() }

// Add queues an event, or counts it as dropped. It logs only when writing begins to fail or works again.
func (q *Queue) Add(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fits, err := q.writeEvent(e)
	if err != nil {
		_ = q.closeDir() // it may have been replaced
	}
	if !fits || err != nil {
		q.dropped[e.Type]++
		q.total.Add(1)
	}
	q.logState(fits, err)
}

// countDropped records events that were dropped before they reached the queue.
func (q *Queue) countDropped(t Type, n int64) {
	if n == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped[t] += n
	q.total.Add(n)
}

func (q *Queue) logState(fits bool, err error) {
	failure := ""
	switch {
	case err != nil:
		failure = "write"
	case !fits:
		failure = "full"
	}
	if failure == q.failure {
		return
	}
	q.failure = failure
	switch {
	case err != nil:
		q.log.Warn("event not queued", "err", err, "hint", "uploads are not affected; later events say how many were dropped")
	case !fits:
		q.log.Warn("queue of events is full", "max", maxPerType, "hint", "new events of this type are dropped until some are delivered: see 'receiver hooks list'")
	default:
		q.log.Info("events are queued again")
	}
}

// writeEvent writes the file of an event, and reports whether it fits. The caller must hold q.mu.
func (q *Queue) writeEvent(e Event) (fits bool, err error) {
	if err := q.openAndCount(); err != nil {
		return false, err
	}
	if q.counts[e.Type] >= maxPerType && time.Since(q.countedAt) >= recount {
		if err := q.count(); err != nil { // another process removes files
			return false, err
		}
	}
	if q.counts[e.Type] >= maxPerType {
		return false, nil
	}
	e.Dropped = q.dropped[e.Type]
	text, err := e.Encode()
	if err != nil {
		return false, err
	}
	q.last = max(q.last+1, uint64(max(0, time.Now().UnixNano())))
	if err := q.dir.WriteFileNoSync(entryName(q.last, e.Type), text, entryPerm); err != nil {
		return false, err
	}
	q.counts[e.Type]++
	q.dropped[e.Type] = 0
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true, nil
}

// openAndCount opens the directory unless it is open, and counts its events. The caller must hold q.mu.
func (q *Queue) openAndCount() error {
	if err := q.openDir(); err != nil || !q.countedAt.IsZero() {
		return err
	}
	return q.count()
}

// openDir opens the directory unless it is open. Removing events needs no count of them, and must work even
// if there are too many names. The caller must hold q.mu.
func (q *Queue) openDir() error {
	if q.dir != nil {
		return nil
	}
	dir, err := q.open()
	if err != nil {
		return err
	}
	q.dir, q.countedAt = dir, time.Time{}
	return nil
}

// count reads how many events are queued. It returns an error if the directory has too many names: the
// events among them cannot be counted. The caller must hold q.mu.
func (q *Queue) count() error {
	l, err := readListing(q.dir)
	if err == nil {
		err = l.checkSize(q.dir)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	clear(q.counts)
	for _, e := range l.entries {
		q.counts[e.Type]++
		if e.isPlausible(now) {
			q.last = max(q.last, e.Number)
		}
	}
	q.countedAt = now
	return nil
}

// oldest returns the first event of the queue, and its bytes. It removes files that are not events. It
// returns an error wrapping [fs.ErrNotExist] if the queue is empty.
func (q *Queue) oldest() (Entry, []byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.openDir(); err != nil {
		return Entry{}, nil, err
	}
	l, err := readListing(q.dir)
	if err != nil {
		return Entry{}, nil, err
	}
	q.removeForeign(l.foreign)
	for _, e := range l.entries {
		if q.ignored[e.Name] {
			continue
		}
		text, err := readEvent(q.dir, e)
		if err == nil {
			return e, text, nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		switch {
		case errors.Is(err, errNotEvent):
			q.removeWithWarning(e.Name, err)
		case q.shared && errors.Is(err, errNoAccess):
			q.log.Warn("event cannot be read", "file", e.Name, "err", err, "hint", "it is skipped until cis490-hook.service restarts; correct its owner and mode, or remove it")
			q.ignore(e.Name)
		default:
			return Entry{}, nil, err
		}
	}
	return Entry{}, nil, fs.ErrNotExist
}

// removeForeign removes files whose names are not those of events. The caller must hold q.mu.
func (q *Queue) removeForeign(names []string) {
	for _, name := range names {
		if q.ignored[name] || slices.Contains(q.keep, name) {
			continue
		}
		st, err := q.dir.Lstat(name)
		if err != nil || strings.HasPrefix(name, ".") && time.Since(st.ChangedAt()) < tempAge {
			continue // another process may be writing it
		}
		q.removeWithWarning(name, errNotEvent)
	}
}

// removeWithWarning removes a file that is not an event. The caller must hold q.mu.
func (q *Queue) removeWithWarning(name string, why error) {
	log := q.log.With("file", printable.Text(name))
	if err := q.dir.Unlink(name); err != nil {
		log.Warn("file in queue not removed", "err", err, "hint", "remove it from "+q.dir.Path(""))
		q.ignore(name)
		return
	}
	log.Warn("removed file from queue", "err", why)
}

// ignore skips a file from now on. The caller must hold q.mu.
func (q *Queue) ignore(name string) {
	if len(q.ignored) < maxNames {
		q.ignored[name] = true
	}
}

// remove removes an event that was delivered. If that fails, the event is skipped from now on, so that it is
// not delivered again and again.
func (q *Queue) remove(e Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.openDir()
	if err == nil {
		err = q.dir.Unlink(e.Name)
	}
	if err != nil {
		q.log.Warn("delivered event not removed", "file", e.Name, "err", err, "hint", "it is sent again after a restart")
		q.ignore(e.Name)
		return
	}
	q.counts[e.Type] = max(0, q.counts[e.Type]-1)
}

// isEmpty reports whether the directory contains nothing at all.
func (q *Queue) isEmpty() (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.openDir(); err != nil {
		return false, err
	}
	for _, err := range q.dir.Names() {
		return false, err
	}
	return true, nil
}

// Errors of readEvent.
var (
	// errNotEvent says that a file is not an event.
	errNotEvent = errors.New("it is not an event")
	// errNoAccess says that this process may not read a file, or may not write to a directory.
	errNoAccess = errors.New("no access")
)

// readEvent returns the bytes of an event. Its error wraps errNotEvent if the file is not one, and errNoAccess
// if this process may not read it.
func readEvent(dir *durable.Dir, e Entry) ([]byte, error) {
	st, err := dir.Lstat(e.Name)
	if err != nil {
		return nil, err
	}
	if !st.IsRegular() || st.Links() != 1 || st.Size() > MaxEvent {
		return nil, fmt.Errorf("%w: not a regular file of at most %d bytes", errNotEvent, MaxEvent)
	}
	f, err := dir.Open(e.Name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: %w", errNoAccess, err)
	case errors.Is(err, unix.ELOOP): // replaced in between
		return nil, fmt.Errorf("%w: %w", errNotEvent, err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	if st, err = durable.StatFile(f); err == nil && !st.IsRegular() { // replaced in between
		return nil, errNotEvent
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxEvent+1)) // it may have grown; ParseEvent refuses that
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Name, err)
	}
	event, err := ParseEvent(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotEvent, err)
	}
	if event.Type != e.Type {
		return nil, fmt.Errorf("%w: its type is not that of its name", errNotEvent)
	}
	return text, nil
}

// listing is the content of a directory.
type listing struct {
	entries []Entry  // the oldest first
	foreign []string // other names
	partial bool     // there are more than maxNames
}

// checkSize returns an error if the listing is not complete.
func (l listing) checkSize(dir *durable.Dir) error {
	if l.partial {
		return fmt.Errorf("%s has more than %d names: remove those that are not events", dir.Path(""), maxNames)
	}
	return nil
}

// readListing reads the names of a queue. If there are too many, it returns some of them, and says so.
func readListing(dir *durable.Dir) (listing, error) {
	var l listing
	n := 0
	for e, err := range dir.Names() {
		if err != nil {
			return l, err
		}
		n++
		if n > maxNames {
			l.partial = true
			break
		}
		if entry, ok := parseEntry(e.Name()); ok {
			l.entries = append(l.entries, entry)
		} else {
			l.foreign = append(l.foreign, e.Name())
		}
	}
	slices.SortFunc(l.entries, func(a, b Entry) int { return cmp.Or(cmp.Compare(a.Number, b.Number), strings.Compare(a.Name, b.Name)) })
	return l, nil
}

// isTemp reports whether a name is the temporary name of an event.
func isTemp(name string) bool {
	final, hidden := strings.CutPrefix(name, ".")
	final, temp := strings.CutSuffix(final, ".tmp")
	_, event := parseEntry(final)
	return hidden && temp && event
}
