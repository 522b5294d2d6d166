package receiver

import (
	"context"
	"errors"
	"os"
	"time"

	"cis490/internal/durable"
)

// Waits of the background scrub.
const (
	afterStart = 5 * time.Minute // the hosts have waited, and come first
	saveEvery  = time.Minute     // between two notes of the position
	afterError = time.Hour
)

// Scrub reads the whole store back from the disk, a round an interval, as
// slowly as the configuration says, until ctx ends. It returns an error only if
// the storage can no longer be trusted.
func (r *Receiver) Scrub(ctx context.Context) error {
	if r.cfg.Scrub.Rate == 0 {
		return nil
	}
	p, err := r.resumeScrub()
	if err != nil {
		return r.failed(err)
	}
	if !sleep(ctx, afterStart) {
		return nil
	}
	for {
		wait := time.Until(p.Started.Add(r.cfg.Scrub.Interval.Std()))
		if p.Ended.IsZero() {
			wait = 0
		}
		if !sleep(ctx, wait) {
			return nil
		}
		if p.Started.IsZero() || !p.Ended.IsZero() {
			p = Progress{Started: time.Now().UTC(), WholeSince: p.WholeSince, Decoded: true, Disk: p.Disk}
		}
		err := r.round(ctx, &p)
		if errors.Is(err, durable.ErrFault) {
			return r.failed(err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.log.Error("the scrub stopped for an hour", "err", err)
			if !sleep(ctx, afterError) {
				return nil
			}
		}
	}
}

// resumeScrub returns how far the scrub has come on the present disk. It returns only
// errors of the storage.
func (r *Receiver) resumeScrub() (Progress, error) {
	p, err := loadProgress(r.data)
	if errors.Is(err, durable.ErrFault) {
		return p, err
	}
	if err != nil {
		r.log.Warn("scrub begins again", "err", err)
	}
	v, err := r.store.Volume()
	if err != nil || p.Disk == v.ID() {
		return p, err
	}
	if !p.Started.IsZero() {
		r.log.Warn("stored archives must be read again", "disk", v.String(),
			"reason", "they were read on another disk, before a reboot, or by an older version",
			"hint", "hosts prune nothing until the scrub has read them; 'receiver scrub' reads faster")
	}
	p = Progress{Decoded: true, Disk: v.ID()}
	return p, r.saveScrub(p)
}

// saveScrub keeps how far the scrub has come. What is not kept is read again after the
// next start, so only a fault of the storage is an error.
func (r *Receiver) saveScrub(p Progress) error {
	err := saveProgress(r.data, p)
	if err == nil || errors.Is(err, durable.ErrFault) {
		return err
	}
	if !r.scrubWarned {
		r.log.Warn("could not keep the scrub's position", "err", err, "hint", unreadableHint)
	}
	r.scrubWarned = true
	return nil
}

// errDisk ends a round on a disk that gives nothing any more.
var errDisk = errors.New("the disk does not give one archive after the other: look at the disk ('dmesg', 'smartctl -a')")

// round reads what is left of one walk through the store.
func (r *Receiver) round(ctx context.Context, p *Progress) error {
	findings := &findingLog{log: r.log}
	saved := time.Now()
	s := &scrub{
		Progress: p, store: r.store.Reader, since: p.Started,
		pace:  newPacer(int64(r.cfg.Scrub.Rate), func() bool { return r.slots.Active() > 0 }),
		prove: findings.transient(r.prover.prove), lock: r.keys.Lock,
		rows:   func() (*os.File, error) { return r.data.Open(IndexFile) },
		settle: r.store.MarkIndexed,
		found:  findings.add,
	}
	s.keep = func() error {
		if time.Since(saved) < saveEvery {
			return nil
		}
		saved = time.Now()
		p.cursors = s.position()
		return r.saveScrub(*p)
	}
	s.save = func() error {
		if r.prover.failing() {
			return errDisk
		}
		return s.keep()
	}
	p.Missing = 0 // rows are looked through from the first each time
	err := s.run(ctx)
	findings.end()
	if err == nil && r.prover.failing() {
		err = errDisk
	}
	if err == nil {
		if p.HostsUnreadable == 0 && p.HostsUnfinished == 0 && p.NotOpened == 0 {
			p.WholeSince = p.Started
		}
		p.cursors = nil
		r.log.Info("scrubbed the store", "objects", p.Objects, "bytes", p.Bytes, "damaged", p.Damaged, "unreadable", p.Unreadable,
			"undecodable", p.Undecodable, "missing", p.Missing, "expanding", p.Expanding, "took", p.Ended.Sub(p.Started).Round(time.Second))
	} else {
		p.Ended = time.Time{}
		p.cursors = s.position()
	}
	if serr := r.saveScrub(*p); serr != nil {
		return errors.Join(err, serr)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
