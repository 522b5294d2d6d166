package shipped

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/source"
)

// minUnchanged is for how long no file of an episode must have changed before it is
// deleted: a later write must get a ctime other than those that were compared.
const minUnchanged = 3 * time.Second

// deleteEpisode deletes a retired episode, or sets found.Kept. It compares the episode
// twice: under its name, so that one that must be kept is not moved, and in the trash, where
// no other process finds it, directly before the deletion.
func (p *pruneRun) deleteEpisode(ctx context.Context, r source.Retired, contents digest.Digest, found *PruneResult) error {
	_, shipped := p.src.Dirs()
	first := p.comparer
	first.readNone = !p.DryRun
	c, err := first.compareTree(ctx, shipped, r.Dir, r, contents)
	if err != nil {
		return err
	}
	if !c.notRead && mustKeep(c, found) {
		if p.DryRun {
			return nil
		}
		return recordAt(shipped, r.Dir, c, p.startedAt)
	}
	if p.DryRun {
		return nil
	}
	d, err := p.trash.Discard(shipped, r.Dir)
	if err != nil {
		return keepFor(err, found)
	}
	defer d.Close()
	err = p.deleteDiscarded(ctx, d, r, contents, found)
	if found.Deleted || found.inTrash || errors.Is(err, durable.ErrFault) {
		return err
	}
	if _, judged := d.ReadJudgement(); judged && err != nil {
		return err // the next pruning finishes it
	}
	dir, restoreErr := d.Restore(shipped)
	if restoreErr == nil {
		found.Dir = dir
	}
	return errors.Join(err, restoreErr)
}

// deleteDiscarded compares an episode in the trash, judges it and deletes it.
func (p *pruneRun) deleteDiscarded(ctx context.Context, d *outbox.Discarded, r source.Retired, contents digest.Digest, found *PruneResult) error {
	receipt, known, err := source.ReceiptOf(d.Dir)
	if err != nil {
		return keepFor(err, found)
	}
	if !known || receipt != r.Receipt {
		found.Kept = "it was retired again meanwhile"
		return nil
	}
	c, err := p.comparer.compareTree(ctx, p.trash.Dir(), d.Name(), r, contents)
	if err != nil {
		return err
	}
	if mustKeep(c, found) {
		return c.recordAt(d.Dir, p.startedAt)
	}
	if found.Kept, err = p.reasonToKeepNow(ctx, r); err != nil || found.Kept != "" {
		return err
	}
	quiet := cmp.Or(p.MinUnchanged, minUnchanged)
	if young, err := isYoung(d, c.ChangedAt, quiet); young || err != nil {
		found.Kept = fmt.Sprintf("%s changed less than %v ago", trimQuotes(c.ChangedLast), quiet)
		return err
	}
	if err := d.RecordJudgement(c.ChangedAt); err != nil {
		return keepFor(err, found)
	}
	return p.deleteJudged(ctx, d, found, func(s durable.Stat) bool {
		mtime, ctime := s.Times()
		return c.Files[s.Inode()] == archive.Stamp{Size: s.Size(), Mtime: mtime, Ctime: ctime}
	})
}

// maxResponseAge is the maximum age of a response of the receiver on which a deletion may
// rely: comparing the episodes before may have taken hours.
const maxResponseAge = time.Minute

// reasonToKeepNow is [ReasonToKeep] with a new response, if the last one is too old.
func (p *pruneRun) reasonToKeepNow(ctx context.Context, r source.Retired) (string, error) {
	if time.Since(p.queriedAt) < maxResponseAge {
		return "", nil
	}
	entries, err := queryRetired(ctx, p.inventory, []source.Retired{r})
	if err != nil {
		return "", err
	}
	return ReasonToKeep(r, entries[r.Dir]), nil
}

// isYoung reports whether a file changed less than quiet before the episode was moved to the
// trash. That rename set a ctime, by the clock of the file system.
func isYoung(d *outbox.Discarded, changedAt time.Time, quiet time.Duration) (bool, error) {
	st, err := d.Stat()
	if err != nil {
		return false, err
	}
	_, ctime := st.Times()
	now := time.Unix(ctime.Unix())
	if clock := time.Now(); clock.After(now) {
		now = clock
	}
	return now.Sub(changedAt) < quiet, nil
}

// deleteJudged deletes a judged episode. If a file has changed since, that is recorded, and
// the rest is kept.
func (p *pruneRun) deleteJudged(ctx context.Context, d *outbox.Discarded, found *PruneResult, unchanged func(durable.Stat) bool) error {
	err := d.Delete(ctx, unchanged)
	switch {
	case err == nil:
		found.Deleted = true
	case ctx.Err() != nil || errors.Is(err, durable.ErrFault):
		return err
	case errors.Is(err, durable.ErrKept):
		found.Kept = fmt.Sprintf("a file changed while it was deleted: %v; the receiver has what is gone", err)
		found.NeedsOperator = true
		return source.RecordChange(d.Dir, source.Change{At: wholeSecond(p.startedAt), Cause: found.Kept, Partial: true})
	default:
		found.Kept = fmt.Sprintf("part of it could not be deleted and is in %s: %v", d.Location(), err)
		found.NeedsOperator, found.inTrash = true, true
	}
	return nil
}

// mustKeep reports whether an episode must not be deleted, and sets found.Kept then.
func mustKeep(c comparison, found *PruneResult) bool {
	if isObstructed(c, found) {
		return true
	}
	if c.equal {
		return false
	}
	found.Kept, found.NeedsOperator = c.cause, c.needsOperator
	if c.differs {
		found.Kept = "changed since it was shipped: " + c.cause
	}
	return true
}

// isObstructed reports whether an episode cannot be deleted, whatever its files contain, and
// sets found.Kept then.
func isObstructed(c comparison, found *PruneResult) bool {
	switch {
	case c.Files == nil: // it could not be inspected
		found.Kept, found.NeedsOperator = c.cause, c.needsOperator
	case c.Obstacle != "":
		found.Kept, found.NeedsOperator = c.Obstacle, true
	default:
		return false
	}
	return true
}

// keepFor keeps an episode for an error that concerns only it. It returns storage faults.
func keepFor(err error, found *PruneResult) error {
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	found.Kept, found.NeedsOperator = err.Error(), true
	if errors.Is(err, unix.EBUSY) {
		found.Kept += ": unmount what is mounted there"
	}
	if errors.Is(err, unix.EXDEV) {
		found.Kept += ": it and the trash in outbox_dir are on two mounts, or it is a subvolume or in the lower layer of an overlay"
	}
	return nil
}

// finishInterrupted finishes what an interrupted pruning left in the trash. It deletes what
// was judged, and moves the rest back to the shipped directory.
func (p *pruneRun) finishInterrupted(ctx context.Context) error {
	for name, err := range p.trash.Names() {
		if err != nil {
			return err
		}
		if err := p.finishOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *pruneRun) finishOne(ctx context.Context, name string) error {
	stem, _, _ := strings.Cut(name, "~")
	found := PruneResult{Dir: name, Episode: episode.Name(stem), Reason: "interrupted"}
	d, err := p.trash.Open(name)
	if err != nil {
		if err := keepFor(err, &found); err != nil {
			return err
		}
		return p.countResult(found)
	}
	defer d.Close()
	_, judged := d.ReadJudgement()
	if judged {
		if receipt, _, receiptErr := source.ReceiptOf(d.Dir); receiptErr == nil {
			found.ReceivedAt = receipt.ReceivedAt
		}
		err = p.deleteJudged(ctx, d, &found, func(durable.Stat) bool { return true })
	}
	if err == nil && !found.Deleted && !found.inTrash {
		err = p.restoreDiscarded(d, judged, &found)
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		if err := keepFor(err, &found); err != nil {
			return err
		}
	}
	return p.countResult(found)
}

// restoreDiscarded moves a directory in the trash back to the shipped directory. An older program
// removed the marker before it deleted, and recorded no judgement: what it left is
// incomplete.
func (p *pruneRun) restoreDiscarded(d *outbox.Discarded, judged bool, found *PruneResult) error {
	_, shipped := p.src.Dirs()
	if !judged {
		found.Kept = "an interrupted deletion left it whole"
		if _, err := d.Lstat(episode.Marker); errors.Is(err, fs.ErrNotExist) {
			found.Kept, found.NeedsOperator = "an interrupted deletion left it incomplete", true
			change := source.Change{At: wholeSecond(p.startedAt), Cause: found.Kept, Partial: true}
			if err := source.RecordChange(d.Dir, change); err != nil {
				return err
			}
		}
	}
	dir, err := d.Restore(shipped)
	if err == nil {
		found.Dir = dir
		p.restored[dir] = true
	}
	return err
}
