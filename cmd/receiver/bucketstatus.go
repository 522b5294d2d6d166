package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/printable"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
)

// inspectStore returns the status of a receiver. With a store on S3, what it reports about archives is that of
// the bucket, which is described by the second result. in may be nil.
func inspectStore(cfg receiver.Config, in *bucket.S3, now time.Time) (diskbackend.Status, *s3backend.Status, error) {
	st, err := diskbackend.InspectStatus(cfg.BackendConfig(), now)
	if err != nil || cfg.Store.Kind != receiver.StoreOnS3 {
		return st, nil, err
	}
	c := cfg.Store.S3
	b := &s3backend.Status{Endpoints: c.Endpoints, Bucket: c.Bucket, Prefix: c.Prefix}
	copied, err := inspectCopy(cfg, b)
	if err == nil && in == nil {
		in, err = bucket.Open(c)
	}
	if err != nil {
		b.Error = err.Error()
	} else {
		b.Inspect(context.Background(), in, copied)
	}
	describeBucketIn(&st, *b, copied, now)
	return st, b, nil
}

// inspectCopy completes b by what is in data_dir.
func inspectCopy(cfg receiver.Config, b *s3backend.Status) (batchlog.CopyStatus, error) {
	if at, servers, err := receiver.LastProbe(cfg); err == nil {
		b.ProbedAt, b.Servers = &at, servers
	}
	data, err := durable.Open(string(cfg.DataDir))
	if err != nil {
		return batchlog.CopyStatus{}, err
	}
	defer data.Close()
	copied, err := batchlog.InspectCopy(data, datadir.IndexFile)
	if errors.Is(err, fs.ErrNotExist) { // no receiver has run here yet
		return copied, nil
	}
	if err == nil {
		b.Archives, b.ArchiveBytes, b.Batches = &copied.Archives, copied.Bytes, &copied.Batches
	}
	return copied, err
}

// describeBucketIn replaces what st reports about archives on the disk.
func describeBucketIn(st *diskbackend.Status, b s3backend.Status, copied batchlog.CopyStatus, now time.Time) {
	st.Scrub, st.OldestRead, st.Quarantined, st.Disk, st.Lifetime, st.Store = scrub.Progress{}, nil, 0, "", "", nil
	if b.Error != "" {
		st.Problems = append(st.Problems, "the object store: "+b.Error)
	}
	if b.Moved != "" {
		st.Problems = append(st.Problems, b.Moved)
	}
	if b.Quarantined != nil {
		st.Quarantined = *b.Quarantined
	}
	if b.Store != "" {
		st.Store = &datadir.Identity{ID: b.Store, IndexBytes: copied.IndexBytes, Empty: copied.Batches == 0}
	}
	if b.Scrub == nil {
		return
	}
	st.Scrub = *b.Scrub
	if !st.Scrub.WholeSince.IsZero() {
		age := int64(now.Sub(st.Scrub.WholeSince) / time.Second)
		st.OldestRead = &age
	}
}

// unknown is what cannot be said while the object store does not answer.
const unknown = "unknown"

// printBucketRows prints how 'receiver status' describes a bucket.
func printBucketRows(w io.Writer, b s3backend.Status, store string, now time.Time) {
	answers := "answers"
	if b.Error != "" {
		answers = "see problem"
	}
	name := b.Bucket
	if b.Prefix != "" {
		name += ", below " + b.Prefix
	}
	fmt.Fprintf(w, "bucket\t%s at %s: %s\n", printable.Text(name), printable.Text(strings.Join(b.Endpoints, " ")), answers)
	probe := unknown
	if b.ProbedAt != nil {
		probe = fmt.Sprintf("passed %s by %s", cli.FormatAgo(*b.ProbedAt, now), cmp.Or(printable.Text(strings.Join(b.Servers, " ")), "an unnamed server"))
	}
	fmt.Fprintf(w, "probe\t%s\n", probe)
	fmt.Fprintf(w, "archives\t%s\n", describeArchives(b))
	last := unknown
	if b.LastBatchAt != nil {
		last = cli.FormatAgo(*b.LastBatchAt, now)
	} else if b.Behind != nil {
		last = "there is none"
	}
	fmt.Fprintf(w, "rows\tlast written %s%s\n", last, describeBehind(b.Behind))
	fmt.Fprintf(w, "unfinished\t%s\n", countOr(b.Unfinished, "upload"))
	aside := countOr(b.Quarantined, "archive")
	if b.Repaired != nil && *b.Repaired > 0 {
		aside += fmt.Sprintf("; %d %s sent again", *b.Repaired, english.PluralWord(*b.Repaired, "was", "were"))
	}
	fmt.Fprintf(w, "quarantine\t%s\n", aside)
	fmt.Fprintf(w, "store\t%s\n", cmp.Or(printable.Text(store), unknown))
}

func describeArchives(b s3backend.Status) string {
	if b.Archives == nil {
		return unknown
	}
	text := fmt.Sprintf("%d", *b.Archives)
	if b.ArchiveBytes != nil {
		text += ", " + humanize.IBytes(uint64(max(*b.ArchiveBytes, 0)))
	}
	return text + ", by the copy of the index here"
}

func describeBehind(behind *int64) string {
	switch {
	case behind == nil:
		return ""
	case *behind == 0:
		return ", the copy here has them"
	}
	return fmt.Sprintf(", the copy here lacks %s", cli.FormatCount(*behind, "batch"))
}

func countOr(n *int, what string) string {
	if n == nil {
		return unknown
	}
	return cli.FormatCount(int64(*n), what)
}
