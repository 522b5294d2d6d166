package notify

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/durable"
	"cis490/internal/printable"
)

// Limits of a queue.
const (
	maxPerType = 200    // events of one type
	maxNames   = 10_000 // names of its directory that are read; another user may write to it
	recount    = time.Second
	tempAge    = time.Minute // after which a temporary file was left by a crash
	entryPerm  = 0o640       // the user of the command is in the group
)

// Entry is a file of a queue.
type Entry struct {
	Name   string
	Number uint64 // nanoseconds since 1970, or one more than that of the preceding entry
	Type   Type
}

// Queued returns when the event was queued, as far as the clock was right.
func (e Entry) Queued() time.Time { return time.Unix(0, int64(e.Number)).UTC() }

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
	keep []string      // other files of its directory
	wake chan struct{} // has a value after an event was added

	total atomic.Int64 // events that were dropped

	mu        sync.Mutex
	dir       *durable.Dir // nil until it could be opened
	last      uint64       // the largest number
	counts    map[Type]int
	countedAt time.Time
	dropped   map[Type]int64  // since the last event of that type that was queued
	failure   string          // of the last write, for a log line per change
	ignored   map[string]bool // files that could not be removed
}

// newQueue returns the queue in the directory that open opens. It is opened when it is needed.
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

// Dropped returns the number of events that did not fit or could not be written.
func (q *Queue) Dropped() int64 { return q.total.Load() }

// Add queues an event, or counts it as dropped. It logs only when writing begins to fail or works again.
func (q *Queue) Add(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fits, err := q.write(e)
	if err != nil {
		_ = q.closeDir() // it may have been replaced
	}
	if !fits || err != nil {
		q.dropped[e.Type]++
		q.total.Add(1)
	}
	q.logState(fits, err)
}

// count records events that were dropped before they reached the queue.
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

// write writes the file of an event, and reports whether it fits. The caller must hold q.mu.
func (q *Queue) write(e Event) (fits bool, err error) {
	if err := q.openDir(); err != nil {
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

// openDir opens the directory unless it is open. The caller must hold q.mu.
func (q *Queue) openDir() error {
	if q.dir != nil {
		return nil
	}
	dir, err := q.open()
	if err != nil {
		return err
	}
	q.dir = dir
	return q.count()
}

// count reads how many events are queued. The caller must hold q.mu.
func (q *Queue) count() error {
	l, err := list(q.dir)
	if err != nil {
		return err
	}
	clear(q.counts)
	for _, e := range l.entries {
		q.counts[e.Type]++
		q.last = max(q.last, e.Number)
	}
	q.countedAt = time.Now()
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
	l, err := list(q.dir)
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
		if !errors.Is(err, errNotEvent) {
			return Entry{}, nil, err
		}
		q.removeWithWarning(e.Name, err)
	}
	return Entry{}, nil, fs.ErrNotExist
}

// removeForeign removes files that have no name of an event. The caller must hold q.mu.
func (q *Queue) removeForeign(names []string) {
	for _, name := range names {
		if q.ignored[name] || slices.Contains(q.keep, name) {
			continue
		}
		st, err := q.dir.Lstat(name)
		if err != nil || strings.HasPrefix(name, ".") && time.Since(st.ChangedAt()) < tempAge {
			continue // it may be written at this moment
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

// ignore leaves a file out from now on. The caller must hold q.mu.
func (q *Queue) ignore(name string) {
	if len(q.ignored) < maxNames {
		q.ignored[name] = true
	}
}

// remove removes an event that was delivered. If that fails, the event is ignored, because it must not be
// delivered again and again.
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

// isEmpty reports whether the directory has no file at all.
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

// errNotEvent says that a file is not an event.
var errNotEvent = errors.New("it is not an event")

// readEvent returns the bytes of an event. Its error wraps [errNotEvent] if the file is not one.
func readEvent(dir *durable.Dir, e Entry) ([]byte, error) {
	st, err := dir.Lstat(e.Name)
	if err != nil {
		return nil, err
	}
	if !st.IsRegular() || st.Links() != 1 || st.Size() > MaxEvent {
		return nil, fmt.Errorf("%w: not a regular file of at most %d bytes", errNotEvent, MaxEvent)
	}
	f, err := dir.Open(e.Name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err = durable.StatFile(f); err == nil && !st.IsRegular() { // replaced meanwhile
		return nil, errNotEvent
	}
	text, err := durable.ReadAtMost(f, e.Name, MaxEvent)
	if err != nil {
		return nil, err
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

// listing is what a directory has.
type listing struct {
	entries []Entry  // the oldest first
	foreign []string // other names
}

// list reads the names of a queue. Of too many it returns some.
func list(dir *durable.Dir) (listing, error) {
	var l listing
	n := 0
	for e, err := range dir.Names() {
		if err != nil {
			return l, err
		}
		if n++; n > maxNames {
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
