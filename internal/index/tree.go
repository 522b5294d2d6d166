package index

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

// ErrNoEpisodes says that there is no store where one was named.
var ErrNoEpisodes = errors.New("no episodes dir")

// Options say what [Backfill] and [Verify] work on.
type Options struct {
	EpisodesRoot string       // the folder with a folder for each host
	Index        string       // the path of index.jsonl
	Host         episode.Name // only this host's episodes; empty for all

	DryRun bool // Backfill: write nothing, show the first rows
	Deep   bool // Verify: read and decode every archive
	// Present has Verify look at the stored files only, of which a copy of a store may
	// have some: a row without a file is no finding.
	Present bool

	// Batch is how many stored files are held in memory at a time; the index
	// is read once for each batch. 0 stands for a number that needs some
	// 50 MiB.
	Batch int
	// Bad, unless nil, is called for each file that Backfill gives no row.
	Bad func(error)
	// Expanding, unless nil, is called for each archive that was not decoded to its end,
	// because it decodes to more than [archive.MaxRatio] times its size.
	Expanding func(episode.Key)
	// BadMeta, unless nil, is called for each archive that Backfill gives a row without a
	// commit because its meta.json cannot be read.
	BadMeta func(error)
	// Notify, unless nil, is called for what Backfill finds at the end of the index.
	Notify func(Notice)
	// Progress, unless nil, is told how many bytes of archives were read.
	Progress func(bytes int)
}

const defaultBatch = 200_000

// tree is a store, and what it takes to read all of it.
type tree struct {
	*store.Reader
	opts    Options
	refused map[episode.Name]bool // hosts whose folder cannot be listed: one is reported once
	partly  int64                 // archives that were not decoded to their end
}

func openTree(opts Options) (*tree, error) {
	r, err := store.OpenReader(opts.EpisodesRoot)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%w at %s", ErrNoEpisodes, opts.EpisodesRoot)
	}
	if err != nil {
		return nil, err
	}
	return &tree{Reader: r, opts: opts, refused: make(map[episode.Name]bool)}, nil
}

// batches yields all objects, in batches sorted by key; the last one may be
// empty. What is wrong with a single name goes to odd, and the walk goes on.
func (t *tree) batches(ctx context.Context, odd func(error)) iter.Seq2[batch, error] {
	limit := t.opts.Batch
	if limit <= 0 {
		limit = defaultBatch
	}
	return func(yield func(batch, error) bool) {
		var b batch
		for _, host := range t.hosts(odd) {
			for o, err := range t.Reader.Host(host) {
				if ctx.Err() != nil {
					yield(nil, ctx.Err())
					return
				}
				if errors.Is(err, fs.ErrNotExist) {
					continue // the folder went meanwhile
				}
				if err != nil {
					if o.Key.Host == "" || t.refuse(host) {
						odd(err)
					}
					continue
				}
				b = append(b, entry{Object: o})
				if len(b) == limit {
					if !yield(b.sorted(), nil) {
						return
					}
					b = b[:0]
				}
			}
		}
		yield(b.sorted(), nil)
	}
}

// refuse notes that a host's folder cannot be listed, and reports whether that is new.
func (t *tree) refuse(host episode.Name) bool {
	known := t.refused[host]
	t.refused[host] = true
	return !known
}

func (t *tree) hosts(odd func(error)) []episode.Name {
	if t.opts.Host != "" {
		return []episode.Name{t.opts.Host}
	}
	var hosts []episode.Name
	for host, err := range t.Hosts() {
		if err != nil {
			odd(err)
			continue
		}
		hosts = append(hosts, host)
	}
	slices.Sort(hosts)
	return hosts
}

// batch is some of the store's objects, sorted by key, with what the index
// says of each.
type batch []entry

type entry struct {
	store.Object
	rows   int           // of this key
	line   int64         // of its last row
	digest digest.Digest // of its last row; zero if the row is bad
	size   int64         // of its last row
}

func (b batch) sorted() batch {
	slices.SortFunc(b, func(x, y entry) int { return compareKeys(x.Key, y.Key) })
	return b
}

// find returns the entry of key, or nil.
func (b batch) find(key episode.Key) *entry {
	i, found := slices.BinarySearchFunc(b, key, func(e entry, key episode.Key) int { return compareKeys(e.Key, key) })
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

// errBytes says that a stored file was read and is not what it should be.
var errBytes = errors.New("is damaged")

// examine reads a stored archive from the disk, decodes it and returns what its bytes
// are. An error wraps errBytes if they are no archive.
//
// One that decodes to more than [archive.MaxRatio] times its size is decoded that far
// and no further: a host could make the decoding take hours per GiB. What a scrub has
// found out about it counts.
func (t *tree) examine(ctx context.Context, o store.Object) (store.Content, error) {
	before, err := t.DecodedBefore(o.Key, o.Digest)
	if err != nil {
		return store.Content{}, err
	}
	how := store.Reading{Progress: t.opts.Progress}
	if before.Digest.IsZero() {
		how.Check = func(r io.Reader) (digest.Digest, error) {
			return digest.Digest{}, archive.VerifyUpTo(r, archive.ExpansionLimit(o.Size))
		}
	}
	got, err := t.Read(ctx, o.Key, how)
	switch {
	case err != nil:
		return got, err
	case errors.Is(got.Unfit, archive.ErrExpands):
		t.partly++
		if t.opts.Expanding != nil {
			t.opts.Expanding(o.Key)
		}
	case got.Unfit != nil:
		return got, fmt.Errorf("%w: %w", errBytes, got.Unfit)
	case before.Undecodable:
		return got, fmt.Errorf("%w: a scrub could not decode it", errBytes)
	}
	return got, nil
}

// commit returns the version of the experiment's code, or "". An archive that does not
// say it has none: no reason to leave the row out.
func (t *tree) commit(key episode.Key) string {
	f, err := t.Open(key)
	if err != nil {
		return ""
	}
	defer f.Close()
	meta, err := archive.ReadMeta(f, key.Name)
	if _, bad := errors.AsType[*episode.MetaError](err); bad && t.opts.BadMeta != nil {
		t.opts.BadMeta(fmt.Errorf("%s: %w", t.Path(key), err))
	}
	return meta.Commit
}
