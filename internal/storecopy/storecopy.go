// Package storecopy copies a store from a disk into a bucket, and back: each archive that the index has a
// row of, and the index itself, byte for byte, so hosts take the copy for the store that they know.
//
// A copy runs beside the receivers of the store, and as often as wanted: a run copies what has arrived since
// the last one. The last run, with [Options.Final], hands over. It first makes sure that nothing more is
// acknowledged at the old place, then completes the copy, and then lets receivers start at the new place:
//
//	from          no more acknowledgements                         starts again
//	a disk        the lock of data_dir, then moved_to in its       with store.json in the bucket, which is
//	              store.json                                       created last
//	a bucket      the fence of the log: see batchlog.Fence           with a store.json that has no copied_from
//
// Between the two steps it adds the list of disabled hosts to that of the new place: then it can no longer
// change at the old one.
//
// A run that was killed at any step is continued by the next one. For each row the archive is durable
// before its row is. What is at the new place already is compared and left as it is.
//
// If a disk is lost after that, another one can take over what the bucket has: see [Options.Lost]. What the lost
// one stored since is not in the bucket, so this store gets another id, and hosts send that again.
//
// Invariant: nothing is changed or deleted at the old place, except for that mark. The rows of the copy are
// a prefix of the rows of the store. At no time receivers of both places can acknowledge an upload. No two
// places have a store with one id.
package storecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"cis490/internal/bandwidth"
	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/retry"
)

// Options say how a store is copied.
type Options struct {
	From, To string // where the store is and will be, for people; the same in each run
	Final    bool   // hand over; no receiver of the disk may run
	// AcceptMissing hands over although archives are missing or damaged.
	AcceptMissing bool
	// Lost is the id of the copy on a disk that is lost, although a fence says that the store is there: see
	// [batchlog.TakeOver]. Only for [ToDisk].
	Lost   string
	Rate   bandwidth.Timetable // maximum of bytes per second that are read; "" is unlimited
	Holder string              // describes this process to others that want its locks

	// Found, unless nil, is called for each archive that the old place does not have.
	Found func(Finding)
	// Notify, unless nil, is called for what a final run repairs at the end of the index on a disk.
	Notify func(index.TailNotice)
	// Progress, unless nil, is called with the number of bytes of each read of an archive, Copied after
	// each row, and Total with how many rows and bytes of archives this run copies, if that is known.
	Progress func(bytes int)
	Copied   func()
	Total    func(rows, bytes int64)
}

// Finding is an archive that has a row, and that the old place does not have.
type Finding struct {
	Finding string       `json:"finding"` // missing or damaged
	Host    episode.Name `json:"host_id"`
	Episode episode.Name `json:"episode_id"`
	Detail  string       `json:"detail"`
}

// The values of [Finding.Finding].
const (
	missing = "missing"
	damaged = "damaged"
)

// Report has the counts of a run, except where it says otherwise.
type Report struct {
	Store      string `json:"store"`       // its id
	Rows       int64  `json:"rows"`        // copied
	Archives   int64  `json:"archives"`    // copied
	Bytes      int64  `json:"bytes"`       // of these archives
	Missing    int64  `json:"missing"`     // archives that the old place does not have, of all runs
	Damaged    int64  `json:"damaged"`     // archives that it has with other bytes, of all runs
	IndexBytes int64  `json:"index_bytes"` // of the copy, all runs
	Moved      bool   `json:"moved"`       // the store is at the new place now
}

// ErrIncomplete says that archives are missing or damaged, so the store was not handed over.
var ErrIncomplete = errors.New("the store was not handed over, because archives are missing or damaged at its old place: " +
	"let their hosts send them again with 'shipper verify --heal', or move without them with --accept-missing")

// maxNewFindings is how many archives may be missing in a run: more are a disk that is not mounted.
const maxNewFindings = 1000

var errTooManyMissing = fmt.Errorf("more than %d archives are missing: is the right disk mounted? The next run looks for them again, and continues", maxNewFindings)

const (
	// atOnce is how many rows are copied at the same time.
	atOnce = 8
	// maxBatchText and maxBatchRows bound the rows that are copied before their text is.
	maxBatchText = 256 << 10
	maxBatchRows = 1000
)

// attempts is how often a step is tried while the object store fails, with a pause that doubles from
// retryBase up to retryCeiling.
const (
	attempts     = 5
	retryBase    = 500 * time.Millisecond
	retryCeiling = 8 * time.Second
)

// again calls step until it succeeds, or fails in a way that another attempt does not change.
func again(ctx context.Context, step func() error) error {
	for attempt := 1; ; attempt++ {
		err := step()
		if err == nil || isFinal(err) || attempt == attempts || !retry.Sleep(ctx, retry.Backoff(retryBase, retryCeiling, attempt)) {
			return err
		}
	}
}

func isFinal(err error) bool {
	return errors.Is(err, bucket.ErrFull) || errors.Is(err, bucket.ErrDigest) || errors.Is(err, errTooManyMissing) || errors.Is(err, errMissing) ||
		errors.Is(err, errDamaged) || errors.Is(err, batchlog.ErrDeclaredLost) || errors.Is(err, durable.ErrFault) || durable.IsFull(err)
}

// run is what both directions have in common.
type run struct {
	opts    Options
	limiter *bandwidth.Limiter
	report  Report

	opened []io.Closer // in this order

	rows, archives, bytes, findings atomic.Int64 // of this run
}

// closeAll closes what was opened, the last first.
func (r *run) closeAll() error {
	var errs []error
	for _, c := range slices.Backward(r.opened) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func newRun(opts Options) *run {
	return &run{opts: opts, limiter: bandwidth.NewLimiter(opts.Rate)}
}

func (r *run) noteCopied() {
	r.rows.Add(1)
	if r.opts.Copied != nil {
		r.opts.Copied()
	}
}

func (r *run) noteArchive(size int64) {
	r.archives.Add(1)
	r.bytes.Add(size)
}

// noteMissing counts an archive that is missing, and returns an error if there are too many.
func (r *run) noteMissing() error {
	if r.findings.Add(1) > maxNewFindings {
		return errTooManyMissing
	}
	return nil
}

func (r *run) reportFinding(f Finding) {
	if f.Finding == damaged {
		r.report.Damaged++
	} else {
		r.report.Missing++
	}
	if r.opts.Found != nil {
		r.opts.Found(f)
	}
}

// finished returns the report.
func (r *run) finished() Report {
	r.report.Rows, r.report.Archives, r.report.Bytes = r.rows.Load(), r.archives.Load(), r.bytes.Load()
	return r.report
}

// source counts and limits the reading of an archive, and keeps its error.
type source struct {
	io.ReaderAt
	run *run
	err error // of the disk; guarded by the reader's request
}

func (r *run) newSource(ctx context.Context, from io.ReaderAt) *source {
	return &source{ReaderAt: r.limiter.LimitReader(ctx, from), run: r}
}

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF {
		s.err = err
	}
	if s.run.opts.Progress != nil && n > 0 {
		s.run.opts.Progress(n)
	}
	return n, err
}
