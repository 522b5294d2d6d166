// Package shards divides a pass of the scrub among the receivers that share a bucket. A pass covers the
// batches that the index has at its start, in shards of equal numbers of batches.
//
//	scrub/passes/<pass>.json          what a pass covers; create-only
//	scrub/claims/<pass>/<shard>.json  which receiver reads a shard; renewed while it does
//	scrub/results/<pass>/<shard>.json what was found in a shard; create-only
//	scrub/progress/<pass>.json        the sum of the results so far; a hint
//	scrub/ended/<pass>.json           the sum of all results; create-only
//
// A claim is not a lease: nothing depends on its holder being the only one. A receiver that was killed
// does not renew its claim, and another one reads the shard again. If both read it, the first result
// counts.
//
// Invariant: a pass has one start and one end, and each shard one result, whichever receivers take part.
package shards

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/retry"
	"cis490/internal/scrub"
)

// maxShards is the maximum number of shards of a pass: few enough to list them in one request, and
// enough for receivers that differ in speed.
const maxShards = 64

// maxAttempts is how often a receiver looks for the newest pass while a list names one that is not there.
const maxAttempts = 3

// Waits of receivers that share a pass.
const (
	renewInterval = time.Minute      // between two renewals of a claim
	staleAfter    = 10 * time.Minute // without a renewal, after which another receiver takes the shard
	pollInterval  = time.Minute      // while all shards are claimed
	releaseWait   = 2 * time.Second  // for the engine, at the end of the daemon
)

// Pass is a pass in which this receiver takes part. It must be used by one goroutine.
type Pass struct {
	in     bucket.Bucket
	name   string // of this receiver, for people
	number int64
	start  start

	end     *scrub.Progress        // set once the pass has ended
	results map[int]scrub.Progress // that are known
	seen    map[int]claimSeen      // claims of other receivers
	renewed time.Time              // the claim of this receiver
}

// start is the content of the object that begins a pass.
type start struct {
	Started time.Time `json:"started"`
	Batches int64     `json:"batches"` // of the index that the pass covers
	Shards  int       `json:"shards"`
	// WholeSince is when the last complete pass before this one started.
	WholeSince time.Time `json:"whole_since,omitzero"`
}

// claim is the content of the object of a claim. Only its time in the bucket counts.
type claim struct {
	Receiver string    `json:"receiver"`
	At       time.Time `json:"at"`
}

// claimSeen is a claim at the time when this receiver first saw it like this.
type claimSeen struct {
	modified time.Time // by the clock of the engine
	at       time.Time // by the clock of this receiver
}

// Shard is a part of a pass.
type Shard struct {
	Number      int
	First, Last int64 // batches of the index
}

// Join joins the pass that is in progress. If the last one has started at least interval ago, it begins a
// new one over the number of batches that batches returns. Otherwise it returns the last one, which has
// [Pass.Ended]. It begins a new one also if the last one has an object that is damaged.
func Join(ctx context.Context, in bucket.Bucket, log *slog.Logger, name string, interval time.Duration, batches func(context.Context) (int64, error)) (*Pass, error) {
	for {
		last, err := findNewest(ctx, in)
		if err == nil {
			err = last.readEnd(ctx)
		}
		switch {
		case errors.Is(err, errUnusable):
			log.Warn("scrub begins again", "err", err)
		case err != nil:
			return nil, err
		case last.number > 0 && !last.isDue(interval):
			last.name = name
			return last, nil
		}
		next := start{Started: time.Now().UTC().Truncate(time.Second), Shards: 1, WholeSince: last.start.WholeSince}
		if last.end != nil {
			next.WholeSince = last.end.WholeSince
		}
		if next.Batches, err = batches(ctx); err != nil {
			return nil, err
		}
		next.Shards = int(min(max(next.Batches, 1), maxShards))
		err = create(ctx, in, objectName(passes, last.number+1), next)
		if err != nil && !errors.Is(err, fs.ErrExist) { // another receiver has begun it
			return nil, err
		}
	}
}

// isDue reports whether the pass has ended, and the next one is due. Clocks differ a little; one that was
// wrong by more than the interval must not delay the next pass.
func (p *Pass) isDue(interval time.Duration) bool {
	return p.end != nil && time.Since(p.start.Started).Abs() >= interval
}

// findNewest returns the newest pass, or one with the number 0 if there is none. With an error wrapping
// errUnusable it returns the pass without its start.
func findNewest(ctx context.Context, in bucket.Bucket) (p *Pass, err error) {
	for range maxAttempts {
		p, err = tryNewest(ctx, in)
		if !errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile, after the next one
			return p, err
		}
	}
	return p, fmt.Errorf("%w: %w", errUnusable, err)
}

func tryNewest(ctx context.Context, in bucket.Bucket) (*Pass, error) {
	p := &Pass{in: in, results: make(map[int]scrub.Progress), seen: make(map[int]claimSeen)}
	for info, err := range in.List(ctx, passes, "") {
		if err != nil {
			return nil, fmt.Errorf("look for passes of the scrub: %w", err)
		}
		p.number = max(p.number, numberOf(info.Name))
	}
	if p.number == 0 {
		return p, nil
	}
	err := readJSON(ctx, in, objectName(passes, p.number), &p.start)
	if err == nil && (p.start.Shards < 1 || p.start.Shards > maxShards || p.start.Batches < 0 || p.start.Started.IsZero()) {
		err = fmt.Errorf("%w: %s", errUnusable, objectName(passes, p.number))
	}
	if err != nil {
		p.start = start{}
	}
	return p, err
}

// readEnd reads the end of the pass, if it has ended.
func (p *Pass) readEnd(ctx context.Context) error {
	if p.number == 0 {
		return nil
	}
	var end scrub.Progress
	err := readJSON(ctx, p.in, objectName(ended, p.number), &end)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		p.end = &end
	}
	return err
}

// Ended returns the result of the pass, or nil if it has not ended.
func (p *Pass) Ended() *scrub.Progress { return p.end }

// Started returns when the pass started.
func (p *Pass) Started() time.Time { return p.start.Started }

// Next claims a shard that no receiver has read, and waits if others read all the remaining ones. It reports false
// if the pass has ended.
func (p *Pass) Next(ctx context.Context) (Shard, bool, error) {
	for {
		if over, err := p.isOver(ctx); over || err != nil {
			return Shard{}, false, err
		}
		claimed, err := p.list(ctx, claims)
		if err != nil {
			return Shard{}, false, err
		}
		done, err := p.list(ctx, results)
		if err != nil {
			return Shard{}, false, err
		}
		if len(done) >= p.start.Shards {
			if err := p.finish(ctx); err != nil || p.end != nil {
				return Shard{}, false, err
			}
		}
		n, err := p.claimOne(ctx, claimed, done)
		if err != nil {
			return Shard{}, false, err
		}
		if n >= 0 {
			p.renewed = time.Now()
			return p.shard(n), true, nil
		}
		// Receivers that wait must not all take the same shard at once.
		if !retry.Sleep(ctx, pollInterval/2+rand.N(pollInterval)) {
			return Shard{}, false, ctx.Err()
		}
	}
}

// isOver reports whether the pass has ended, or a newer one has begun.
func (p *Pass) isOver(ctx context.Context) (bool, error) {
	last, err := findNewest(ctx, p.in)
	if err != nil {
		return false, err
	}
	err = last.readEnd(ctx)
	if last.number != p.number || last.end != nil {
		p.end = last.end
		return true, err
	}
	return false, err
}

// claimOne claims a shard, and returns its number, or -1 if others have claimed all of them.
func (p *Pass) claimOne(ctx context.Context, claimed, done map[int]time.Time) (int, error) {
	for n := range p.start.Shards {
		_, isDone := done[n]
		if _, isClaimed := claimed[n]; isDone || isClaimed {
			continue
		}
		err := create(ctx, p.in, p.shardName(claims, n), p.newClaim())
		if !errors.Is(err, fs.ErrExist) {
			return n, err
		}
	}
	for n := range p.start.Shards {
		modified, isClaimed := claimed[n]
		if _, isDone := done[n]; isDone || !isClaimed {
			continue
		}
		if p.seen[n].modified != modified {
			p.seen[n] = claimSeen{modified, time.Now()}
		}
		if time.Since(p.seen[n].at) >= staleAfter {
			return n, put(ctx, p.in, p.shardName(claims, n), p.newClaim())
		}
	}
	return -1, nil
}

func (p *Pass) newClaim() claim { return claim{p.name, time.Now().UTC().Truncate(time.Second)} }

// shard returns the batches of a shard.
func (p *Pass) shard(n int) Shard {
	at := func(n int) int64 { return p.start.Batches * int64(n) / int64(p.start.Shards) }
	return Shard{Number: n, First: at(n) + 1, Last: at(n + 1)}
}

// Renew renews the claim of a shard, if it is time to. Without it another receiver reads the shard again,
// which costs time and does no harm: so it returns no error.
func (p *Pass) Renew(ctx context.Context, s Shard) {
	if time.Since(p.renewed) < renewInterval {
		return
	}
	p.renewed = time.Now()
	_ = put(ctx, p.in, p.shardName(claims, s.Number), p.newClaim())
}

// Release gives up the claim of a shard that this receiver does not finish, so that another one need not
// wait. ctx may have ended.
func (p *Pass) Release(ctx context.Context, s Shard) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	_ = p.in.Remove(ctx, p.shardName(claims, s.Number))
}

// Finish records the result of a shard, and the sum so far for people.
func (p *Pass) Finish(ctx context.Context, s Shard, result scrub.Progress) error {
	err := create(ctx, p.in, p.shardName(results, s.Number), result)
	if err != nil && !errors.Is(err, fs.ErrExist) { // another receiver has read it as well
		return err
	}
	done, err := p.list(ctx, results)
	if err != nil {
		return err
	}
	sum, complete, err := p.sumProgress(ctx, done)
	if complete {
		_ = put(ctx, p.in, objectName(progress, p.number), sum) // a hint
	}
	return err
}

// sumProgress adds the results. It removes those that are damaged, so that their shards are read again. Then the
// sum is not complete.
func (p *Pass) sumProgress(ctx context.Context, done map[int]time.Time) (sum scrub.Progress, complete bool, err error) {
	complete, sum = true, scrub.Progress{Started: p.start.Started, WholeSince: p.start.WholeSince, Decoded: true}
	for n := range done {
		if _, known := p.results[n]; !known {
			var r scrub.Progress
			err := readJSON(ctx, p.in, p.shardName(results, n), &r)
			if errors.Is(err, errUnusable) || errors.Is(err, fs.ErrNotExist) {
				complete, err = false, p.discardResult(ctx, n)
			} else if err == nil {
				p.results[n] = r
			}
			if err != nil {
				return sum, false, err
			}
		}
		sum.Merge(p.results[n])
	}
	return sum, complete, nil
}

// discardResult removes the result of a shard and its claim.
func (p *Pass) discardResult(ctx context.Context, n int) error {
	if err := p.in.Remove(ctx, p.shardName(claims, n)); err != nil {
		return err
	}
	return p.in.Remove(ctx, p.shardName(results, n))
}

// finish ends the pass, whose shards all have results, and removes the objects of former passes. If a result
// turns out to be damaged, the pass does not end.
func (p *Pass) finish(ctx context.Context) error {
	done, err := p.list(ctx, results)
	if err != nil {
		return err
	}
	sum, complete, err := p.sumProgress(ctx, done)
	if err != nil || !complete {
		return err
	}
	sum.Ended = time.Now().UTC().Truncate(time.Second)
	if sum.NotOpened == 0 {
		sum.WholeSince = sum.Started
	}
	err = create(ctx, p.in, objectName(ended, p.number), sum)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := p.readEnd(ctx); err != nil {
		return err
	}
	p.removeFormer(ctx)
	return nil
}

// removeFormer removes the objects of former passes. What it does not reach is removed after the next one.
func (p *Pass) removeFormer(ctx context.Context) {
	var former []string
	for info, err := range p.in.List(ctx, root, "") {
		if err != nil {
			return
		}
		if n := numberOf(info.Name); n > 0 && n < p.number {
			former = append(former, info.Name)
		}
	}
	for _, name := range former {
		if p.in.Remove(ctx, name) != nil {
			return
		}
	}
}

// Status returns the state of the newest pass. It is zero if there was none.
func Status(ctx context.Context, in bucket.Bucket) (scrub.Progress, error) {
	p, err := findNewest(ctx, in)
	if err != nil || p.number == 0 {
		return scrub.Progress{}, err
	}
	if err := p.readEnd(ctx); err != nil {
		return scrub.Progress{}, err
	}
	if p.end != nil {
		return *p.end, nil
	}
	at := scrub.Progress{Started: p.start.Started, WholeSince: p.start.WholeSince, Decoded: true}
	err = readJSON(ctx, in, objectName(progress, p.number), &at)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return at, err
}
