// Package receiver is the daemon that takes archives in. It stands between
// package wire, which speaks with the hosts, and packages store and index,
// which keep.
//
// The law: an answer of success is sent after four durable facts, in this
// order: the bytes, the name, the row in the index, and only then the staging
// name is given up. Whatever a crash leaves in between, [New] finds in staging
// and brings to its end before the first request.
package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/index"
	"cis490/internal/pki"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// The locks of the data directory: that of older programs is taken as well.
const (
	lockName       = ".receiver.lock"
	formerLockName = ".lock"
)

// LockNames returns the names of the lock files in the data directory, of this
// version and of older ones.
func LockNames() []string {
	return []string{lockName, formerLockName, disabledLock, durable.LogLockName(IndexFile)}
}

// IndexFile is the name of the index in the data directory.
const IndexFile = "index.jsonl"

// Receiver owns a data directory for as long as it is open. It is the
// [wire.Depot] of its own server.
type Receiver struct {
	cfg     Config
	version string
	log     *slog.Logger
	gate    *pki.Gate
	data    *durable.Dir
	lock    *durable.Lock
	store   *store.Store
	index   *index.Log
	keys    keys
	slots   slots
	access  *access // who is served, and still is
	unheard unheard
	uploads *uploads // the unfinished ones
	space   space
	conns   *conns
	peeks   chan *archive.MetaReader // what looks for meta.json
	chunks  sync.Pool                // of *[chunk]byte
	prover  *prover
	reads   slots // archives being read back for their hosts
	reading keys  // hosts for whom one is read that they send again
	search  searches

	scrubWarned bool // of [Receiver.saveScrub], which the scrub alone calls

	// life is what reading goes on for whose sender has gone; end ends it. Requests
	// are parts of it.
	life context.Context
	end  context.CancelCauseFunc

	faulted atomic.Bool
	fault   chan error // the first storage fault
}

// New opens what c names and returns a receiver: see [NewWithGate].
func New(ctx context.Context, c Config, version, holder string, log *slog.Logger) (*Receiver, error) {
	gate, err := pki.Open(c.Trust())
	if err != nil {
		return nil, err
	}
	return NewWithGate(ctx, gate, c, version, holder, log)
}

// NewWithGate opens the data directory of c, or returns a [*durable.LockedError], and
// ends what a crash interrupted. Holder is what the next one who asks is told. The
// gate is separate because root opens it, before it becomes the service user.
func NewWithGate(ctx context.Context, gate *pki.Gate, c Config, version, holder string, log *slog.Logger) (*Receiver, error) {
	r := &Receiver{
		cfg: c, version: version, log: log, gate: gate,
		slots:   slots{all: c.Limits.Uploads, each: c.Limits.UploadsPerHost, patience: queueWait},
		uploads: newUploads(c.Limits.UploadsPerHost),
		conns:   newConns(c.Limits),
		peeks:   newPeeks(),
		fault:   make(chan error, 1),
	}
	r.life, r.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := r.open(holder); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.space = space{free: r.data.Space, min: int64(c.MinFree), quota: quota{most: int64(c.Limits.HostBytes), count: r.store.HostBytes, log: log}}
	disabled, err := watchDisabled(r.data, log)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.access = newAccess(gate, disabled, log)
	r.prover, r.reads = r.newProver(), slots{all: readBacks, each: 1}
	if err := r.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("recover: %w", err), r.Close())
	}
	return r, nil
}

func (r *Receiver) open(holder string) error {
	var err error
	if r.data, err = durable.Create(string(r.cfg.DataDir)); err != nil {
		return err
	}
	if r.lock, err = r.data.Lock(lockName, holder, formerLockName); err != nil {
		return err
	}
	if r.store, err = store.Open(r.data); err != nil {
		return err
	}
	r.index, err = index.Open(r.data, IndexFile)
	return err
}

// Close gives the data directory up.
func (r *Receiver) Close() error {
	r.end(nil)
	if r.access != nil {
		r.access.close()
	}
	var errs []error
	if r.index != nil {
		errs = append(errs, r.index.Close())
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Unlock())
	}
	if r.data != nil {
		errs = append(errs, r.data.Close())
	}
	return errors.Join(errs...)
}

// Paths returns where a receiver with this configuration keeps its archives
// and its index, for the tools that work beside it.
func (c Config) Paths() (episodes, index string) {
	return filepath.Join(string(c.DataDir), "episodes"), filepath.Join(string(c.DataDir), IndexFile)
}

// Reload takes in new certificates and lists, and ends the requests and connections of
// hosts that do not pass with them. If any file is bad, all stay as they were.
func (r *Receiver) Reload() error {
	if err := r.gate.Reload(); err != nil {
		return err
	}
	r.access.review()
	return nil
}

// CertNotAfter returns when the receiver's own certificate ends.
func (r *Receiver) CertNotAfter() time.Time { return r.gate.Trust().NotAfter() }

// Alive reports whether the receiver can still make an archive durable. It is
// what a watchdog should ask.
func (r *Receiver) Alive(ctx context.Context) bool { return r.index.Alive(ctx) }

// failed ends the daemon if err is a storage fault, and returns what the sender
// is told of err.
func (r *Receiver) failed(err error) error {
	switch {
	case errors.Is(err, durable.ErrFault):
		if !r.faulted.Swap(true) {
			r.fault <- err
		}
	case isFull(err):
		r.log.Warn("no space", "err", err)
		return full()
	}
	return err
}

// full refuses an upload for want of space. The sender is not told of paths.
func full() *wire.Problem {
	p := wire.Refuse(wire.Full, "no space above the floor")
	p.RetryAfter = fullRetry
	return p
}
