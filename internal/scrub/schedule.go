package scrub

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cis490/internal/durable"
	"cis490/internal/retry"
	"cis490/internal/store"
)

// Waits of the background scrub.
const (
	startDelay   = 5 * time.Minute // hosts have waited for the receiver, and come first
	saveInterval = time.Minute     // between two saves of the position
	retryDelay   = time.Hour       // after a pass that failed
)

// Scheduler verifies the store beside a live receiver, one pass per interval.
type Scheduler struct {
	Config    Config
	Data      *durable.Dir
	IndexFile string // its name in Data
	Store     *store.Store
	Verifier  *Verifier
	Busy      func() bool // reports whether uploads are in flight, which slow the scrub down
	Log       *slog.Logger
	OnFinding func(Finding) // called for each finding, after it was logged; must not block

	saveErrorLogged bool
}

// Run runs passes until ctx ends. It returns an error only if the storage can no longer be
// trusted.
func (s *Scheduler) Run(ctx context.Context) error {
	if s.Config.Rate == 0 {
		return nil
	}
	p, err := s.loadPosition()
	if err != nil {
		return err
	}
	return RunPasses(ctx, s.Config, s.Log, p, s.runPass)
}

// RunPasses calls pass when it is due, until ctx ends. The argument of pass is the state from which it
// continues, and its result the state that it leaves. last is the state of the last pass. RunPasses
// returns an error only if the storage can no longer be trusted.
func RunPasses(ctx context.Context, c Config, log *slog.Logger, last Progress, pass func(context.Context, Progress) (Progress, error)) error {
	if c.Rate == 0 || !retry.Sleep(ctx, startDelay) {
		return nil
	}
	for p := last; ; {
		// At most the interval: a clock that was wrong once must not end the scrub.
		wait := min(time.Until(p.Started.Add(c.Interval.Std())), c.Interval.Std())
		if p.Ended.IsZero() {
			wait = 0
		}
		if !retry.Sleep(ctx, wait) {
			return nil
		}
		if p.Started.IsZero() || !p.Ended.IsZero() {
			p = Progress{Started: time.Now().UTC(), WholeSince: p.WholeSince, Decoded: true, Disk: p.Disk}
		}
		var err error
		p, err = pass(ctx, p)
		if errors.Is(err, durable.ErrFault) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			log.Error("scrub stopped for an hour", "err", err)
			if !retry.Sleep(ctx, retryDelay) {
				return nil
			}
		}
	}
}

// loadPosition returns the state of the last pass over the present disk. It returns only
// errors of the storage.
func (s *Scheduler) loadPosition() (Progress, error) {
	p, err := LoadProgress(s.Data)
	if errors.Is(err, durable.ErrFault) {
		return p, err
	}
	if err != nil {
		s.Log.Warn("scrub begins again", "err", err)
	}
	disk, err := s.Store.Volume()
	if err != nil || p.Disk == disk.ID() {
		return p, err
	}
	if !p.Started.IsZero() {
		s.Log.Warn("stored archives must be read again", "disk", disk.String(),
			"reason", "they were read on another disk, before a reboot, or by an older version",
			"hint", "hosts prune nothing until the scrub has read them; 'receiver scrub' reads faster")
	}
	p = Progress{Decoded: true, Disk: disk.ID()}
	return p, s.savePosition(p)
}

// savePosition saves the state of a pass. After a restart, archives are read again whose
// position was not saved, so only a storage fault is an error.
func (s *Scheduler) savePosition(p Progress) error {
	err := saveProgress(s.Data, p)
	if err == nil || errors.Is(err, durable.ErrFault) {
		return err
	}
	if !s.saveErrorLogged {
		s.Log.Warn("could not save scrub position", "err", err, "hint", UnreadableHint)
	}
	s.saveErrorLogged = true
	return nil
}

// runPass runs the rest of a pass and returns its state.
func (s *Scheduler) runPass(ctx context.Context, from Progress) (Progress, error) {
	findings := NewFindingLog(s.Log, UnreadableHint)
	lastSave := time.Now()
	p := &scrubPass{
		progress: from, verifier: s.Verifier, verifiedSince: from.Started,
		budget: NewBudget(int64(s.Config.Rate), s.Busy),
		data:   s.Data, indexFile: s.IndexFile, markIndexed: s.Store.MarkIndexed,
		log: s.Log,
	}
	p.onFinding = func(f Finding) {
		findings.LogFinding(f)
		if s.OnFinding != nil {
			s.OnFinding(f)
		}
	}
	p.savePosition = func() error {
		if time.Since(lastSave) < saveInterval {
			return nil
		}
		lastSave = time.Now()
		return s.savePosition(p.savedPosition())
	}
	p.afterArchive = func() error {
		if err := s.Verifier.diskError(); err != nil {
			return err
		}
		return p.savePosition()
	}
	p.progress.Missing = 0 // all rows are checked again
	err := p.run(ctx)
	findings.LogSuppressed()
	if err == nil {
		err = s.Verifier.diskError()
	}
	done := p.progress
	if err == nil {
		done = s.endPass(done)
	} else {
		done.Ended = time.Time{}
		done.cursors = p.savedPosition().cursors
	}
	return done, errors.Join(err, s.savePosition(done))
}

// endPass returns the state of a pass that has read the whole store.
func (s *Scheduler) endPass(p Progress) Progress {
	if p.HostsUnreadable == 0 && p.HostsUnfinished == 0 && p.NotOpened == 0 {
		p.WholeSince = p.Started
	}
	p.cursors = nil
	p.LogEnd(s.Log)
	return p
}

// LogEnd logs the result of a pass.
func (p *Progress) LogEnd(log *slog.Logger) {
	log.Info("store scrubbed", "objects", p.Objects, "bytes", p.Bytes, "damaged", p.Damaged, "unreadable", p.Unreadable,
		"undecodable", p.Undecodable, "missing", p.Missing, "expanding", p.Expanding, "took", p.Ended.Sub(p.Started).Round(time.Second))
}
