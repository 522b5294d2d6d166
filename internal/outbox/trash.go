package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

const (
	trashName = ".trash"      // the directory, in the outbox, of what is being deleted
	trashLock = ".trash.lock" // held by the process that deletes
)

// Trash is the directory of retired episodes that are being deleted, locked for this process. It
// must be closed.
//
// An episode is moved there first, so that no process finds it under its name while it is compared
// with what was shipped. Then it is either restored or judged. Once the judgement is durable, what
// has not changed since may be deleted, also by a later process. An episode without a judgement is
// complete.
//
//	<episode>~<nonce>                    not judged
//	<episode>~<nonce>~judged-<s>.<ns>    judged, with the latest ctime of its files
//
// The judgement is in the name, because a full disk has no space for an attribute.
type Trash struct {
	dir  *durable.Dir
	lock *durable.Lock
}

// OpenTrash locks the trash, or returns a [*durable.LockedError] if another process deletes. Holder
// is the text that such a process reads.
func (o *Outbox) OpenTrash(holder string) (*Trash, error) {
	lock, err := o.dir.Lock(trashLock, holder)
	if err != nil {
		return nil, err
	}
	dir, err := o.dir.MakeDir(trashName)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return &Trash{dir: dir, lock: lock}, nil
}

// ProbeTrash calls probe with a directory and the one to which its entries are moved when they are
// deleted: the trash or, if there is none yet, the outbox.
func (o *Outbox) ProbeTrash(from *durable.Dir, probe func(from, to *durable.Dir) error) error {
	trash, err := o.dir.OpenDir(trashName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return probe(from, o.dir)
	}
	if err != nil {
		return err
	}
	defer trash.Close()
	return probe(from, trash)
}

// Close closes and unlocks the trash.
func (t *Trash) Close() error { return errors.Join(t.dir.Close(), t.lock.Unlock()) }

// Dir returns the directory. It belongs to t.
func (t *Trash) Dir() *durable.Dir { return t.dir }

// Names yields the names of what is in the trash, in no order.
func (t *Trash) Names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range t.dir.Names() {
			if err != nil {
				yield("", err)
				return
			}
			if !durable.IsProbe(e.Name()) && !yield(e.Name(), nil) {
				return
			}
		}
	}
}

// Discard moves the directory name of a directory into the trash, durably.
func (t *Trash) Discard(from *durable.Dir, name string) (*Discarded, error) {
	to := name + "~" + rand.Text()
	if err := from.Rename(name, t.dir, to); err != nil {
		return nil, err
	}
	d, err := t.Open(to)
	if err != nil { // its owner has removed the permissions just now
		return nil, errors.Join(err, t.dir.Rename(to, from, name))
	}
	return d, nil
}

// Open opens what is in the trash under a name.
func (t *Trash) Open(name string) (*Discarded, error) {
	dir, err := t.dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &Discarded{Dir: dir, trash: t, name: name}, nil
}

// maxRestored is the maximum number of names that are tried.
const maxRestored = 10_000

// formerName returns the name that a directory had before it was discarded.
func formerName(name string) string {
	name, _, _ = strings.Cut(name, judgedMark)
	if i := strings.LastIndexByte(name, '~'); i > 0 {
		return name[:i]
	}
	return name
}

// Discarded is an episode in the trash. It must be closed.
type Discarded struct {
	*durable.Dir
	trash *Trash
	name  string
}

// Name returns the name in the trash.
func (d *Discarded) Name() string { return d.name }

// Location returns the path of d.
func (d *Discarded) Location() string { return d.trash.dir.Path(d.name) }

// Restore moves d back to a directory, durably. It returns the name there: the former one, or
// that with ~N if it is taken.
func (d *Discarded) Restore(to *durable.Dir) (string, error) {
	return d.trash.dir.RenameFree(d.name, to, formerName(d.name), maxRestored)
}

// Judgement says that an episode was compared with what was shipped. Files that have not changed
// since ChangedAt, the latest ctime of all, may be deleted.
type Judgement struct {
	ChangedAt time.Time
}

// judgedMark precedes the judgement in a name. No episode has a ~ in its name.
const judgedMark = "~judged-"

// ReadJudgement returns the judgement of an episode, or false if there is none.
func (d *Discarded) ReadJudgement() (Judgement, bool) {
	_, text, judged := strings.Cut(d.name, judgedMark)
	if !judged {
		return Judgement{}, false
	}
	var sec, nsec int64
	if _, err := fmt.Sscanf(text, "%d.%09d", &sec, &nsec); err != nil {
		return Judgement{}, false
	}
	return Judgement{time.Unix(sec, nsec)}, true
}

// RecordJudgement records the judgement durably.
func (d *Discarded) RecordJudgement(j Judgement) error {
	name := fmt.Sprintf("%s%s%d.%09d", d.name, judgedMark, j.ChangedAt.Unix(), j.ChangedAt.Nanosecond())
	if err := d.trash.dir.Rename(d.name, d.trash.dir, name); err != nil {
		return err
	}
	d.name = name
	return nil
}

// errNotJudged is a bug of the caller.
var errNotJudged = errors.New("it was not judged")

// Delete deletes a judged episode. It deletes the marker first, durably: what a crash leaves is no
// finished episode, wherever it is moved. It keeps a file whose ctime is later than the
// judgement's, or for which unchanged returns false; the error wraps [durable.ErrKept] then.
// A crash between the unlinks of two names of one file leaves a later ctime, so the next call
// keeps that file.
func (d *Discarded) Delete(ctx context.Context, unchanged func(durable.Stat) bool) error {
	j, judged := d.ReadJudgement()
	if !judged {
		return fmt.Errorf("delete %s: %w", d.name, errNotJudged)
	}
	may := func(_ string, s durable.Stat) bool {
		_, ctime := s.Times()
		return !time.Unix(ctime.Unix()).After(j.ChangedAt) && unchanged(s)
	}
	marker, err := d.Lstat(episode.Marker)
	if err == nil && !may(episode.Marker, marker) {
		return fmt.Errorf("%s: %w", episode.Marker, durable.ErrKept)
	}
	if err == nil {
		err = d.Remove(episode.Marker)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.trash.dir.RemoveTree(ctx, d.name, may)
}

// CountDiscarded returns how many deletions have begun and not ended, by a running process or by
// one that was interrupted.
func (o *Outbox) CountDiscarded() (int, error) {
	dir, err := o.dir.OpenDir(trashName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	n := 0
	for e, err := range dir.Names() {
		if err != nil {
			return n, err
		}
		if !durable.IsProbe(e.Name()) {
			n++
		}
	}
	return n, nil
}
