package receiver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Waits that refused senders are asked for, and how long they stand in the queue
// before that.
const (
	busyRetry = time.Second
	fullRetry = 5 * time.Minute
	queueWait = 10 * time.Second
)

// slots counts the uploads under way. A host has at most each of them, and while
// more than half are taken at most an equal share: others must find room. Who finds
// none stands in a queue for a while, until its host has twice as many under way and
// in line as it may have: an upload that waits costs less than one that comes again.
type slots struct {
	all, each int
	patience  time.Duration // how long one waits, at the most

	mu     sync.Mutex // guards the fields below
	taken  int
	hosts  map[episode.Name]int
	queue  []*inLine                  // in the order in which they came
	wanted map[episode.Name]time.Time // by hosts that had to wait, and since when
}

// inLine is one that waits for a place.
type inLine struct {
	host episode.Name
	turn chan struct{} // closed once it has one
}

// stillWanted is how long a host that was refused has a share: it comes again
// within that.
const stillWanted = 20 * time.Second

// take returns the function that gives the place up, or a refusal. That a sender has
// gone is not noticed while its body waits to be read: it waits to the end.
func (s *slots) take(ctx context.Context, host episode.Name) (func(), error) {
	w, err := s.enter(host)
	if err != nil {
		return nil, err
	}
	var late <-chan time.Time
	select {
	case <-w.turn:
	default:
		late = time.After(s.patience)
	}
	select {
	case <-w.turn:
	case <-late:
		err = s.refusal(w)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && s.quit(w) {
		return nil, err
	}
	return func() { s.free(host) }, nil
}

// enter puts a request of a host into the queue, where it may get its place at once.
func (s *slots) enter(host episode.Name) (*inLine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hosts == nil {
		s.hosts, s.wanted = make(map[episode.Name]int), make(map[episode.Name]time.Time)
	}
	all := s.hosts[host]
	for _, other := range s.queue {
		if other.host == host {
			all++
		}
	}
	if all >= 2*s.each {
		return nil, busy(wire.HostBusy, "%d uploads are under way or wait", all)
	}
	w := &inLine{host, make(chan struct{})}
	s.queue, s.wanted[host] = append(s.queue, w), time.Now()
	s.serve()
	return w, nil
}

// refusal says why one in line finds no place, even now: the time of another host
// that wanted one may have run out meanwhile.
func (s *slots) refusal(w *inLine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve()
	if has := s.hosts[w.host]; has >= s.each {
		return busy(wire.HostBusy, "%d uploads are under way", has)
	}
	return busy(wire.Busy, "all places for uploads are taken")
}

// quit takes one out of the queue, and reports whether it was still there.
func (s *slots) quit(w *inLine) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, w)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

func (s *slots) free(host episode.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.hosts[host]--; s.hosts[host] == 0 {
		delete(s.hosts, host)
	}
	s.serve()
}

// serve gives places to those in the queue that may have one, first to the host
// that has the fewest. The lock is held.
func (s *slots) serve() {
	for s.taken < s.all {
		share := s.share()
		next := -1
		for i, w := range s.queue {
			has := s.hosts[w.host]
			if has >= s.each || 2*s.taken > s.all && has >= share || next >= 0 && has >= s.hosts[s.queue[next].host] {
				continue
			}
			next = i
		}
		if next < 0 {
			return
		}
		w := s.queue[next]
		s.queue = slices.Delete(s.queue, next, next+1)
		delete(s.wanted, w.host)
		s.taken++
		s.hosts[w.host]++
		close(w.turn)
	}
}

// share returns the part of all that each host may have that has some or wants
// some. The lock is held.
func (s *slots) share() int {
	hosts := len(s.hosts)
	for host, at := range s.wanted {
		switch {
		case time.Since(at) > stillWanted:
			delete(s.wanted, host)
		case s.hosts[host] == 0:
			hosts++
		}
	}
	return max(1, s.all/max(1, hosts))
}

// busy refuses for what others do, and asks to come again soon.
func busy(code wire.Code, format string, args ...any) *wire.Problem {
	p := wire.Refuse(code, format, args...)
	p.RetryAfter = busyRetry
	return p
}

// space promises the disk's free bytes above the floor to uploads before they
// come, so that several cannot fill it together.
type space struct {
	free  func() (int64, error)
	min   int64
	quota quota

	mu       sync.Mutex
	promised int64 // guarded by mu; not written yet
}

// left returns what may still be promised to a host, and the refusal for who wants
// more.
func (s *space) left(host episode.Name) (left int64, short *wire.Problem, err error) {
	its, err := s.quota.left(host)
	if err != nil {
		return 0, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if left, err = s.leftLocked(); its < left {
		return its, overQuota(), err
	}
	return left, full(), err
}

func (s *space) leftLocked() (int64, error) {
	free, err := s.free()
	return free - s.promised - s.min, err
}

// reserve promises n bytes to a host, or refuses.
func (s *space) reserve(host episode.Name, n int64) (*reservation, error) {
	if err := s.quota.promise(host, n); err != nil {
		return nil, err
	}
	if err := s.promise(n); err != nil {
		s.quota.settle(host, n, 0)
		return nil, err
	}
	return &reservation{space: s, host: host, all: n, left: n}, nil
}

func (s *space) promise(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := s.leftLocked()
	if err != nil {
		return err
	}
	if n > left {
		return full()
	}
	s.promised += n
	return nil
}

// reservation is what was promised to one upload.
type reservation struct {
	space     *space
	host      episode.Name
	all, left int64
}

// used notes that n of the bytes are written: the file system counts them now.
func (r *reservation) used(n int64) {
	r.space.mu.Lock()
	defer r.space.mu.Unlock()
	r.space.promised -= n
	r.left -= n
}

// release takes back what was not used.
func (r *reservation) release() {
	r.space.quota.settle(r.host, r.all, r.all-r.left)
	r.used(r.left)
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// keys is a lock a key: from the commit of an upload to its row.
type keys struct {
	mu   sync.Mutex // guards held
	held map[episode.Key]*keyLock
}

type keyLock struct {
	turn  chan struct{}
	users int // guarded by keys.mu
}

// lock waits for key and returns the function that gives it up.
func (k *keys) lock(key episode.Key) func() {
	unlock, _ := k.lockFor(context.Background(), key)
	return unlock
}

// lockFor is lock for one that may leave meanwhile.
func (k *keys) lockFor(ctx context.Context, key episode.Key) (func(), error) {
	l := k.use(key)
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; k.leave(key, l) }, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, ctx.Err()
	}
}

func (k *keys) use(key episode.Key) *keyLock {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		k.held = make(map[episode.Key]*keyLock)
	}
	l := k.held[key]
	if l == nil {
		l = &keyLock{turn: make(chan struct{}, 1)}
		k.held[key] = l
	}
	l.users++
	return l
}

func (k *keys) leave(key episode.Key, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.held, key)
	}
}

// Limits says what the receiver takes, for a ping.
func (r *Receiver) Limits() wire.Limits {
	return wire.Limits{
		MaxSize:        int64(r.cfg.Limits.ArchiveBytes),
		Uploads:        r.cfg.Limits.Uploads,
		UploadsPerHost: r.cfg.Limits.UploadsPerHost,
		UnfinishedAge:  r.cfg.Limits.UnfinishedAge.Std(),
	}
}

// Storage says how much the receiver may still take of a host, for a ping.
func (r *Receiver) Storage(_ context.Context, host episode.Name) (wire.Storage, error) {
	left, _, err := r.space.left(host)
	return wire.Storage{FreeBytes: max(left, 0), Accepting: left > 0}, err
}
