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

// namedMissing is how many missing archives of a round are logged by name.
const namedMissing = 10

// Scrub reads the whole store back from the disk, a round an interval, as
// slowly as the configuration says, until ctx ends. It returns an error only if
// the storage can no longer be trusted.
func (r *Receiver) Scrub(ctx context.Context) error {
	if r.cfg.Scrub.Rate == 0 {
		return nil
	}
	p, err := loadProgress(r.data)
	if err != nil {
		r.log.Warn("began the scrub anew", "err", err)
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
			p = Progress{Started: time.Now().UTC(), WholeSince: p.WholeSince, Decoded: true}
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

// errDisk ends a round on a disk that gives nothing any more.
var errDisk = errors.New("the disk does not give one archive after the other: look at the disk ('dmesg', 'smartctl -a')")

// round reads what is left of one walk through the store.
func (r *Receiver) round(ctx context.Context, p *Progress) error {
	saved := time.Now()
	s := &scrub{
		Progress: p, store: r.store.Reader, since: p.Started,
		pace:  newPacer(int64(r.cfg.Scrub.Rate), r.slots.busy),
		prove: r.readBack, lock: r.keys.lock,
		rows: func() (io.ReadCloser, error) { return r.data.Open(IndexFile) },
		found: func(f ScrubFinding) {
			if f.Finding == "missing" && p.Missing <= namedMissing {
				r.log.Error("an archive that has a row is not in the store", "host", f.Host, "episode", f.Episode)
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
			return saveProgress(r.data, *p)
		},
	}
	p.Missing = 0 // rows are looked through from the first each time
	err := s.run(ctx)
	if err == nil && r.prover.failing() {
		err = errDisk
	}
	if err == nil {
		p.WholeSince = p.Started
		r.log.Info("scrubbed the store", "objects", p.Objects, "bytes", p.Bytes, "damaged", p.Damaged,
			"unreadable", p.Unreadable, "undecodable", p.Undecodable, "missing", p.Missing, "took", p.Ended.Sub(p.Started).Round(time.Second))
	} else {
		p.Ended = time.Time{}
	}
	if serr := saveProgress(r.data, *p); serr != nil {
		return errors.Join(err, serr)
	}
	return err
}

// busy reports whether uploads are under way.
func (s *slots) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken > 0
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
