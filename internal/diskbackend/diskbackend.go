// Package diskbackend stores archives in a data directory. A [Backend] connects package wire, the
// protocol, with packages store and index, which write to the disk. It knows no connection and no
// certificate: it asks package access whether the sender of a request may still send.
//
// Start with [Backend.Put], which reads from top to bottom: limits, lookup of what is stored,
// space, stage, commit, append the row. [Backend.AppendPiece] does the same for a piece of an
// announced upload. Between pieces an uploadSession has the state of the upload.
//
// Invariant: before a success response these are durable, in this order: the bytes, the name, and
// the row in the index. Only then is the staging name removed. [Backend.Recover] finds in staging
// what a crash interrupted, and completes it before the first request.
package diskbackend

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"cis490/internal/admission"
	"cis490/internal/archive"
	"cis490/internal/datadir"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/pathwatch"
	"cis490/internal/readback"
	"cis490/internal/resumable"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// Config is what a [Backend] needs of the receiver's configuration. That has the defaults, and
// checks the values.
type Config struct {
	// DataDir is for what runs beside a receiver. [Open] is given the open directory.
	DataDir string
	// MinFree is the number of bytes that stay free, and MinFreeInodes the number of inodes. Of
	// the inodes of a small file system an eighth stays free.
	MinFree, MinFreeInodes int64

	ArchiveBytes   int64         // maximum size of one archive
	HostBytes      int64         // maximum size of all archives of one host; 0: unlimited
	Uploads        int           // maximum at once, of all hosts
	UploadsPerHost int           // maximum at once, of one host
	UnfinishedAge  time.Duration // how long an interrupted upload is kept
	Scrub          scrub.Config
}

// Paths returns where the archives and the index are, for tools that run beside a receiver.
func (c Config) Paths() (episodes, index string) {
	return filepath.Join(c.DataDir, "episodes"), filepath.Join(c.DataDir, datadir.IndexFile)
}

// Observer is told what happens to archives. Its methods must neither block nor call the backend:
// requests wait for them, some with a lock.
type Observer interface {
	// NoteStored is called when an archive has been stored, and its row. took is the time since the
	// last byte of the upload.
	NoteStored(row index.Row, took time.Duration)
	// NoteRecovered is called when [Backend.Recover] has completed an upload.
	NoteRecovered(row index.Row)
	// NoteConflict is called each time that an upload is refused because its name is taken.
	NoteConflict(key episode.Key, offered, stored digest.Digest)
	// NoteDamage is called when an archive was moved to quarantine, or the scrub or the recovery
	// has found it corrupt or missing. A lookup that finds a corrupt copy does not call it: the host
	// looks again and again until it has sent another.
	NoteDamage(key episode.Key, finding string, quarantined bool)
}

// Backend stores archives in a data directory. It is the [wire.Backend] of its server.
type Backend struct {
	cfg      Config
	observer Observer
	log      *slog.Logger

	// baseCtx is the parent of work that continues after a sender has disconnected.
	baseCtx context.Context

	data     *durable.Dir     // the caller's
	paths    *pathwatch.Watch // of data and the directories of the store
	store    *store.Store
	index    *index.Log
	identity *datadir.StoreWatch

	// What an upload must pass.
	uploadLimiter admission.Limiter
	disk          *admission.Disk

	// Uploads.
	sessions    *resumable.Sessions[stagedBytes]
	keyLocks    admission.KeyLocks[episode.Key] // held from a commit to its row, and while a stored copy is read
	chunks      sync.Pool                       // of *[chunkSize]byte
	metaReaders chan *archive.MetaReader        // readers of meta.json

	// Readings of stored archives for requests.
	verifier        *scrub.Verifier
	readbackLimiter admission.Limiter                // of inventories that read an archive
	readbackLocks   admission.KeyLocks[episode.Name] // of hosts that send a stored archive again
	readbackCache   readback.Cache
	rowSearches     *rowSearches

	faulted atomic.Bool
	faults  chan error // the first storage fault, or the first directory that was moved
}

// maxUploadWait is how long an upload waits for a slot before it is refused.
const maxUploadWait = 10 * time.Second

// Open opens the store in data. The directory and its lock stay the caller's, who must call
// [Backend.Recover] before the first request. base is the parent of work that continues after a
// sender has disconnected. If it ends, its cause is the answer. The error wraps
// [store.ErrUnsuitable] if archives cannot be stored in the directory.
func Open(base context.Context, data *durable.Dir, c Config, observer Observer, log *slog.Logger) (*Backend, error) {
	b := &Backend{
		cfg: c, observer: observer, log: log, baseCtx: base, data: data,
		uploadLimiter:   admission.Limiter{Total: c.Uploads, PerHost: c.UploadsPerHost, MaxWait: maxUploadWait},
		readbackLimiter: admission.Limiter{Total: maxReadbacks, PerHost: 1},
		sessions:        resumable.New[stagedBytes](c.UploadsPerHost),
		metaReaders:     newMetaReaders(),
		faults:          make(chan error, 1),
	}
	if err := b.open(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.openDisk()
	b.logSeparateHosts()
	b.verifier = b.newVerifier()
	return b, nil
}

func (b *Backend) open() error {
	var err error
	if b.store, err = store.Open(b.data); err != nil {
		return err
	}
	if b.index, err = index.Open(b.data, datadir.IndexFile, b.logIndexNotice); err != nil {
		return err
	}
	b.rowSearches = newRowSearches(b.baseCtx, b.index.FindRows)
	if err := b.watchPaths(); err != nil {
		return err
	}
	return b.openIdentity(time.Now())
}

// logIndexNotice logs a repair of the index.
func (b *Backend) logIndexNotice(n index.TailNotice) {
	log := b.log.With("index", n.Path, "bytes", n.Bytes)
	switch n.Kind {
	case index.Completed:
		log.Warn("index row got its newline")
	case index.TailCut:
		log.Warn("torn tail of index cut", "saved", n.Saved)
	case index.Shortened:
		log.Error("index was truncated", "hint", n.Hint())
	}
}

// Close closes the store and the index. The context of [Open] must have ended, and no other method
// may be in use.
func (b *Backend) Close() error {
	var errs []error
	if b.paths != nil {
		errs = append(errs, b.paths.Close())
	}
	if b.rowSearches != nil {
		b.rowSearches.close()
	}
	if b.index != nil {
		errs = append(errs, b.index.Close())
	}
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	return errors.Join(errs...)
}

// Run verifies the store and drops expired uploads, until ctx ends or one of these fails.
func (b *Backend) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.RunScrub(ctx) })
	g.Go(func() error { return b.ExpireUploads(ctx) })
	return g.Wait()
}

// CountArchives is [store.Reader.CountArchives].
func (b *Backend) CountArchives(host episode.Name, lastChange time.Time) (n int64, changedAt time.Time, counted bool, err error) {
	return b.store.CountArchives(host, lastChange)
}

// Uploads returns the limiter of uploads, whose counts are metrics.
func (b *Backend) Uploads() *admission.Limiter { return &b.uploadLimiter }

// Archives returns the reader of the stored archives.
func (b *Backend) Archives() *store.Reader { return b.store.Reader }

// Alive reports whether an archive can still be made durable, for a watchdog.
func (b *Backend) Alive(ctx context.Context) bool { return b.index.IsAlive(ctx) }

// Layout describes the names that a backend and its commands create in the data directory. A new name
// must be added, or a file that root creates under it stays root's. Archives are included only on
// request: examining them takes time that grows with the store.
func Layout(archives bool) durable.Layout {
	return slices.Concat(index.Layout(datadir.IndexFile), store.Layout(archives), scrub.Layout(), datadir.Layout(), durable.Layout{
		{Match: durable.IsProbe, Perm: 0o600},
	})
}
