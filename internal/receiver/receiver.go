// Package receiver is the daemon that takes archives in. It serves the protocol of package wire to
// the hosts that packages gate and access admit, and a backend stores what they send. Hosts join here
// and renew their certificates. What happens becomes metrics, reports and events of hooks.
//
// Start with [New], which opens everything in order, and [Receiver.Run].
//
// Invariant: no request comes before the recovery of the backend is complete, and none is answered
// with success after a storage fault, which ends the daemon. The data directory is not closed under
// a handler.
package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/access"
	"cis490/internal/activity"
	"cis490/internal/admission"
	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/gate"
	"cis490/internal/notify"
)

// Receiver owns a data directory while it is open, and serves a backend.
type Receiver struct {
	cfg     Config
	version string
	log     *slog.Logger

	// What is open.
	data    *durable.Dir
	lock    *durable.Lock
	backend backend
	bucket  *bucket.S3 // nil with a store on a disk

	headerTimeout time.Duration // of a request's header, and of the TLS handshake

	// What a request must pass.
	gate     *gate.Gate
	access   *access.Control // checks the hosts of requests in flight
	shared   *sharing        // what several receivers share about hosts; nil with a store on a disk
	join     *joinDoor       // nil without an identity directory
	conns    *admission.Conns
	requests admission.Requests

	fleet  *fleet.Reports // what the hosts report
	events events

	// baseCtx is the parent of all requests, and of work that continues after a sender has
	// disconnected. cancelBase ends it.
	baseCtx    context.Context
	cancelBase context.CancelCauseFunc
}

// New opens the data directory of c, or returns a [*durable.LockedError], and
// completes what a crash has interrupted. holder describes this process to others that want
// the lock. The gate is separate because root opens it before it becomes the service user.
// recovered, unless nil, is called with the number of bytes of each read of the recovery,
// which may take long.
func New(ctx context.Context, gate *gate.Gate, c Config, version, holder string, log *slog.Logger, recovered func(bytes int)) (*Receiver, error) {
	log = slog.New(admission.LimitLines(log.Handler()))
	r := &Receiver{
		cfg: c, version: version, log: log, gate: gate, headerTimeout: headerTimeout,
		events: events{counters: newCounters()},
	}
	r.baseCtx, r.cancelBase = context.WithCancelCause(context.WithoutCancel(ctx))
	err := r.openConns()
	if err == nil {
		err = r.open(ctx, holder)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	disabled, err := r.watchDisabled()
	if err == nil {
		err = r.shared.follow(ctx, disabled, r.hostList(holder), r.fleet, log)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.access = access.New(gate, disabled, log)
	err = r.openJoin(holder)
	if err == nil {
		err = r.shareReplaced(ctx, disabled.Current(), holder)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if err := r.backend.Recover(ctx, recovered); err != nil {
		return nil, errors.Join(fmt.Errorf("recover: %w", err), r.Close())
	}
	return r, nil
}

// openConns creates the limits of connections from the number of files that may be open.
func (r *Receiver) openConns() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	var err error
	r.conns, err = admission.NewConns(r.cfg.Limits.Uploads, r.cfg.Limits.UploadsPerHost, limit.Cur)
	return err
}

// open opens what is in the data directory.
func (r *Receiver) open(ctx context.Context, holder string) error {
	var err error
	if r.data, err = durable.Create(string(r.cfg.DataDir)); err != nil {
		return &ConfigError{"data_dir", err}
	}
	if r.lock, err = datadir.Lock(r.data, holder); err != nil {
		return err
	}
	if err := r.openBackend(ctx); err != nil {
		return err
	}
	if err := r.openReports(time.Now()); err != nil {
		return err
	}
	r.events.hooks, err = notify.Open(r.cfg.Hooks, r.data, "cis490-receiver/"+r.version, r.log)
	return err
}

// Close closes the data directory and releases its lock. A handler may outlive its server, after a fault
// of the storage for example. If one does not end, the directory stays open until the process ends:
// another file could get its descriptor.
func (r *Receiver) Close() error {
	r.cancelBase(nil)
	if r.access != nil {
		r.access.Close()
		if !r.access.WaitIdle(handlerTimeout) {
			r.log.Warn("requests did not end")
			return nil
		}
	}
	var errs []error
	if r.fleet != nil {
		errs = append(errs, r.fleet.Close())
	}
	hooksEnded, err := r.events.hooks.Close()
	errs = append(errs, err)
	if r.backend != nil {
		errs = append(errs, r.backend.Close())
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Unlock())
	}
	if r.data != nil && hooksEnded { // a disk that hangs must not let them use another file's descriptor
		errs = append(errs, r.data.Close())
	}
	errs = append(errs, r.join.close())
	return errors.Join(errs...)
}

// Reload loads new certificates and lists, and ends the requests and connections of hosts
// that they do not admit. If any file is invalid, all stay as they were.
func (r *Receiver) Reload() error {
	if err := r.gate.Reload(); err != nil {
		return err
	}
	r.access.ReviewAll()
	r.events.hooks.Reload()
	return nil
}

// Hooks returns what tells other programs of events. It is nil without hooks.
func (r *Receiver) Hooks() *notify.Notifier { return r.events.hooks }

// CertNotAfter returns when the receiver's own certificate expires.
func (r *Receiver) CertNotAfter() time.Time { return r.gate.Trust().NotAfter() }

// CertNotBefore returns when the receiver's own certificate becomes valid.
func (r *Receiver) CertNotBefore() time.Time { return r.gate.Trust().NotBefore() }

// HostExpiries returns when the certificates expire with which the hosts were here last. It leaves out
// disabled hosts.
func (r *Receiver) HostExpiries() map[episode.Name]time.Time {
	if r.join == nil {
		return nil
	}
	expiries := r.join.records.Expiries()
	disabled := r.access.Disabled()
	maps.DeleteFunc(expiries, func(host episode.Name, _ time.Time) bool { return disabled.Err == nil && disabled.Has(host) })
	return expiries
}

// Conflicts returns the episodes that were refused recently because their name is taken, newest first.
func (r *Receiver) Conflicts() []activity.Conflict { return r.events.conflicts.List() }

// Ready returns why the receiver currently refuses uploads from all hosts, or nil if it accepts them.
func (r *Receiver) Ready(context.Context) error {
	if cause := context.Cause(r.baseCtx); cause != nil {
		return cause
	}
	if err := r.backend.CheckStorage(); err != nil {
		return err
	}
	if disabled := r.access.Disabled(); disabled.Err != nil {
		return disabled.Err
	}
	if err := r.shared.check(); err != nil {
		return err
	}
	if now := time.Now(); now.After(r.CertNotAfter()) || now.Before(r.CertNotBefore()) {
		return fmt.Errorf("the receiver's certificate is valid from %s to %s only", r.CertNotBefore().Format(time.DateOnly), r.CertNotAfter().Format(time.DateOnly))
	}
	return r.backend.CheckSpace()
}

// Bucket returns the bucket of the store, or nil if the store is on a disk.
func (r *Receiver) Bucket() *bucket.S3 { return r.bucket }

// Alive reports whether the receiver can still make an archive durable, for a watchdog.
func (r *Receiver) Alive(ctx context.Context) bool { return r.backend.Alive(ctx) }

// CheckKernel returns an error if this kernel, or a seccomp filter, refuses a system call that
// the receiver needs. openat2 is not one of them: the receiver opens no tree of other users,
// and the sandbox of its unit refuses it (RestrictSUIDSGID=).
func CheckKernel() error { return durable.CheckCalls(durable.RefusedCalls()...) }

// Layout describes the names that the receiver and its commands create in the data directory.
// A new name must be added, or a file that root creates under it stays root's. Archives are
// included only on request: examining them takes time that grows with the store.
func Layout(archives bool) durable.Layout {
	return slices.Concat(diskbackend.Layout(archives), fleet.Layout(), notify.Layout(), durable.Layout{
		{Match: durable.MatchNames(probeFile, batchlog.CopyStateName(datadir.IndexFile)), Perm: 0o640},
	})
}
