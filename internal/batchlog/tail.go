package batchlog

import (
	"time"

	"cis490/internal/episode"
	"cis490/internal/index"
)

// Limits of what a tail remembers. A segment can be joined without reading its batches again if
// they fit.
const (
	maxTailBatches = 2 * segmentBatches
	maxTailBytes   = 4 << 20
)

// tail has the last batches of the log, and an index of their rows.
type tail struct {
	head     int64 // the last batch
	lastTime time.Time
	batches  []batch // the last ones, up to head
	bytes    int
	rows     map[episode.Key][]placedRow // of batches, in their order
}

type placedRow struct {
	batch int64
	row   index.Row
}

func newTail(head int64) tail {
	return tail{head: head, rows: make(map[episode.Key][]placedRow)}
}

// floor returns the last batch whose rows the tail does not have.
func (t *tail) floor() int64 { return t.head - int64(len(t.batches)) }

// add adds the batch after head, and forgets old ones.
func (t *tail) add(b batch) {
	t.head = b.number
	t.batches = append(t.batches, b)
	t.bytes += len(b.body)
	for _, row := range b.rows {
		t.rows[row.Key] = append(t.rows[row.Key], placedRow{b.number, row})
		if !row.Backfilled {
			t.lastTime = row.ReceivedAt
		}
	}
	for len(t.batches) > maxTailBatches || t.bytes > maxTailBytes && len(t.batches) > 1 {
		t.forgetFirst()
	}
}

func (t *tail) forgetFirst() {
	first := t.batches[0]
	t.batches[0] = batch{} // for the garbage collector
	t.batches = t.batches[1:]
	t.bytes -= len(first.body)
	for _, row := range first.rows {
		if rows := t.rows[row.Key][1:]; len(rows) > 0 {
			t.rows[row.Key] = rows
		} else {
			delete(t.rows, row.Key)
		}
	}
}

// find returns the first row of key after batch since, or nil. It reports false if the tail does not
// reach back that far.
func (t *tail) find(key episode.Key, since int64) (*index.Row, bool) {
	if since < t.floor() {
		return nil, false
	}
	for _, placed := range t.rows[key] {
		if placed.batch > since {
			return &placed.row, true
		}
	}
	return nil, true
}

// batch returns batch n, if the tail has it.
func (t *tail) batch(n int64) (batch, bool) {
	if n <= t.floor() || n > t.head {
		return batch{}, false
	}
	return t.batches[n-t.floor()-1], true
}
