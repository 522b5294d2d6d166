package shipper

import (
	"cmp"
	"io"
	"slices"
	"time"

	"cis490/internal/episode"
)

// Activity is what a shipper is doing at one moment.
type Activity struct {
	Tally Tally
	// SentBytes is the size of the archives that were delivered since the start, plus what was sent
	// of others. PackedBytes is the size of those archives, plus the packed ones that are queued: it
	// grows while episodes are packed.
	SentBytes, PackedBytes int64
	// ReadBytes is the number of bytes that were read to be sent. Unlike SentBytes, it does not
	// jump when an upload resumes.
	ReadBytes int64
	// AllPacked means that no scanned episode is left to pack.
	AllPacked bool
	// Transfers are the episodes that workers process, in the order of their starts.
	Transfers []Transfer
}

// Transfer is an episode that a worker processes.
type Transfer struct {
	Episode   episode.Name
	Stage     Stage // Pack or Send
	Bytes     int64 // of the archive that are written, or sent
	Size      int64 // of the archive; 0 while it is packed
	Moved     int64 // bytes that were written, or read to be sent
	startedAt time.Time
	delivered bool
}

// Activity returns what the shipper is doing now. It may be called at any time, and does not delay the
// work.
func (s *Shipper) Activity() Activity {
	a := Activity{Tally: s.Tally(), Transfers: s.work.listTransfers(), ReadBytes: s.readBytes.Load()}
	a.SentBytes = s.outcomes.deliveredBytes.Load()
	a.PackedBytes = a.SentBytes + s.toSendBytes.Load()
	a.AllPacked = int64(a.Tally.Scanned-a.Tally.ResultCount()) <= s.toSendCount.Load()
	for _, t := range a.Transfers {
		switch {
		case t.delivered: // it is being retired
			a.PackedBytes -= t.Size
		case t.Stage == Send:
			a.SentBytes += t.Bytes
		}
	}
	a.SentBytes = min(a.SentBytes, a.PackedBytes) // the two are not read at the same moment
	return a
}

// listTransfers returns the work of all workers.
func (t *workTracker) listTransfers() []Transfer {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Transfer, 0, len(t.active))
	for w := range t.active {
		all = append(all, Transfer{w.name, w.stage, w.position.Load(), w.size.Load(), w.moved.Load(), w.startedAt, w.delivered.Load()})
	}
	slices.SortFunc(all, func(x, y Transfer) int {
		return cmp.Or(x.startedAt.Compare(y.startedAt), cmp.Compare(x.Episode, y.Episode))
	})
	return all
}

// countToSend adds (1) or removes (-1) an archive that is queued or being sent.
func (s *Shipper) countToSend(sign int64, c candidate) {
	s.toSendCount.Add(sign)
	s.toSendBytes.Add(sign * c.size)
}

// meteredReader counts what is read to be sent.
type meteredReader struct {
	io.ReaderAt
	s *Shipper
	w *work // nil for an archive that is still being packed
}

func (r meteredReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.s.readBytes.Add(int64(n))
	if r.w != nil {
		r.w.advance(n, off+int64(n))
	}
	return n, err
}
