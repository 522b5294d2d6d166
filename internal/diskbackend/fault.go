package diskbackend

import (
	"context"
	"errors"
	"time"

	"cis490/internal/access"
	"cis490/internal/admission"
	"cis490/internal/durable"
	"cis490/internal/pathwatch"
	"cis490/internal/refusal"
	"cis490/internal/wire"
)

var errFaulted = errors.New("the storage has failed or was moved, and nothing is acknowledged any more")

// Faults returns a channel that receives the first storage fault, or that the first directory was
// moved. From then on there is no answer of success, and the daemon must end.
func (b *Backend) Faults() <-chan error { return b.faults }

// CheckStorage returns why there is no answer of success any more, or nil.
func (b *Backend) CheckStorage() error {
	if b.faulted.Load() {
		return errFaulted
	}
	return b.checkPaths()
}

// checkAnswer returns the error for the sender of a request that ended with err. Each method of
// the [wire.Backend] that vouches for stored bytes ends with it: it is an error if the storage has
// failed or was moved meanwhile, or if the host has lost access.
func (b *Backend) checkAnswer(ctx context.Context, err error) error {
	err = b.checkFault(err)
	refused := access.Recheck(ctx)
	if refused == nil || errors.Is(err, refused) {
		return err
	}
	return errors.Join(refused, err)
}

// checkReceipt is [Backend.checkAnswer] for a request that ended with a receipt or err. A receipt
// for an archive that this request stored needs no access any more: the host had access at the
// commit.
func (b *Backend) checkReceipt(ctx context.Context, got wire.Receipt, err error) error {
	if err == nil && got.Status == wire.Stored {
		return b.checkFault(nil)
	}
	return b.checkAnswer(ctx, err)
}

// checkFault is [Backend.checkAnswer] without the check of access.
func (b *Backend) checkFault(err error) error {
	if err == nil {
		err = b.checkPaths()
	}
	if err == nil && b.faulted.Load() {
		// Another upload hit a storage fault: the result of our fsync cannot be trusted.
		err = errFaulted
	}
	if err != nil {
		err = b.HandleFault(err)
	}
	return err
}

// HandleFault ends the daemon if err is a storage fault, and returns the error for the sender. A
// fault of what the server keeps beside the store counts as well.
func (b *Backend) HandleFault(err error) error {
	switch {
	case errors.Is(err, durable.ErrFault):
		b.recordFault(err)
	case durable.IsFull(err):
		b.log.Warn("no space", "err", err)
		return refusal.FromAdmission(admission.NoSpace())
	}
	if separate := b.separateHostProblem(err); separate != nil {
		return separate
	}
	return refusal.FromAdmission(err)
}

// hostBusy refuses a request because of others of the same host.
func hostBusy(format string, args ...any) error {
	p := wire.Refuse(wire.HostBusy, format, args...)
	p.RetryAfter = time.Second
	return p
}

// separateHostProblem returns the problem for the sender if err says that the directory of its
// host is a separate mount, and nil otherwise.
func (b *Backend) separateHostProblem(err error) error {
	if _, separate := errors.AsType[*durable.SeparateError](err); !separate {
		return nil
	}
	b.log.Warn("host cannot be stored", "err", err)
	return wire.Refuse(wire.Full, "%s", wire.HostIsMount)
}

// recordFault ends the daemon with its first fatal error.
func (b *Backend) recordFault(err error) {
	if !b.faulted.Swap(true) {
		b.faults <- err
	}
}

// watchPaths starts to check that the directories of the store stay at their paths.
func (b *Backend) watchPaths() error {
	var err error
	b.paths, err = pathwatch.New(append([]*durable.Dir{b.data}, b.store.Dirs()...)...)
	if err == nil && b.paths.MountListErr() != nil {
		b.log.Warn("mounts are not watched", "err", b.paths.MountListErr())
	}
	return err
}

// checkPaths returns a [*pathwatch.MovedError] and ends the daemon if a directory is no longer
// at its path: it was moved, or a later mount hides it, and readers and the next start would
// not find what is stored in it. It is called before each commit and each answer of success.
func (b *Backend) checkPaths() error {
	err := b.paths.Check()
	if err != nil {
		b.recordFault(err)
	}
	return err
}
