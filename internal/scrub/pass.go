package scrub

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/store"
)

// scrubPass verifies the store once, from the position in progress on.
type scrubPass struct {
	progress      Progress
	verifier      *Verifier
	budget        *Budget
	data          *durable.Dir
	indexFile     string
	verifiedSince time.Time    // what was verified since then is skipped
	onlyHost      episode.Name // empty: all hosts
	onFinding     func(Finding)
	// markIndexed records at a file that its archive has a row. Nil: nothing is written.
	// It is called while uploads of the key are locked out.
	markIndexed func(store.Object) error
	// afterArchive is called after each archive. Its error ends the pass.
	afterArchive func() error
	// savePosition, unless nil, is called while an archive is read, and saves the position
	// if it is time to.
	savePosition func() error
	log          *slog.Logger // of transient errors; nil discards them

	walks       []*hostWalk    // in the order in which the hosts take turns
	quarantined quarantinedSet // by this pass
	saveErr     error          // the first error of savePosition
}

// run verifies the archives of all hosts, and then looks for the archive of each row.
func (p *scrubPass) run(ctx context.Context) error {
	p.budget.BeforeWait = func() {
		if p.savePosition != nil && p.saveErr == nil {
			p.saveErr = p.savePosition()
		}
	}
	if err := p.verifyHosts(ctx); err != nil {
		return err
	}
	if err := errors.Join(p.findMissing(ctx), p.saveErr); err != nil {
		return err
	}
	p.progress.Ended = time.Now().UTC()
	p.progress.Host, p.progress.Episode = "", ""
	return nil
}

// verifyIfDue verifies one archive of a host, unless that may be skipped.
func (p *scrubPass) verifyIfDue(ctx context.Context, w *hostWalk, key episode.Key) error {
	o, err := p.verifier.Store.Stat(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && w.skipNew(o, p.progress.Started) {
		// No wait: otherwise new archives could come faster than the pass skips them.
		p.progress.Skipped++
		p.budget.chargeBytes(skipCost)
		return nil
	}
	if err := p.budget.waitBytes(ctx, seekCost); err != nil {
		return err
	}
	if err == nil && (o.InFlight || o.VerifiedAt.After(p.verifiedSince)) {
		p.progress.Skipped++
		return nil
	}
	result, err := p.verifier.verifyArchive(ctx, key, p.budget) // also if Stat failed: it is counted
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err):
		return err
	}
	verified := err == nil
	switch {
	case err != nil && result.Err == nil: // no permission to read it, for example: others are read
		p.progress.NotOpened++
		result.Err = errors.Join(store.ErrUnreadable, err)
	case err != nil: // it was read, and could not be quarantined
		result.Err = errors.Join(result.Err, err)
	}
	p.recordResult(key, result, verified)
	return nil
}

// recordResult counts and reports the result for an archive.
func (p *scrubPass) recordResult(key episode.Key, r Result, verified bool) {
	if r.Err == nil && r.Transient != nil && verified && p.log != nil {
		r.LogTo(p.log.With("host", key.Host, "episode", key.Name))
	}
	if r.Quarantined {
		p.quarantined.add(key)
	}
	for _, f := range p.progress.Add(key, r) {
		f.verified = f.verified && verified
		p.onFinding(f)
	}
}

// Add counts the result for an archive, and returns what was found.
func (p *Progress) Add(key episode.Key, r Result) (found []Finding) {
	p.Objects++
	p.Bytes += r.Object.Size
	if r.ExpandedSize > 0 {
		p.Expanding++
	}
	if r.NewExpansion {
		found = append(found, Finding{Finding: "expanding", Host: key.Host, Episode: key.Name, Detail: fmt.Sprintf(
			"decodes to %d bytes, %d times its size; it is decoded once, and afterwards only its bytes are read",
			r.ExpandedSize, r.ExpandedSize/max(r.Object.Size, 1))})
	}
	if r.Err == nil {
		return found
	}
	f := Finding{Host: key.Host, Episode: key.Name, Quarantined: r.Quarantined, Detail: r.Err.Error(), verified: true}
	switch {
	case errors.Is(r.Err, store.ErrUnreadable):
		f.Finding = "unreadable"
		p.Unreadable++
	case errors.Is(r.Err, store.ErrUndecodable):
		f.Finding = "undecodable"
		p.Undecodable++
	default:
		f.Finding = "damaged"
		p.Damaged++
	}
	if r.Quarantined {
		p.Quarantined++
	}
	return append(found, f)
}

// LostBatches returns the number of batches of the index that a pass over a bucket could not read.
func (p Progress) LostBatches() int64 { return max(p.NotOpened-p.Unreadable, 0) }

// Merge adds the counts of another part of the pass.
func (p *Progress) Merge(o Progress) {
	p.Objects += o.Objects
	p.Bytes += o.Bytes
	p.Skipped += o.Skipped
	p.Damaged += o.Damaged
	p.Unreadable += o.Unreadable
	p.Undecodable += o.Undecodable
	p.Missing += o.Missing
	p.Quarantined += o.Quarantined
	p.HostsUnreadable += o.HostsUnreadable
	p.HostsUnfinished += o.HostsUnfinished
	p.Expanding += o.Expanding
	p.NotOpened += o.NotOpened
}

// quarantinedSet has the archives that a pass has quarantined, so that their rows do not
// count as missing too. It holds a hash of each key, and at most maxQuarantined of them.
// Further archives count twice.
type quarantinedSet struct {
	seed   maphash.Seed
	hashes map[uint64]struct{}
}

const maxQuarantined = 1 << 18

func (s *quarantinedSet) add(key episode.Key) {
	if s.hashes == nil {
		s.seed, s.hashes = maphash.MakeSeed(), make(map[uint64]struct{})
	}
	if len(s.hashes) < maxQuarantined {
		s.hashes[maphash.Comparable(s.seed, key)] = struct{}{}
	}
}

func (s *quarantinedSet) has(key episode.Key) bool {
	if s.hashes == nil {
		return false
	}
	_, found := s.hashes[maphash.Comparable(s.seed, key)]
	return found
}
