package shipper_test

import (
	"cmp"
	"context"
	"io"
	"strconv"
	"sync"
	"testing"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// receiver is the receiver of these tests. It keeps the real one's contract, and fails the test
// if the shipper breaks its own.
type receiver struct {
	t testing.TB

	mu      sync.Mutex
	stored  map[episode.Name]wire.Receipt
	sent    map[episode.Name]digest.Digest // what was announced the first time
	under   map[episode.Name]bool          // being sent just now
	puts    []episode.Name                 // in order
	pings   []time.Time
	waiting int // Puts in flight
	most    int // at once, ever
	opened  int
	forgot  int
	ahead   int64 // bytes that were appended

	// down is the error of all requests while it is set.
	down error
	// ping answers a ping if it returns an error.
	ping func() error
	// olderReports responds to reports as an older receiver does.
	olderReports bool
	// report answers a report if it returns an error.
	report func() error
	// before may delay an upload and refuse it before its bytes are read.
	before func(ctx context.Context, u wire.Upload) error
	// after may lose a receipt once the archive is stored.
	after func(ctx context.Context, u wire.Upload) error
	// repacked allows an episode to be sent again with other bytes.
	repacked map[episode.Name]bool
	full     bool  // what a ping says
	free     int64 // the same; zero is much
	archives archiveStates
	ignorant bool       // the length that requests claim to know
	rows     []int      // of the index
	written  int        // rows, ever
	disk     wire.Store // without an id the receiver does not name it
	// appended is called after each piece of a streaming upload.
	appended func()
	// during is called before the answer to an inventory is returned.
	during func()
}

func newReceiver(t testing.TB) *receiver {
	return &receiver{
		t: t, stored: map[episode.Name]wire.Receipt{}, sent: map[episode.Name]digest.Digest{},
		under: map[episode.Name]bool{}, repacked: map[episode.Name]bool{},
		archives: archiveStates{contents: map[episode.Name]digest.Digest{}}, disk: wire.Store{ID: "STORE1"},
	}
}

func (r *receiver) Ping(ctx context.Context) (wire.PingResponse, error) {
	r.mu.Lock()
	r.pings = append(r.pings, time.Now())
	ping := r.ping
	r.mu.Unlock()
	return r.answerPing(ctx, ping)
}

func (r *receiver) SendReport(ctx context.Context, _ wire.Report) (*wire.PingResponse, error) {
	r.mu.Lock()
	report, older := r.report, r.olderReports
	r.mu.Unlock()
	response, err := r.answerPing(ctx, report)
	if err != nil || older {
		return nil, err
	}
	return &response, nil
}

// answerPing answers a ping, or refuses it with the error of refuse, if any.
func (r *receiver) answerPing(ctx context.Context, refuse func() error) (wire.PingResponse, error) {
	r.mu.Lock()
	down, full, free, store := r.down, r.full, cmp.Or(r.free, 1<<30), r.storeInfo()
	r.mu.Unlock()
	if _, limited := ctx.Deadline(); !limited {
		r.t.Error("a ping without a deadline")
	}
	if down == nil && refuse != nil {
		down = refuse()
	}
	if down == nil {
		down = r.checkStore(ctx)
	}
	if down != nil {
		return wire.PingResponse{}, down
	}
	return wire.PingResponse{Status: "ok", Host: host, Storage: wire.Storage{Accepting: !full, FreeBytes: free}, Store: store}, nil
}

func (r *receiver) Put(ctx context.Context, u wire.Upload, archive io.ReaderAt) (wire.Receipt, error) {
	defer r.beginUpload(u)()
	r.mu.Lock()
	down, before, after := r.down, r.before, r.after
	r.mu.Unlock()
	if down == nil {
		down = r.checkStore(ctx)
	}
	if down != nil {
		return wire.Receipt{}, down
	}
	if before != nil {
		if err := before(ctx, u); err != nil {
			return wire.Receipt{}, err
		}
	}
	d, size, err := digest.Of(io.NewSectionReader(archive, 0, u.Size+1))
	if err != nil {
		return wire.Receipt{}, err
	}
	if ctx.Err() != nil {
		return wire.Receipt{}, ctx.Err()
	}
	if size != u.Size {
		r.t.Errorf("%s was announced with %d bytes and has %d", u.Key, u.Size, size)
	}
	if d != u.Digest {
		return wire.Receipt{}, wire.Refuse(wire.DigestMismatch, "the bytes have another sha256")
	}
	contents, err := contentDigest(archive, u.Size)
	if err == nil {
		r.update(func() { r.archives.contents[u.Key.Name] = contents })
	}
	receipt, err := r.store(u)
	if err == nil && after != nil {
		err = after(ctx, u)
	}
	return receipt, err
}

func (r *receiver) OpenUpload(context.Context, episode.Name) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened++
	return "AHEAD", r.down
}

func (r *receiver) AppendPiece(_ context.Context, id string, archive io.ReaderAt, offset, size int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != "AHEAD" || offset != r.ahead {
		r.t.Errorf("%d bytes were appended to %s at %d, where there are %d", size, id, offset, r.ahead)
	}
	n, err := io.Copy(io.Discard, io.NewSectionReader(archive, offset, size))
	r.ahead += n
	if err == nil && n != size {
		r.t.Errorf("%d of %d bytes were there to be appended", n, size)
	}
	if r.appended != nil {
		r.appended()
	}
	return err
}

func (r *receiver) CancelUpload(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != "AHEAD" || r.opened == 0 {
		r.t.Errorf("%s was given up, and %d are open", id, r.opened)
	}
	r.opened--
	r.forgot++
	return nil
}

func (r *receiver) store(u wire.Upload) (wire.Receipt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	receipt, there := r.stored[u.Key.Name]
	if there && receipt.Digest != u.Digest {
		p := wire.Refuse(wire.Conflict, "another archive is stored")
		p.Stored = receipt.Digest
		return wire.Receipt{}, p
	}
	if there {
		receipt.Status, receipt.Store = wire.AlreadyPresent, r.storeInfo()
		return receipt, nil
	}
	receipt = wire.Receipt{Status: wire.Stored, Host: u.Key.Host, Episode: u.Key.Name, Digest: u.Digest, Size: u.Size, ReceivedAt: wire.Timestamp{Time: time.Now().Add(-r.archives.storedAgo)}}
	r.stored[u.Key.Name] = receipt
	r.written++
	r.rows = append(r.rows, r.written)
	receipt.Store = r.storeInfo()
	return receipt, nil
}

// checkStore refuses a request that names another store, as the receiver does.
func (r *receiver) checkStore(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checkStoreLocked(ctx)
}

func (r *receiver) checkStoreLocked(ctx context.Context) error {
	known := wire.KnownStore(ctx)
	if r.ignorant || known.ID == "" || r.disk.ID == "" {
		return nil
	}
	if known.ID != r.disk.ID && r.disk.Follows(known.ID) {
		return nil
	}
	if known.ID == r.disk.ID && known.IndexBytes <= r.indexBytes() && known.IndexTail == r.indexTail(known.IndexBytes) {
		return nil
	}
	p := wire.Refuse(wire.OtherStore, "another store")
	p.Store = r.storeInfo()
	return p
}

// storeInfo returns the identity of the store; nil for an older receiver.
func (r *receiver) storeInfo() *wire.Store {
	if r.disk.ID == "" {
		return nil
	}
	s := r.disk
	s.IndexBytes = r.indexBytes()
	s.IndexTail = r.indexTail(s.IndexBytes)
	return &s
}

// A row of the index has 100 bytes, and differs from all others.
func (r *receiver) indexBytes() int64 { return int64(len(r.rows)) * 100 }

func (r *receiver) indexTail(end int64) string {
	if end == 0 {
		return "0"
	}
	return strconv.Itoa(r.rows[end/100-1])
}

// beginUpload checks that a shipper may make an upload, and returns a function that ends it.
func (r *receiver) beginUpload(u wire.Upload) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := u.Key.Name
	if u.Key.Host != host || u.Digest.IsZero() {
		r.t.Errorf("an upload as %s with the digest %s", u.Key, u.Digest)
	}
	if r.under[n] {
		r.t.Errorf("%s is sent twice at once", n)
	}
	if first, before := r.sent[n]; before && first != u.Digest && !r.repacked[n] {
		r.t.Errorf("%s came as %s and comes as %s: it was packed again", n, first, u.Digest)
	}
	r.sent[n], r.under[n] = u.Digest, true
	r.puts = append(r.puts, n)
	r.waiting++
	r.most = max(r.most, r.waiting)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.waiting--
		delete(r.under, n)
	}
}

// update changes the receiver while a shipper uses it.
func (r *receiver) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *receiver) hasArchive(n episode.Name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, there := r.stored[n]
	return there
}

// counts returns how many archives, uploads and pings there were.
func (r *receiver) counts() (stored, puts, pings int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.stored), len(r.puts), len(r.pings)
}

// attemptsOf returns how often an episode was sent.
func (r *receiver) attemptsOf(n episode.Name) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := 0
	for _, put := range r.puts {
		if put == n {
			count++
		}
	}
	return count
}
