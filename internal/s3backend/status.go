package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/episode"
	"cis490/internal/scrub"
	"cis490/internal/shards"
)

// Status describes the store in a bucket at one moment. What is nil is unknown.
type Status struct {
	Endpoints []string `json:"endpoints"`
	Bucket    string   `json:"bucket"`
	Prefix    string   `json:"prefix"`
	// Error is why the rest is unknown, wholly or in part.
	Error string `json:"error,omitempty"`
	// MovedTo is where the store is if it has left this bucket, and Moved says so with what to do.
	MovedTo string `json:"moved_to,omitempty"`
	Moved   string `json:"-"`

	ProbedAt *time.Time `json:"probed_at"` // when the object store last passed the probe here
	Servers  []string   `json:"servers"`   // what the endpoints called themselves then

	// Archives and ArchiveBytes count the archives in this receiver's copy of the index.
	Archives     *int64     `json:"archives"`
	ArchiveBytes *int64     `json:"archive_bytes"`
	Batches      *int64     `json:"batches"`        // in the copy
	Behind       *int64     `json:"batches_behind"` // which the copy lacks
	LastBatchAt  *time.Time `json:"last_batch_at"`

	Quarantined *int `json:"quarantined"` // archives that are quarantined and were not sent again
	Repaired    *int `json:"repaired"`    // those that were sent again
	Unfinished  *int `json:"unfinished_uploads"`

	Scrub *scrub.Progress `json:"-"` // for the status of the receiver
	Store string          `json:"-"` // its id
}

// Limits on the requests of a status.
const (
	maxCounted    = 1000 // archives that are quarantined, and unfinished uploads
	statusTimeout = 5 * time.Second
)

// Inspect completes s by what is in the bucket. copied is the state of the copy of the index here. It
// changes nothing, and needs about ten requests, and one for each quarantined archive. An error of the
// object store is part of the status. What is unknown for one keeps nothing else unknown, if the object
// store answers at all.
func (s *Status) Inspect(ctx context.Context, in bucket.Bucket, copied batchlog.CopyStatus) {
	b := &Backend{bucket: in}
	short, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var err error
	if s.Store, err = ReadStoreID(short, in); err != nil {
		s.Error = err.Error()
		return
	}
	for _, inspect := range []func() error{
		func() error {
			p, err := shards.Status(short, in)
			if err == nil {
				s.Scrub = &p
			}
			return err
		},
		func() error { return s.inspectIndex(short, in, copied) },
		func() error { return s.inspectUploads(short, b) },
		func() error { // its requests are as many as the archives that were ever quarantined
			long, cancel := context.WithTimeout(ctx, statusTimeout)
			defer cancel()
			return s.inspectQuarantine(long, b)
		},
	} {
		if err := inspect(); err != nil && s.Error == "" {
			s.Error = err.Error()
		}
	}
}

// inspectIndex finds the last batch from the last one of the copy on, and whether the store has left the
// bucket.
func (s *Status) inspectIndex(ctx context.Context, in bucket.Bucket, copied batchlog.CopyStatus) error {
	last, err := batchlog.Head(ctx, in, copied.Batches)
	if moved, ok := errors.AsType[*batchlog.MovedError](err); ok {
		s.MovedTo, s.Moved, err = moved.To, moved.Error(), nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the copy of the index here has %d batches, and the bucket has lost the last of them: "+
			"see the log of the object store, and run 'receiver index verify'", copied.Batches)
	}
	if err != nil {
		return err
	}
	behind := last - copied.Batches
	s.Behind = &behind
	if last == 0 {
		return nil
	}
	info, err := in.Stat(ctx, batchlog.Name(last))
	if err == nil {
		s.LastBatchAt = &info.ModifiedAt
	}
	return err
}

// inspectQuarantine counts what is quarantined.
func (s *Status) inspectQuarantine(ctx context.Context, b *Backend) error {
	aside, repaired := 0, 0
	for info, err := range b.bucket.List(ctx, quarantinePrefix, "") {
		if err != nil {
			return err
		}
		if aside == maxCounted {
			break
		}
		key, generation, valid := parseQuarantineName(info.Name)
		if !valid {
			continue
		}
		_, err := b.bucket.Stat(ctx, commitName(key, generation+1))
		switch {
		case err == nil:
			repaired++
		case errors.Is(err, fs.ErrNotExist):
			aside++
		default:
			return err
		}
	}
	s.Quarantined, s.Repaired = &aside, &repaired
	return nil
}

// parseQuarantineName returns the archive that the name of a [quarantineRecord] is about.
func parseQuarantineName(name string) (key episode.Key, generation int, valid bool) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(name, quarantinePrefix), ".json"), "/")
	if len(parts) != 3 {
		return key, 0, false
	}
	var err error
	if key.Host, err = episode.ParseName(parts[0]); err != nil {
		return key, 0, false
	}
	if key.Name, err = episode.ParseName(parts[1]); err != nil {
		return key, 0, false
	}
	generation, err = strconv.Atoi(parts[2])
	c := commit{generation: generation}
	c.row.Key = key
	return key, generation, err == nil && generation > 0 && name == nameBeside(quarantinePrefix, c)
}

// inspectUploads counts the uploads that have begun and are not stored.
func (s *Status) inspectUploads(ctx context.Context, b *Backend) error {
	n := 0
	for _, err := range b.uploadsUnder(ctx, uploadsPrefix) {
		if err != nil {
			return err
		}
		n++
		if n == maxCounted {
			break
		}
	}
	s.Unfinished = &n
	return nil
}
