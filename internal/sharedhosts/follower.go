package sharedhosts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/durable"
)

const (
	// PollInterval is how often a follower asks for a new version.
	PollInterval = 2 * time.Second
	// verifyInterval is how often a follower looks whether the bucket still has the version that it knows.
	verifyInterval = time.Minute
	// outdatedAfter is for how long the object store may not answer before an operator is told that the
	// list may be outdated.
	outdatedAfter = 30 * time.Second
)

// Follower makes new versions of a list current at a running receiver.
//
// If the object store does not answer, the last known list stays current. A receiver that refused all
// hosts meanwhile would be no safer: while the list cannot be read, no archive can be committed either.
type Follower struct {
	list   *List
	watch  *datadir.DisabledWatch
	holder string // describes this process to others that wait for the lock
	log    *slog.Logger

	// Used by one goroutine at a time: Follow, then Run.
	version    datadir.SharedVersion // the newest that was understood
	verifiedAt time.Time             // when the bucket had it
	lost       bool                  // the bucket does not have it, so all hosts are refused
	damaged    bool                  // there is a newer one that was not understood
	gap        bool                  // it was removed, and one after it was not, which was logged
	unsaved    bool                  // the copy in the data directory was not written

	mu       sync.Mutex // guards the fields below
	failing  error      // of the last request, or nil
	asOf     time.Time  // when the list was known to be current
	reported bool       // that it may be outdated
}

// Follow makes the newest version current before it returns. If the object store does not answer, the one
// in the data directory is, which must then have one. own is the list of this data directory, whose
// hosts are added if it was not shared before.
func Follow(ctx context.Context, list *List, watch *datadir.DisabledWatch, own datadir.HostList, log *slog.Logger) (*Follower, error) {
	f := &Follower{list: list, watch: watch, holder: own.Holder, log: log, version: watch.SharedVersion(), asOf: time.Now()}
	if err := own.Adopt(ctx); err != nil {
		return nil, err
	}
	known := f.version
	number, version, err := list.readNewest(ctx, known)
	switch {
	case errors.Is(err, ErrVersionMissing), err != nil && known.Number == 0:
		return nil, fmt.Errorf("read the list of disabled hosts: %w", err)
	case err != nil:
		f.noteAnswer(err)
		log.Warn("list of disabled hosts not read", "version", known.Number, "err", err)
		return f, nil
	}
	if damage := watch.Current().Err; number == 0 && damage != nil {
		return nil, damage // it may be the only list
	}
	f.verifiedAt = time.Now()
	return f, f.use(ctx, number, version)
}

// Run makes new versions current until ctx ends. It returns an error only if the data directory can no
// longer be trusted.
func (f *Follower) Run(ctx context.Context) error {
	tick := time.NewTicker(PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f.poll(ctx); err != nil {
			return err
		}
	}
}

// poll asks for the next version, which is one request unless there is one. Before the next one is used,
// and once in a while, it looks whether the bucket still has the version before it.
func (f *Follower) poll(ctx context.Context) error {
	if f.lost || time.Since(f.verifiedAt) >= verifyInterval {
		if verified, err := f.verifyKnown(ctx); err != nil || !verified {
			return err
		}
	}
	for {
		version, err := f.list.read(ctx, f.version.Number+1)
		if ctx.Err() != nil {
			return nil
		}
		if isMissing(err) {
			f.noteAnswer(nil)
			return f.useFormer(ctx)
		}
		f.noteAnswer(err)
		if err != nil {
			return nil
		}
		if verified, err := f.verifyKnown(ctx); err != nil || !verified {
			return err
		}
		if err := f.use(ctx, f.version.Number+1, version); err != nil || f.damaged {
			return err
		}
	}
}

// verifyKnown reports whether the bucket has the known version. An older list, or another one, lacks changes that
// are known here: all hosts are refused until the known version is there again.
func (f *Follower) verifyKnown(ctx context.Context) (bool, error) {
	known := f.version
	if file := f.watch.SharedVersion(); file.Number > known.Number {
		known = file // of a command on this machine
	}
	if known.Number == 0 {
		return true, nil
	}
	version, err := f.list.readKnown(ctx, known)
	if ctx.Err() != nil {
		return false, nil
	}
	if errors.Is(err, ErrVersionMissing) {
		f.noteAnswer(nil)
		f.lost = true
		f.watch.RefuseAll(known.Number, fmt.Errorf("%w: %w", datadir.ErrDisabledList, err)) // it logs that once
		return false, nil
	}
	if err != nil {
		f.noteAnswer(err)
		return false, nil
	}
	f.verifiedAt = time.Now()
	if !f.lost {
		return true, nil
	}
	f.lost = false
	if f.damaged {
		return true, nil // the next version decides
	}
	return true, f.use(ctx, known.Number, version)
}

// use makes a version current.
func (f *Follower) use(ctx context.Context, number int64, version []byte) error {
	used, err := f.watch.UseShared(number, version)
	if err != nil {
		f.damaged = true // all hosts are refused; the watch has logged it
		if f.version.Number != number-1 {
			f.version = datadir.SharedVersion{Number: number - 1} // so that this one is read again, and none before it
		}
		return nil
	}
	f.version, f.damaged, f.gap = used, false, false
	return f.save(ctx)
}

// useFormer makes the former version current again after one that was not understood was removed, and
// writes the copy if that failed or the copy was damaged. A version after the removed one may have disabled
// more hosts: all stay refused while there is one.
func (f *Follower) useFormer(ctx context.Context) error {
	if f.damaged {
		number, version, err := f.list.readNewest(ctx, f.version)
		if errors.Is(err, ErrVersionMissing) {
			if !f.gap {
				f.log.Error("all hosts stay refused", "err", err, "hint", "put the removed version back; only the highest one may be removed")
			}
			f.gap = true
			return nil
		}
		if err != nil {
			f.noteAnswer(err)
			return nil
		}
		return f.use(ctx, number, version)
	}
	return f.save(ctx)
}

// save writes the copy in the data directory unless it is there, for a start without the object store. Hosts
// are refused as the list says also if that fails.
func (f *Follower) save(ctx context.Context) error {
	err := f.watch.SaveShared(ctx, f.holder)
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	if err != nil && !f.unsaved {
		f.log.Warn("list of disabled hosts not saved", "version", f.version.Number, "err", err)
	}
	f.unsaved = err != nil
	return nil
}

// noteAnswer remembers whether the object store has answered, and logs it when that has changed for long.
func (f *Follower) noteAnswer(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = err
	if err == nil {
		f.asOf = time.Now()
		if f.reported {
			f.log.Info("disabled hosts are current again")
		}
		f.reported = false
		return
	}
	if !f.reported && time.Since(f.asOf) >= outdatedAfter {
		f.reported = true
		f.log.Warn("disabled hosts may be outdated", "since", f.asOf, "err", err)
	}
}

// Check returns an error if the list may be outdated.
func (f *Follower) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing == nil || time.Since(f.asOf) < outdatedAfter {
		return nil
	}
	return fmt.Errorf("the list of disabled hosts may be outdated: it could not be read since %s: %w", f.asOf.UTC().Format(time.RFC3339), f.failing)
}
