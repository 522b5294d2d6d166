package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"strings"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/episode"
	"cis490/internal/fsck"
	"cis490/internal/index"
)

const (
	// defaultPage is how many keys are compared with the index at a time. The index is read once per
	// page.
	defaultPage = 100_000
	// underwayFor is how long an archive without a commit, or a commit without a row, may be an upload
	// in flight.
	underwayFor = 10 * time.Minute
)

// keyObjects is what the bucket has under a key.
type keyObjects struct {
	key      episode.Key
	archives []bucket.Info
	commits  []bucket.Info
	rows     []index.Row
	line     int64 // of the last row
}

// newest returns when the last object of the key was written.
func (s *keyObjects) newest() (at time.Time) {
	for _, info := range append(s.archives[:len(s.archives):len(s.archives)], s.commits...) {
		if info.ModifiedAt.After(at) {
			at = info.ModifiedAt
		}
	}
	return at
}

// has reports whether there is an archive with the digest and the size of a row.
func (s *keyObjects) has(row index.Row) bool {
	for _, info := range s.archives {
		if info.Size == row.Size && strings.HasPrefix(info.Name, archiveDir(s.key)+row.SHA256.String()+".") {
			return true
		}
	}
	return false
}

// check is a comparison of archives, commits and rows.
type check struct {
	bucket bucket.Bucket
	opts   fsck.Options
	found  func(fsck.Finding)
	report fsck.VerifyReport
}

// Verify compares the archives of a store with its commits, and these with the rows of the index, and
// passes each difference to found. With opts.Deep it reads and decodes each archive. It changes nothing,
// and receivers may run.
func Verify(ctx context.Context, in bucket.Bucket, opts fsck.Options, found func(fsck.Finding)) (fsck.VerifyReport, error) {
	c := &check{bucket: in, opts: opts, found: found}
	err := c.eachPage(ctx, func(page []*keyObjects) error {
		for _, s := range page {
			if err := c.checkKey(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	return c.report, err
}

// Backfill appends the rows of commits that have none: their senders never came back for an answer. It
// may run beside receivers: no commit gets a second row.
func Backfill(ctx context.Context, in bucket.Bucket, opts fsck.Options, log *slog.Logger) (fsck.BackfillReport, error) {
	to, err := batchlog.Open(ctx, in, log)
	if err != nil {
		return fsck.BackfillReport{}, err
	}
	defer to.Close()
	var r fsck.BackfillReport
	b := &Backend{bucket: in, index: to}
	c := &check{bucket: in, opts: opts, found: func(fsck.Finding) {}}
	err = c.eachPage(ctx, func(page []*keyObjects) error {
		for _, s := range page {
			r.Scanned += int64(len(s.commits))
			r.Indexed += int64(min(len(s.rows), len(s.commits)))
			if err := b.backfillKey(ctx, s, opts, &r); err != nil {
				return err
			}
		}
		return nil
	})
	return r, err
}

// backfillKey appends the rows of the commits of a key, up to one that cannot be read: rows have the order of
// their commits.
func (b *Backend) backfillKey(ctx context.Context, s *keyObjects, opts fsck.Options, r *fsck.BackfillReport) error {
	for generation := len(s.rows) + 1; generation <= len(s.commits); generation++ {
		err := b.backfillRow(ctx, s.key, generation, opts, r)
		if _, bad := errors.AsType[*commitError](err); bad {
			r.Bad++
			if opts.Bad != nil {
				opts.Bad(err)
			}
			return b.checkAnswers(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkAnswers returns an error unless the object store answers. If it does, what it did not return is a finding.
func (b *Backend) checkAnswers(ctx context.Context) error {
	_, err := readIdentity(ctx, b.bucket)
	return err
}

// maxDryRows is how many rows a dry run returns.
const maxDryRows = 20

func (b *Backend) backfillRow(ctx context.Context, key episode.Key, generation int, opts fsck.Options, r *fsck.BackfillReport) error {
	r.Missing++
	c, err := b.readCommit(ctx, key, generation)
	if err != nil {
		return err
	}
	if opts.DryRun {
		if len(r.Rows) < maxDryRows {
			r.Rows = append(r.Rows, c.row)
		} else {
			r.More++
		}
		return nil
	}
	if _, err := b.ensureRow(ctx, c); err != nil {
		return err
	}
	r.Written++
	return nil
}

// eachPage lists the bucket in pages, with the rows of their keys.
func (c *check) eachPage(ctx context.Context, visit func([]*keyObjects) error) error {
	size := c.opts.Batch
	if size == 0 {
		size = defaultPage
	}
	var page []*keyObjects
	from := "" // the last name of the page before
	for s, err := range c.keys(ctx) {
		if err != nil {
			return err
		}
		page = append(page, s)
		if len(page) < size {
			continue
		}
		end := keyPath(s.key)
		if err := c.finishPage(ctx, page, from, end, visit); err != nil {
			return err
		}
		page, from = nil, end
	}
	return c.finishPage(ctx, page, from, "\xff", visit)
}

// keyPath is how keys are ordered in a list of the bucket.
func keyPath(key episode.Key) string { return string(key.Host) + "/" + string(key.Name) + "/" }

func (c *check) finishPage(ctx context.Context, page []*keyObjects, from, end string, visit func([]*keyObjects) error) error {
	if err := c.addRows(ctx, page, from, end); err != nil {
		return err
	}
	return visit(page)
}

// keys yields what the bucket has under each key, in the order of their paths.
func (c *check) keys(ctx context.Context) iter.Seq2[*keyObjects, error] {
	under := ""
	if c.opts.Host != "" {
		under = string(c.opts.Host) + "/"
	}
	return func(yield func(*keyObjects, error) bool) {
		archives, stopArchives := iter.Pull2(c.bucket.List(ctx, episodesPrefix+under, ""))
		defer stopArchives()
		commits, stopCommits := iter.Pull2(c.bucket.List(ctx, commitsPrefix+under, ""))
		defer stopCommits()
		a, aErr, aOK := archives()
		m, mErr, mOK := commits()
		for aOK || mOK {
			if err := errors.Join(aErr, mErr); err != nil {
				yield(nil, err)
				return
			}
			next := "\xff"
			if aOK {
				next = min(next, keyOf(a.Name, episodesPrefix))
			}
			if mOK {
				next = min(next, keyOf(m.Name, commitsPrefix))
			}
			s, valid := parseKeyPath(next)
			for aOK && aErr == nil && keyOf(a.Name, episodesPrefix) == next {
				s.archives = append(s.archives, a)
				a, aErr, aOK = archives()
			}
			for mOK && mErr == nil && keyOf(m.Name, commitsPrefix) == next {
				s.commits = append(s.commits, m)
				m, mErr, mOK = commits()
			}
			if !valid {
				c.add(fsck.Finding{Kind: fsck.Stray, Detail: fmt.Sprintf("%q is not the name of an episode", next)})
				continue
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

// keyOf returns the path of the key of an object.
func keyOf(name, prefix string) string {
	rest := strings.TrimPrefix(name, prefix)
	return rest[:strings.LastIndexByte(rest, '/')+1]
}

func parseKeyPath(path string) (*keyObjects, bool) {
	host, name, _ := strings.Cut(strings.TrimSuffix(path, "/"), "/")
	s := new(keyObjects)
	var hostErr, nameErr error
	s.key.Host, hostErr = episode.ParseName(host)
	s.key.Name, nameErr = episode.ParseName(name)
	return s, hostErr == nil && nameErr == nil
}

// addRows reads the index, and adds the rows of a page. It reports rows between from and end that have
// no commit.
func (c *check) addRows(ctx context.Context, page []*keyObjects, from, end string) error {
	byKey := make(map[episode.Key]*keyObjects, len(page))
	for _, s := range page {
		byKey[s.key] = s
	}
	line := int64(0)
	_, err := batchlog.Export(ctx, c.bucket, 1, func(text []byte) error {
		for row, err := range index.ReadRows(strings.NewReader(string(text))) {
			line++
			if err != nil {
				return err
			}
			s, path := byKey[row.Key], keyPath(row.Key)
			switch {
			case s != nil:
				s.rows, s.line = append(s.rows, row), line
			case c.opts.Host != "" && row.Key.Host != c.opts.Host || path <= from || path > end:
			default:
				if err := c.checkRow(ctx, row, line); err != nil {
					return err
				}
			}
		}
		return nil
	})
	c.report.Rows = line
	return err
}

// checkRow reports a row that has no commit: the list of the page is older than the row.
func (c *check) checkRow(ctx context.Context, row index.Row, line int64) error {
	_, err := c.bucket.Stat(ctx, commitName(row.Key, 1))
	if errors.Is(err, fs.ErrNotExist) {
		c.add(fsck.Finding{Kind: fsck.RowWithoutFile, Host: row.Key.Host, Episode: row.Key.Name, Line: line, Detail: "the bucket has no commit of it"})
		return nil
	}
	return err
}

func (c *check) add(f fsck.Finding) {
	c.report.Findings++
	c.found(f)
}

// checkKey compares what the bucket has under a key.
func (c *check) checkKey(ctx context.Context, s *keyObjects) error {
	c.report.Files += int64(len(s.commits))
	about := func(kind fsck.FindingKind, format string, args ...any) {
		c.add(fsck.Finding{Kind: kind, Host: s.key.Host, Episode: s.key.Name, Line: s.line, Detail: fmt.Sprintf(format, args...)})
	}
	inFlight := time.Since(s.newest()) < underwayFor
	switch {
	case inFlight && len(s.rows) < max(len(s.commits), 1):
		c.report.Underway++
		return nil
	case len(s.commits) == 0:
	case len(s.rows) < len(s.commits):
		about(fsck.FileWithoutRow, "the index has %d rows for %d commits; 'receiver index backfill' adds them", len(s.rows), len(s.commits))
	case len(s.rows) > len(s.commits):
		about(fsck.DuplicateRow, "the index has %d rows for %d commits", len(s.rows), len(s.commits))
	}
	strays, err := c.findStrays(ctx, s)
	if unreadable, bad := errors.AsType[*commitError](err); bad {
		about(fsck.Unreadable, "%v", unreadable)
		return (&Backend{bucket: c.bucket}).checkAnswers(ctx)
	}
	if err != nil {
		return err
	}
	for _, name := range strays {
		about(fsck.Stray, "%s has no commit: nothing refers to it", name)
	}
	// An archive that another one has replaced on a disk, from which the store was copied, is not here.
	if n := len(s.rows); n > 0 {
		if row := s.rows[n-1]; !s.has(row) {
			about(fsck.DigestDiffers, "the bucket has no archive of %d bytes with the sha256 of its row, %s", row.Size, row.SHA256)
		}
	}
	if !c.opts.Deep || len(s.commits) == 0 {
		return nil
	}
	err = c.readArchive(ctx, s)
	if errors.Is(err, errCorrupt) || errors.Is(err, errUndecodable) {
		about(fsck.Damaged, "%v", err)
		return nil
	}
	if _, bad := errors.AsType[*commitError](err); bad {
		about(fsck.Unreadable, "%v", err)
		return (&Backend{bucket: c.bucket}).checkAnswers(ctx)
	}
	return err
}

// findStrays returns the archives of a key that no commit names. A receiver that completes an archive and dies
// before its commit leaves one. Each commit names another archive, so there are none unless there are more.
func (c *check) findStrays(ctx context.Context, s *keyObjects) ([]string, error) {
	if len(s.archives) <= len(s.commits) {
		return nil, nil
	}
	named := make(map[string]bool)
	for generation := range len(s.commits) {
		m, err := (&Backend{bucket: c.bucket}).readCommit(ctx, s.key, generation+1)
		if err != nil {
			return nil, err
		}
		named[m.object] = true
	}
	var strays []string
	for _, info := range s.archives {
		if !named[info.Name] && time.Since(info.ModifiedAt) >= underwayFor {
			strays = append(strays, info.Name)
		}
	}
	return strays, nil
}

// readArchive reads and decodes the archive of the newest commit.
func (c *check) readArchive(ctx context.Context, s *keyObjects) error {
	m, err := (&Backend{bucket: c.bucket}).readCommit(ctx, s.key, len(s.commits))
	if err != nil {
		return err
	}
	c.report.Read++
	if c.opts.Progress != nil {
		defer c.opts.Progress(int(min(m.row.Size, 1<<30)))
	}
	_, err = decodeArchive(ctx, c.bucket, m)
	return err
}
