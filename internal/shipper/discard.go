package shipper

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

// minUnchanged is how long no file of an episode must have changed before it is deleted:
// the ctime of a later write must differ from those that were compared.
const minUnchanged = 3 * time.Second

// delete deletes a retired episode, or says in found why it is kept. It is compared twice:
// under its name, so that one that must be kept is not moved, and in the trash, where
// nobody finds it, directly before it is deleted.
func (p *pruning) delete(ctx context.Context, r source.Retired, contents digest.Digest, found *Pruned) error {
	_, shipped := p.src.Dirs()
	first := p.comparer
	first.light = !p.DryRun
	c, err := first.compare(ctx, shipped, r.Dir, r, contents)
	if err != nil {
		return err
	}
	if !c.unread && p.keep(c, found) {
		if p.DryRun {
			return nil
		}
		return noteAt(shipped, r.Dir, c, p.now)
	}
	if p.DryRun {
		return nil
	}
	d, err := p.trash.Discard(shipped, r.Dir)
	if err != nil {
		return keptBy(err, found)
	}
	defer d.Close()
	err = p.deleteDiscarded(ctx, d, r, contents, found)
	if found.Deleted || found.left || errors.Is(err, durable.ErrFault) {
		return err
	}
	if _, judged := d.Judgement(); judged && err != nil {
		return err // the next pruning goes on
	}
	dir, rerr := d.Restore(shipped)
	if rerr == nil {
		found.Dir = dir
	}
	return errors.Join(err, rerr)
}

// deleteDiscarded compares an episode in the trash, judges it and deletes it.
func (p *pruning) deleteDiscarded(ctx context.Context, d *outbox.Discarded, r source.Retired, contents digest.Digest, found *Pruned) error {
	receipt, known, err := source.ReceiptOf(d.Dir)
	if err != nil {
		return keptBy(err, found)
	}
	if !known || receipt != r.Receipt {
		found.Kept = "it was retired again meanwhile"
		return nil
	}
	c, err := p.comparer.compare(ctx, p.trash.Dir(), d.Name(), r, contents)
	if err != nil {
		return err
	}
	if p.keep(c, found) {
		return c.note(d.Dir, p.now)
	}
	if found.Kept, err = p.keepsNow(ctx, r); err != nil || found.Kept != "" {
		return err
	}
	quiet := cmp.Or(p.MinUnchanged, minUnchanged)
	if young, err := isYoung(d, c.ChangedAt, quiet); young || err != nil {
		found.Kept = fmt.Sprintf("%s changed less than %v ago", unquote(c.ChangedLast), quiet)
		return err
	}
	if err := d.Judge(outbox.Judgement{ChangedAt: c.ChangedAt}); err != nil {
		return keptBy(err, found)
	}
	return p.finish(ctx, d, found, func(s durable.Stat) bool {
		mtime, ctime := s.Times()
		return c.Files[s.Inode()] == archive.Stamp{Size: s.Size(), Mtime: mtime, Ctime: ctime}
	})
}

// maxAnswerAge is how old an answer of the receiver may be when an episode is deleted for
// it: comparing the episodes before it may have taken hours.
const maxAnswerAge = time.Minute

// keepsNow is [keeps] for an answer of now, if the last one is too old.
func (p *pruning) keepsNow(ctx context.Context, r source.Retired) (string, error) {
	if time.Since(p.asked) < maxAnswerAge {
		return "", nil
	}
	held, err := holdingsOf(ctx, p.up, []source.Retired{r})
	if err != nil {
		return "", err
	}
	return keeps(r, held[r.Dir]), nil
}

// isYoung reports whether a file has changed since less than quiet before the episode was
// moved to the trash, by the clock of the file system: the rename has set a ctime.
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

// finish deletes a judged episode. What has changed since is noted, and kept.
func (p *pruning) finish(ctx context.Context, d *outbox.Discarded, found *Pruned, unchanged func(durable.Stat) bool) error {
	err := d.Delete(ctx, unchanged)
	switch {
	case err == nil:
		found.Deleted = true
	case ctx.Err() != nil || errors.Is(err, durable.ErrFault):
		return err
	case errors.Is(err, durable.ErrKept):
		found.Kept = fmt.Sprintf("a file changed while it was deleted: %v; the receiver has what is gone", err)
		found.NeedsPerson = true
		return source.NoteChange(d.Dir, source.Change{At: p.now.UTC().Truncate(time.Second), Cause: found.Kept, Partial: true})
	default:
		found.Kept = fmt.Sprintf("part of it could not be deleted and is in %s: %v", d.Location(), err)
		found.NeedsPerson, found.left = true, true
	}
	return nil
}

// keep says in found why an episode may not be deleted, and reports whether that is so.
func (p *pruning) keep(c comparison, found *Pruned) bool {
	if p.isObstructed(c, found) {
		return true
	}
	if c.equal {
		return false
	}
	found.Kept, found.NeedsPerson = c.cause, c.needsPerson
	if c.differs {
		found.Kept = "changed since it was shipped: " + c.cause
	}
	return true
}

// isObstructed reports whether an episode cannot be deleted now whatever is in it.
func (p *pruning) isObstructed(c comparison, found *Pruned) bool {
	switch {
	case c.Files == nil: // nothing is known of it but why
		found.Kept, found.NeedsPerson = c.cause, c.needsPerson
	case c.Obstacle != "":
		found.Kept, found.NeedsPerson = c.Obstacle, true
	default:
		return false
	}
	return true
}

// keptBy keeps an episode for an error of its own. Others of the disk are returned.
func keptBy(err error, found *Pruned) error {
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	found.Kept, found.NeedsPerson = err.Error(), true
	if errors.Is(err, unix.EBUSY) {
		found.Kept += ": unmount what is mounted there"
	}
	if errors.Is(err, unix.EXDEV) {
		found.Kept += ": it and the trash in outbox_dir are on two mounts, or it is a subvolume or in the lower layer of an overlay"
	}
	return nil
}

// resume ends what an interrupted pruning left in the trash. What was judged is deleted;
// anything else goes back to the shipped folder.
func (p *pruning) resume(ctx context.Context) error {
	for name, err := range p.trash.Names() {
		if err != nil {
			return err
		}
		if err := p.resumeOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *pruning) resumeOne(ctx context.Context, name string) error {
	stem, _, _ := strings.Cut(name, "~")
	found := Pruned{Dir: name, Episode: episode.Name(stem), Reason: "interrupted"}
	d, err := p.trash.Open(name)
	if err != nil {
		if err := keptBy(err, &found); err != nil {
			return err
		}
		return p.count(found)
	}
	defer d.Close()
	_, judged := d.Judgement()
	if judged {
		if receipt, _, rerr := source.ReceiptOf(d.Dir); rerr == nil {
			found.ReceivedAt = receipt.ReceivedAt
		}
		err = p.finish(ctx, d, &found, func(durable.Stat) bool { return true })
	}
	if err == nil && !found.Deleted && !found.left {
		err = p.giveBack(d, judged, &found)
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		if err := keptBy(err, &found); err != nil {
			return err
		}
	}
	return p.count(found)
}

// giveBack moves what is in the trash back to the shipped folder. An older program
// removed the marker before it deleted, and noted no judgement: what it left is
// incomplete.
func (p *pruning) giveBack(d *outbox.Discarded, judged bool, found *Pruned) error {
	_, shipped := p.src.Dirs()
	if !judged {
		found.Kept = "an interrupted deletion left it whole"
		if _, err := d.Lstat(episode.Marker); errors.Is(err, fs.ErrNotExist) {
			found.Kept, found.NeedsPerson = "an interrupted deletion left it incomplete", true
			change := source.Change{At: p.now.UTC().Truncate(time.Second), Cause: found.Kept, Partial: true}
			if err := source.NoteChange(d.Dir, change); err != nil {
				return err
			}
		}
	}
	dir, err := d.Restore(shipped)
	if err == nil {
		found.Dir = dir
		p.givenBack[dir] = true
	}
	return err
}
