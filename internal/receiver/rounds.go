package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// scrubFile is where the daemon keeps how far its scrub has come.
const scrubFile = "scrub.json"

// Waits of the background scrub.
const (
	afterStart = 5 * time.Minute // the hosts have waited, and come first
	saveEvery  = time.Minute     // between two notes of the position
	afterError = time.Hour
)

// namedMissing is how many missing archives of a round, and how many that cannot be
// opened, are logged by name.
const namedMissing = 10

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
	saved, refused := time.Now(), 0
	s := &scrub{
		Progress: p, store: r.store.Reader, since: p.Started,
		pace:  newPacer(int64(r.cfg.Scrub.Rate), func() bool { return r.slots.Active() > 0 }),
		prove: r.readBack, lock: r.keys.Lock,
		rows:   func() (io.ReadCloser, error) { return r.data.Open(IndexFile) },
		settle: r.store.Settle,
		found: func(f ScrubFinding) {
			switch {
			case f.logged:
			case f.Finding == "missing":
				if p.Missing <= namedMissing {
					r.log.Error("an archive that has a row is not in the store", "host", f.Host, "episode", f.Episode)
				}
			case f.Episode == "":
				r.log.Error("could not list a host's archives", "host", f.Host, "err", f.Detail, "hint", unreadableHint)
			default:
				if refused++; refused <= namedMissing {
					r.log.Error("could not read a stored archive", "host", f.Host, "episode", f.Episode, "err", f.Detail, "hint", unreadableHint)
				}
			}
		},
		save: func() error {
			if r.prover.failing() {
				return errDisk
			}
			if time.Since(saved) < saveEvery {
				return nil
			}
			saved = time.Now()
			return r.saveScrub(*p)
		},
	}
	p.Missing = 0 // rows are looked through from the first each time
	err := s.run(ctx)
	if err == nil && r.prover.failing() {
		err = errDisk
	}
	if err == nil {
		if p.HostsUnreadable == 0 && p.NotOpened == 0 {
			p.WholeSince = p.Started
		}
		r.log.Info("scrubbed the store", "objects", p.Objects, "bytes", p.Bytes, "damaged", p.Damaged,
			"unreadable", p.Unreadable, "undecodable", p.Undecodable, "missing", p.Missing, "took", p.Ended.Sub(p.Started).Round(time.Second))
	} else {
		p.Ended = time.Time{}
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

// maxProgress bounds what is read of scrub.json.
const maxProgress = 64 << 10

// loadProgress returns how far the background scrub of a data directory has
// come. Of a file that cannot be read nothing is known, and the walk begins anew.
func loadProgress(data *durable.Dir) (Progress, error) {
	f, err := data.Open(scrubFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Progress{}, nil
	}
	if err != nil {
		return Progress{}, err
	}
	defer f.Close()
	var p Progress
	if err := json.NewDecoder(io.LimitReader(f, maxProgress)).Decode(&p); err != nil {
		return Progress{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if now := time.Now(); p.Started.After(now) { // a clock that was wrong; it would wait for that day
		return Progress{}, nil
	}
	if !p.Decoded {
		return Progress{}, nil
	}
	for _, name := range []episode.Name{p.Host, p.Episode} {
		if _, err := episode.ParseName(string(name)); name != "" && err != nil {
			return Progress{}, fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	return p, nil
}

func saveProgress(data *durable.Dir, p Progress) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	err = data.WriteFile(scrubFile, append(b, '\n'), 0o640)
	if isFull(err) {
		return nil // the walk begins anew after the next start; that is all
	}
	return err
}
