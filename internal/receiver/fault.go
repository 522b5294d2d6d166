package receiver

import (
	"context"
	"errors"
	"time"

	"cis490/internal/access"
	"cis490/internal/admission"
	"cis490/internal/durable"
	"cis490/internal/wire"
)

// checkPathsInterval is how often the paths are checked while there is no request.
const checkPathsInterval = 2 * time.Second

var errFaulted = errors.New("the storage has failed or was moved, and nothing is acknowledged any more")

// checkAnswer returns the error for the sender of a request that ended with err. Each method of
// the [wire.Backend] that vouches for stored bytes ends with it: it is an error if the storage has
// failed or was moved meanwhile, or if the host has lost access.
func (r *Receiver) checkAnswer(ctx context.Context, err error) error {
	err = r.checkFault(err)
	refusal := access.Recheck(ctx)
	if refusal == nil || errors.Is(err, refusal) {
		return err
	}
	return errors.Join(refusal, err)
}

// checkReceipt is [Receiver.checkAnswer] for a request that ended with a receipt or err. A receipt
// for an archive that this request stored needs no access any more: the host had access at the
// commit.
func (r *Receiver) checkReceipt(ctx context.Context, got wire.Receipt, err error) error {
	if err == nil && got.Status == wire.Stored {
		return r.checkFault(nil)
	}
	return r.checkAnswer(ctx, err)
}

// checkFault is [Receiver.checkAnswer] without the check of access.
func (r *Receiver) checkFault(err error) error {
	if err == nil {
		err = r.checkPaths()
	}
	if err == nil && r.faulted.Load() {
		// Another upload hit a storage fault: the result of our fsync cannot be trusted.
		err = errFaulted
	}
	if err != nil {
		err = r.noteFault(err)
	}
	return err
}

// noteFault ends the daemon if err is a storage fault, and returns the error for the sender.
func (r *Receiver) noteFault(err error) error {
	switch {
	case errors.Is(err, durable.ErrFault):
		r.recordFault(err)
	case durable.IsFull(err):
		r.log.Warn("no space", "err", err)
		return problemOf(admission.NoSpace())
	}
	if refusal := r.separateHostProblem(err); refusal != nil {
		return refusal
	}
	return problemOf(err)
}

// recordFault ends the daemon with its first fatal error.
func (r *Receiver) recordFault(err error) {
	if !r.faulted.Swap(true) {
		r.fault <- err
	}
}

// watchPaths starts to check that the directories of the store stay at their paths.
func (r *Receiver) watchPaths() error {
	var err error
	r.paths, err = durable.WatchPaths(append([]*durable.Dir{r.data}, r.store.Dirs()...)...)
	if err == nil && r.paths.MountListErr() != nil {
		r.log.Warn("mounts are not watched", "err", r.paths.MountListErr())
	}
	return err
}

// checkPaths returns a [*durable.MovedError] and ends the daemon if a directory is no longer
// at its path: it was moved, or a later mount hides it, and readers and the next start would
// not find what is stored in it. It is called before each commit and each answer of success.
func (r *Receiver) checkPaths() error {
	err := r.paths.Check()
	if err != nil {
		r.recordFault(err)
	}
	return err
}
