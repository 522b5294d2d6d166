package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/store"
)

const defaultBatch = 200_000

// walk reads all of a store.
type walk struct {
	*store.Reader
	opts             Options
	unlistable       map[episode.Name]bool // hosts whose directory cannot be listed: each is reported once
	partiallyDecoded int64                 // archives that were not decoded to their end
	lastBatch        bool                  // the current batch is the last one
	archives, bytes  int64                 // see [walk.countTotal]
}

func openWalk(opts Options) (*walk, error) {
	r, err := store.OpenReader(opts.EpisodesRoot)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%w at %s", ErrNoEpisodes, opts.EpisodesRoot)
	}
	if err != nil {
		return nil, err
	}
	return &walk{Reader: r, opts: opts, unlistable: make(map[episode.Name]bool)}, nil
}

// allBatches yields all objects, in batches sorted by key. The last one may be empty. An error
// of a single name or host is passed to report, and the walk continues.
func (w *walk) allBatches(ctx context.Context, report func(error)) iter.Seq2[batch, error] {
	limit := w.opts.Batch
	if limit <= 0 {
		limit = defaultBatch
	}
	return func(yield func(batch, error) bool) {
		var b batch
		for _, host := range w.listHosts(report) {
			for o, err := range w.Reader.HostObjects(host) {
				if ctx.Err() != nil {
					yield(nil, ctx.Err())
					return
				}
				if errors.Is(err, fs.ErrNotExist) {
					continue // the directory was moved meanwhile
				}
				if err != nil {
					if o.Key.Host == "" || w.markUnlistable(host) {
						report(err)
					}
					continue
				}
				b = append(b, walkEntry{Object: o})
				if len(b) == limit {
					if !yield(b.sortByKey(), nil) {
						return
					}
					b = b[:0]
				}
			}
		}
		w.lastBatch = true
		yield(b.sortByKey(), nil)
	}
}

// countTotal adds an archive that is checked or gets a row to the total.
func (w *walk) countTotal(o store.Object) {
	w.archives++
	w.bytes += o.Size
}

// reportTotal reports the total, if the current batch is the last one.
func (w *walk) reportTotal(read bool) {
	if !w.lastBatch || w.opts.Total == nil {
		return
	}
	if !read {
		w.bytes = 0
	}
	w.opts.Total(w.archives, w.bytes)
}

func (w *walk) reportChecked() {
	if w.opts.Checked != nil {
		w.opts.Checked()
	}
}

// markUnlistable records that a host's directory cannot be listed. It reports whether that
// is new.
func (w *walk) markUnlistable(host episode.Name) bool {
	known := w.unlistable[host]
	w.unlistable[host] = true
	return !known
}

func (w *walk) listHosts(report func(error)) []episode.Name {
	if w.opts.Host != "" {
		return []episode.Name{w.opts.Host}
	}
	var hosts []episode.Name
	for host, err := range w.AllHosts() {
		if err != nil {
			report(err)
			continue
		}
		hosts = append(hosts, host)
	}
	slices.Sort(hosts)
	return hosts
}

// batch has some of the store's objects, sorted by key, with their rows.
type batch []walkEntry

// walkEntry is a stored object and its row in the index.
type walkEntry struct {
	store.Object
	rows   int           // of this key
	line   int64         // of its last row
	digest digest.Digest // of its last row; zero if the row is bad
	size   int64         // of its last row
}

func (b batch) sortByKey() batch {
	slices.SortFunc(b, func(x, y walkEntry) int { return compareKeys(x.Key, y.Key) })
	return b
}

// findEntry returns the entry of key, or nil.
func (b batch) findEntry(key episode.Key) *walkEntry {
	i, found := slices.BinarySearchFunc(b, key, func(e walkEntry, key episode.Key) int { return compareKeys(e.Key, key) })
	if !found {
		return nil
	}
	return &b[i]
}

func compareKeys(x, y episode.Key) int {
	if c := strings.Compare(string(x.Host), string(y.Host)); c != 0 {
		return c
	}
	return strings.Compare(string(x.Name), string(y.Name))
}

// readArchive reads a stored archive from the disk, decodes it and returns the digest of
// its bytes. The error wraps errCorrupt if they cannot be decoded.
//
// An archive that decodes to more than [archive.MaxRatio] times its size is decoded no
// further: a host could make the decoding take hours per GiB. The result of an earlier scrub
// counts instead.
func (w *walk) readArchive(ctx context.Context, o store.Object) (store.Content, error) {
	before, err := w.DecodedBefore(o.Key, o.Digest)
	if err != nil {
		return store.Content{}, err
	}
	how := store.Reading{Progress: w.opts.Progress}
	if before.Digest.IsZero() {
		how.Check = func(r io.Reader) (digest.Digest, error) {
			return digest.Digest{}, archive.VerifyUpTo(r, archive.ExpansionLimit(o.Size))
		}
	}
	got, err := w.Read(ctx, o.Key, how)
	switch {
	case err != nil:
		return got, err
	case errors.Is(got.CheckErr, archive.ErrExpands):
		w.partiallyDecoded++
		if w.opts.Expanding != nil {
			w.opts.Expanding(o.Key)
		}
	case got.CheckErr != nil:
		return got, fmt.Errorf("%w: %w", errCorrupt, got.CheckErr)
	case before.Undecodable:
		return got, fmt.Errorf("%w: a scrub could not decode it", errCorrupt)
	}
	return got, nil
}

// readMetaCommit returns the Git commit in an archive's meta.json, or "". A row without one is as
// good.
func (w *walk) readMetaCommit(key episode.Key) string {
	f, err := w.Open(key)
	if err != nil {
		return ""
	}
	defer f.Close()
	meta, err := archive.ReadMeta(f, key.Name)
	if _, bad := errors.AsType[*episode.MetaError](err); bad && w.opts.BadMeta != nil {
		w.opts.BadMeta(fmt.Errorf("%s: %w", w.Path(key), err))
	}
	return meta.Commit
}
