package shipper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/printable"
	"cis490/internal/source"
)

// A comparison says whether a retired episode is what was shipped.
type comparison struct {
	archive.Inspection
	equal   bool
	differs bool // known not to be equal
	unread  bool // the files may have changed, and were not read
	// cause says why it is not known to be equal, in printable ASCII, and needsPerson
	// that this stays so until somebody acts.
	cause       string
	needsPerson bool
	// fresh is what a later comparison may rely on; nil if nothing new is known.
	fresh *source.State
}

// comparer compares retired episodes with what was shipped.
type comparer struct {
	src *source.Source
	// pace is called with each number of bytes that are read of files.
	pace func(n int) error
	// deep reads all files. Without it, those of a tree whose fingerprint is unchanged
	// are not read.
	deep bool
	// light reads no files at all.
	light bool
}

// compare compares the directory dir of a folder, which holds the episode r, with its
// noted state and with the contents that the receiver reports; zero if it does not.
// Whatever is wrong with this one tree is no error: only a storage fault and the end of
// ctx are.
func (c *comparer) compare(ctx context.Context, folder *durable.Dir, dir string, r source.Retired, contents digest.Digest) (comparison, error) {
	tree, err := c.src.TreeIn(folder, dir, r.Name)
	if err != nil {
		return incomparable(ctx, err)
	}
	defer tree.Close()
	at := time.Now()
	found := comparison{}
	if found.Inspection, err = tree.Inspect(ctx); err != nil {
		return incomparable(ctx, err)
	}
	below := source.Shorten(found.Below)
	switch {
	case r.Change != nil && (r.Change.Partial || r.Change.Fingerprint == below && !c.deep):
		return found.different(r.Change.Cause), nil
	case source.Shorten(found.Skips) != r.State.Skips:
		return found.different(skipCause(r, found.FirstSkip)), nil
	case r.State.Fingerprint == below && !c.deep:
		found.equal = true
		if r.Change != nil { // what was changed is as it was
			found.fresh = &r.State
		}
		return found, nil
	case contents.IsZero() && r.State.Contents.IsZero():
		found.cause = "the receiver has not reported the contents of its archive: it does once it has read it back, or when it is upgraded"
		return found, nil
	case c.light:
		found.unread, found.cause = true, "its files may have changed, and were not read"
		return found, nil
	}
	if contents.IsZero() {
		contents = r.State.Contents
	}
	got, marks, err := tree.Contents(ctx, c.pace)
	if err == nil && marks.Fingerprint != found.Fingerprint {
		err = archive.ErrChanged
	}
	if err != nil {
		return incomparable(ctx, err)
	}
	if got != contents {
		return found.different(fmt.Sprintf("it is not what the receiver has; %s changed last, at %s",
			unquote(found.ChangedLast), found.ChangedAt.UTC().Format(time.RFC3339))), nil
	}
	state := source.StateOf(marks, at)
	state.Contents = contents
	found.equal, found.fresh = true, &state
	return found, nil
}

// skipCause says why what an archive leaves out is a difference.
func skipCause(r source.Retired, first string) string {
	switch {
	case !r.Noted:
		return fmt.Sprintf("an older shipper did not note that %s was left out of its archive: 'shipper resend %s' notes it", first, r.Dir)
	case first == "":
		return "a socket, FIFO, device or hard link that was left out of its archive is gone"
	}
	return fmt.Sprintf("%s is not in its archive, and was not left out of it then", first)
}

func (c comparison) different(cause string) comparison {
	c.differs, c.needsPerson, c.cause = true, true, cause
	return c
}

// incomparable returns what an error of reading a tree means for it.
func incomparable(ctx context.Context, err error) (comparison, error) {
	if ctx.Err() != nil || errors.Is(err, durable.ErrFault) {
		return comparison{}, err
	}
	if errors.Is(err, archive.ErrChanged) || errors.Is(err, durable.ErrLeased) || errors.Is(err, fs.ErrNotExist) {
		return comparison{cause: "it is being changed"}, nil
	}
	cause := "cannot be compared: " + printable.Text(err.Error())
	return comparison{cause: cause, needsPerson: true}, nil
}

// unquote removes the quotes of text that is printable ASCII.
func unquote(s string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`), `\"`, `"`)
}

// note notes at the open directory of the episode what a comparison has found.
func (c comparison) note(dir *durable.Dir, now time.Time) error {
	switch {
	case c.fresh != nil:
		return source.NoteState(dir, *c.fresh)
	case c.differs:
		return source.NoteChange(dir, source.Change{
			At: now.UTC().Truncate(time.Second), Cause: c.cause,
			Fingerprint: source.StateOf(c.Marks, now).Fingerprint,
		})
	}
	return nil
}

// noteAt is [comparison.note] at a directory of a folder. Where it cannot be noted it is
// found again.
func noteAt(folder *durable.Dir, name string, c comparison, now time.Time) error {
	if c.fresh == nil && !c.differs {
		return nil
	}
	dir, err := folder.OpenDir(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if _, unreadable := errors.AsType[*durable.ReadError](durable.AsReadError(err)); unreadable {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return c.note(dir, now)
}
