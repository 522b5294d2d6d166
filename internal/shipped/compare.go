package shipped

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

// comparison is the result of comparing a retired episode with what was shipped. If it is
// neither equal nor differs, nothing is known.
type comparison struct {
	archive.Inspection
	equal   bool
	differs bool
	notRead bool // the files may have changed, and were not read
	// cause says why the episode is not known to be equal, in printable ASCII.
	cause         string
	needsOperator bool // this stays so until an operator acts
	// newState is what a later comparison may rely on; nil if nothing new is known.
	newState *source.State
}

// comparer compares retired episodes with what was shipped.
type comparer struct {
	src *source.Source
	// onRead is called with each number of bytes that are read of files.
	onRead func(n int) error
	// readAll has all files read. Otherwise the files of a tree whose fingerprint is
	// unchanged are not read.
	readAll bool
	// readNone has no files read.
	readNone bool
}

// compareTree compares the directory dir of folder, which holds the episode r, with its recorded
// state and with the contents that the receiver reports; zero if it does not. Errors of this
// one tree are part of the comparison. Only a storage fault and the end of ctx are returned.
func (c *comparer) compareTree(ctx context.Context, folder *durable.Dir, dir string, r source.Retired, contents digest.Digest) (comparison, error) {
	tree, err := c.src.TreeIn(folder, dir, r.Name)
	if err != nil {
		return comparisonOfError(ctx, err)
	}
	defer tree.Close()
	at := time.Now()
	found := comparison{}
	if found.Inspection, err = tree.Inspect(ctx); err != nil {
		return comparisonOfError(ctx, err)
	}
	below := found.Below.Short()
	switch {
	case r.Change != nil && (r.Change.Partial || r.Change.Fingerprint == below && !c.readAll):
		return found.withDifference(r.Change.Cause), nil
	case found.Skips.Short() != r.State.Skips:
		return found.withDifference(skipCause(r, found.FirstSkip)), nil
	case r.State.Fingerprint == below && !c.readAll:
		found.equal = true
		if r.Change != nil { // it was changed, and changed back
			found.newState = &r.State
		}
		return found, nil
	case contents.IsZero() && r.State.Contents.IsZero():
		found.cause = "the receiver has not reported the contents of its archive: it does once it has read it back, or when it is upgraded"
		return found, nil
	case c.readNone:
		found.notRead, found.cause = true, "its files may have changed, and were not read"
		return found, nil
	}
	if contents.IsZero() {
		contents = r.State.Contents
	}
	got, marks, err := tree.HashContents(ctx, c.onRead)
	if err == nil && marks.Fingerprint != found.Fingerprint {
		err = archive.ErrChanged
	}
	if err != nil {
		return comparisonOfError(ctx, err)
	}
	if got != contents {
		return found.withDifference(fmt.Sprintf("it is not what the receiver has; %s changed last, at %s",
			trimQuotes(found.ChangedLast), found.ChangedAt.UTC().Format(time.RFC3339))), nil
	}
	state := source.StateOf(marks, at)
	state.Contents = contents
	found.equal, found.newState = true, &state
	return found, nil
}

// skipCause says why a change of the skipped files is a difference.
func skipCause(r source.Retired, first string) string {
	switch {
	case !r.HasState:
		return fmt.Sprintf("an older shipper did not note that %s was left out of its archive: 'shipper resend %s' notes it", first, r.Dir)
	case first == "":
		return "a socket, FIFO, device or hard link that was left out of its archive is gone"
	}
	return fmt.Sprintf("%s is not in its archive, and was not left out of it then", first)
}

func (c comparison) withDifference(cause string) comparison {
	c.differs, c.needsOperator, c.cause = true, true, cause
	return c
}

// comparisonOfError returns the comparison for an error of reading a tree.
func comparisonOfError(ctx context.Context, err error) (comparison, error) {
	if ctx.Err() != nil || errors.Is(err, durable.ErrFault) {
		return comparison{}, err
	}
	if errors.Is(err, archive.ErrChanged) || errors.Is(err, durable.ErrLeased) || errors.Is(err, fs.ErrNotExist) {
		return comparison{cause: "it is being changed"}, nil
	}
	cause := "cannot be compared: " + printable.Text(err.Error())
	return comparison{cause: cause, needsOperator: true}, nil
}

// trimQuotes removes the quotes of text that is printable ASCII.
func trimQuotes(s string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`), `\"`, `"`)
}

// recordAt records the result at the open directory of the episode.
func (c comparison) recordAt(dir *durable.Dir, now time.Time) error {
	switch {
	case c.newState != nil:
		return source.RecordState(dir, *c.newState)
	case c.differs:
		return source.RecordChange(dir, source.Change{
			At: wholeSecond(now), Cause: c.cause,
			Fingerprint: source.StateOf(c.Marks, now).Fingerprint,
		})
	}
	return nil
}

// recordAt is [comparison.recordAt] at a directory of folder. If it cannot be recorded, the
// next comparison finds the same.
func recordAt(folder *durable.Dir, name string, c comparison, now time.Time) error {
	if c.newState == nil && !c.differs {
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
	return c.recordAt(dir, now)
}

func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
