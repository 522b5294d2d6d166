// Package s3backend stores archives in an S3 bucket, for any number of receivers at once. It is the
// sibling of the backend on a disk: both are a [wire.Backend], and no shipper can tell which one it
// talks to.
//
//	episodes/<host>/<episode>/<sha256>[.<generation>].tar.zst   archives; a name only ever gets the same bytes
//	commits/<host>/<episode>/<generation>.json                  which archive has the name, from 1
//	log/<number>.jsonl                                          the rows of the index: see batchlog
//	verified/<host>/<episode>/<generation>.json                 when the archive was read and decoded; a hint
//	quarantine/<host>/<episode>/<generation>.json               the archive was found corrupt: see verified.go
//	scrub/...                                                   who reads what: see package shards
//	uploads/<host>/<upload>/...                                 what has arrived of an upload; temporary
//	store.json                                                  the id of the store
//	import.json, missing/<offset>.json                          of a store that is being copied from a disk
//	moved/<copy id>.json                                        which copy has taken over from a lost one
//
// Start with [Backend.Put], which reads from top to bottom: limits, look up what is stored, put the
// archive, commit, ensure the row. Receivers share no lock. Where two of them want the same, the
// engine decides, because commits and batches are only created and never replaced:
//
//	stopped after    leaves                          recovered by
//	the archive      an archive without a commit     the next attempt, which puts the same bytes
//	the commit       a commit without a row          the next attempt, at any receiver: 200
//	the row          a row without an answer         the next attempt: 200
//
// Invariant: a commit has a whole archive. A generation of a key has one commit. Before a success
// response the commit has its row, and only one. An answer that the engine did not give is never
// taken for a success.
package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/access"
	"cis490/internal/admission"
	"cis490/internal/archive"
	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/readback"
	"cis490/internal/refusal"
	"cis490/internal/resumable"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// Options say how a [Backend] treats its senders.
type Options struct {
	Name          string // of this receiver, for people
	Limits        wire.Limits
	HostBytes     int64         // the maximum of all archives of one host; 0: unlimited
	MaxUploadWait time.Duration // how long a request waits for a slot
	SpoolDir      string        // for parts of archives that are being received
	MinFree       int64         // bytes that stay free there
	Data          *durable.Dir  // has the copy of the index; the caller's
	Scrub         scrub.Config
	Observer      Observer // may be nil
	Log           *slog.Logger
	// Base is the parent of work that continues after a sender has disconnected. If it ends, its
	// cause is the answer.
	Base context.Context
}

// Observer is told what happens to archives. Its methods must not block: uploads wait for them.
type Observer interface {
	// NoteStored is called when an archive has been stored, and its row. took is the time since the
	// last byte of the upload.
	NoteStored(row index.Row, took time.Duration)
	// NoteConflict is called each time that an upload is refused because its name is taken.
	NoteConflict(key episode.Key, offered, stored digest.Digest)
	// NoteDamage is called when an archive is found corrupt or missing, by the scrub or for a host. The
	// finding is that of a scrub.
	NoteDamage(key episode.Key, finding string, quarantined bool)
}

// Backend stores archives in a bucket. It must be closed.
type Backend struct {
	bucket   bucket.Bucket
	opts     Options
	log      *slog.Logger
	index    *batchlog.Log
	copy     *batchlog.Copy // nil without a data directory
	appended chan struct{}  // has a value if this receiver has appended to the index
	id       identity
	copied   copiedIndex

	uploads  admission.Limiter
	sessions *resumable.Sessions[*progress]
	disk     *admission.Disk                  // the quotas of hosts: only the engine knows when it is full
	keys     admission.KeyLocks[episode.Key]  // held while a key is looked up or committed here
	readings admission.KeyLocks[episode.Name] // of hosts whose archive is read back
	read     readback.Cache
	verifier *scrub.Verifier
	verifies admission.Limiter // of inventories that read an archive
	metas    chan *archive.MetaReader
	minPart  int64 // minPartSize, except in tests

	faulted atomic.Bool
	faults  chan error // the first storage fault of the data directory

	checkMu   sync.Mutex // guards the fields below
	checkedAt time.Time
	checkErr  error // of the last request that tested whether the object store answers
}

var _ wire.Backend = (*Backend)(nil)

// maxMetaReaders is the number of decoders for meta.json.
const maxMetaReaders = 2

// Open opens the store in a bucket, or creates it in an empty one.
func Open(ctx context.Context, in bucket.Bucket, opts Options) (*Backend, error) {
	b := &Backend{
		bucket: in, opts: opts, log: opts.Log, appended: make(chan struct{}, 1), faults: make(chan error, 1),
		uploads:  admission.Limiter{Total: opts.Limits.Uploads, PerHost: opts.Limits.UploadsPerHost, MaxWait: opts.MaxUploadWait},
		sessions: resumable.New[*progress](opts.Limits.UploadsPerHost),
		metas:    make(chan *archive.MetaReader, maxMetaReaders),
		minPart:  minPartSize,
		verifier: new(scrub.Verifier),
	}
	b.disk = admission.NewDisk(unlimitedSpace, &admission.Quota{Max: opts.HostBytes, Count: b.countBytes, Shared: true, Log: opts.Log})
	b.verifies = admission.Limiter{Total: maxVerifies, PerHost: 1}
	for range maxMetaReaders {
		b.metas <- new(archive.MetaReader)
	}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Backend) open(ctx context.Context) error {
	var err error
	if b.id, err = openIdentity(ctx, b.bucket, b.log); err != nil {
		return err
	}
	if b.index, err = batchlog.Open(ctx, b.bucket, b.log); err != nil {
		return err
	}
	if b.opts.Data != nil {
		b.copy, err = batchlog.OpenCopy(b.opts.Data, datadir.IndexFile, b.id.ID)
	}
	return err
}

// Close ends the writing of rows. No method may be in use.
func (b *Backend) Close() error {
	var errs []error
	if b.index != nil {
		errs = append(errs, b.index.Close())
	}
	if b.copy != nil {
		errs = append(errs, b.copy.Close())
	}
	return errors.Join(errs...)
}

// workContext returns the context of work that continues if the sender of ctx disconnects. It ends when
// the receiver stops, or the host loses access.
func (b *Backend) workContext(ctx context.Context) context.Context {
	base := b.opts.Base
	if base == nil {
		base = context.Background()
	}
	return access.WorkContext(ctx, base)
}

// countTimeout bounds a listing of the archives of a host.
const countTimeout = time.Minute

// countBytes returns how much the archives of a host take, whichever receiver has stored them. Those that
// were quarantined do not count: they are kept for a fault of the object store.
func (b *Backend) countBytes(host episode.Name) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	quarantined := make(map[string]bool)
	for info, err := range b.bucket.List(ctx, quarantinePrefix+string(host)+"/", "") {
		if err != nil {
			return 0, fmt.Errorf("count the archives of %s: %w", host, err)
		}
		var r quarantineRecord
		if err := b.readJSON(ctx, info.Name, &r); err == nil { // else its archive counts
			quarantined[r.Object] = true
		}
	}
	sum := int64(0)
	for info, err := range b.bucket.List(ctx, episodesPrefix+string(host)+"/", "") {
		if err != nil {
			return 0, fmt.Errorf("count the archives of %s: %w", host, err)
		}
		if !quarantined[info.Name] {
			sum += info.Size
		}
	}
	return sum, nil
}

// forSender returns the error for the sender of a request that ended with err.
func (b *Backend) forSender(err error) error {
	if _, ok := errors.AsType[*admission.RefusedError](err); ok {
		return refusal.FromAdmission(err)
	}
	if durable.IsFull(err) {
		b.log.Warn("no space for parts of archives", "err", err)
		return wire.Refuse(wire.Full, "the receiver has no space for parts of archives")
	}
	if _, ok := errors.AsType[*batchlog.MovedError](err); ok { // followIndex logs it
		return wire.Refuse(wire.Busy, "the store has moved: this receiver stores nothing any more")
	}
	if errors.Is(err, bucket.ErrFull) {
		b.log.Warn("no space", "err", err)
		return wire.Refuse(wire.Full, "the object store is full")
	}
	if _, ok := errors.AsType[*wire.Problem](err); err == nil || ok || errors.Is(err, context.Canceled) || errors.Is(err, wire.ErrDraining) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	b.log.Error("object store failed", "err", err)
	p := wire.Refuse(wire.Busy, "the object store does not answer as it should: see the receiver's log")
	p.RetryAfter = engineRetry
	return p
}

// engineRetry is how long a host waits before it tries again after the object store has failed.
const engineRetry = 5 * time.Second

// checkAnswer returns the error for the sender of a request that ended with err. Each method that
// vouches for stored bytes ends with it: it is an error if the host has lost access, or the store has left
// the bucket.
func (b *Backend) checkAnswer(ctx context.Context, err error) error {
	if err == nil {
		err = b.index.Moved()
	}
	err = b.forSender(err)
	if refused := access.Recheck(ctx); refused != nil && !errors.Is(err, refused) {
		return errors.Join(refused, err)
	}
	return err
}
