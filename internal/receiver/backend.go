package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cis490/internal/admission"
	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/printable"
	"cis490/internal/s3backend"
	"cis490/internal/sharedhosts"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// backend stores what hosts send: a [diskbackend.Backend] or a [s3backend.Backend].
type backend interface {
	wire.Backend
	// Recover completes what a crash has interrupted. It is called once, before the first request.
	Recover(ctx context.Context, recovered func(bytes int)) error
	// Run does what is done in the background, until ctx ends.
	Run(ctx context.Context) error
	Close() error

	// Alive reports whether an archive can still be made durable, for a watchdog.
	Alive(ctx context.Context) bool
	// CheckStorage returns an error if the storage can no longer be trusted.
	CheckStorage() error
	// CheckSpace returns an error if uploads would be refused for lack of space.
	CheckSpace() error
	// Faults receives the error that ends the daemon.
	Faults() <-chan error
	// HandleFault ends the daemon if err is a storage fault, and returns the error for the sender.
	HandleFault(err error) error

	Uploads() *admission.Limiter
	// CountArchives returns the number of archives of a host, unless nothing has changed since.
	CountArchives(host episode.Name, lastChange time.Time) (n int64, changedAt time.Time, counted bool, err error)
}

// maxUploadWait is how long an upload waits for a slot before it is refused.
const maxUploadWait = 10 * time.Second

// openBackend opens the store.
func (r *Receiver) openBackend(ctx context.Context) error {
	if err := r.cfg.CheckStoreKind(); err != nil {
		return err
	}
	if r.cfg.Store.Kind == StoreOnS3 {
		return r.openBucket(ctx)
	}
	disk, err := diskbackend.Open(r.baseCtx, r.data, r.cfg.BackendConfig(), &r.events, r.log)
	if errors.Is(err, store.ErrUnsuitable) {
		return &ConfigError{"data_dir", err}
	}
	if err != nil {
		return err
	}
	r.backend = disk
	return nil
}

// CheckStoreKind returns a [*ConfigError] if the data directory belongs to a store of the other kind, and a
// [*datadir.MovedError] if its store is elsewhere.
func (c Config) CheckStoreKind() error {
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(string(c.DataDir), name))
		return err == nil
	}
	isCopy := has(batchlog.CopyStateName(datadir.IndexFile))
	if err := datadir.CheckHere(string(c.DataDir)); c.Store.Kind != StoreOnS3 && err != nil {
		return err
	}
	switch {
	case c.Store.Kind == StoreOnS3 && !isCopy && (has("episodes") || has(datadir.IndexFile)):
		return &ConfigError{"data_dir", fmt.Errorf("data_dir %s has a store on this disk: use another data_dir for store.kind = %q, and leave this one as it is; 'receiver store copy' moves a store", c.DataDir, StoreOnS3)}
	case c.Store.Kind != StoreOnS3 && isCopy:
		return &ConfigError{"data_dir", fmt.Errorf("data_dir %s has a copy of the index of a bucket: use another data_dir for store.kind = %q", c.DataDir, StoreOnDisk)}
	}
	return nil
}

// openBucket opens the store in a bucket, once the engine has passed the probe.
func (r *Receiver) openBucket(ctx context.Context) error {
	in, err := bucket.Open(r.cfg.Store.S3)
	if err != nil {
		return &ConfigError{"store.s3", err}
	}
	if err := r.probeBucket(ctx, in); err != nil {
		return err
	}
	b, err := s3backend.Open(ctx, in, s3backend.Options{
		Limits: r.cfg.wireLimits(), HostBytes: int64(r.cfg.Limits.HostBytes), MaxUploadWait: maxUploadWait,
		SpoolDir: string(r.cfg.DataDir), MinFree: int64(r.cfg.MinFree), Data: r.data, Observer: &r.events, Log: r.log, Base: r.baseCtx,
		Scrub: r.cfg.Scrub, Name: receiverName(),
	})
	if err != nil {
		return err
	}
	r.backend, r.bucket = b, in
	r.shared = &sharing{bucket: in, list: sharedhosts.NewList(in)}
	return nil
}

// receiverName names this receiver for people who look into the bucket.
func receiverName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return printable.Clip(printable.Text(name), maxReceiverName)
}

const maxReceiverName = 100

const (
	// probeFile says which engine has passed the probe, and when.
	probeFile = ".bucket-probe.json"
	// probeValid is how long an engine need not be probed again, and probeTimeout bounds a probe.
	probeValid   = 24 * time.Hour
	probeTimeout = 2 * time.Minute
	maxProbeFile = 64 << 10
)

// probeResult is the content of the file.
type probeResult struct {
	Endpoints []string  `json:"endpoints"`
	Servers   []string  `json:"servers"`
	Bucket    string    `json:"bucket"`
	Prefix    string    `json:"prefix"`
	At        time.Time `json:"at"`
}

// probeBucket probes the engine, unless it passed within the last day. An engine that fails must not be
// used, and there is no way around that.
func (r *Receiver) probeBucket(ctx context.Context, in *bucket.S3) error {
	c := r.cfg.Store.S3
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if last, err := r.lastProbe(); err == nil && last.isCurrent(c, time.Now()) {
		_, err := s3backend.ReadStoreID(ctx, in) // so that the engine says what it is
		if err == nil && slices.Contains(last.Servers, in.Server()) {
			return nil
		}
	}
	begun := time.Now()
	report, err := bucket.Probe(ctx, in.Endpoints()...)
	if err != nil {
		return fmt.Errorf("%w; 'receiver probe' shows all checks", err)
	}
	r.log.Info("object store passed the probe", "endpoints", strings.Join(c.Endpoints, " "), "server", strings.Join(report.Servers, " "), "took", time.Since(begun))
	b, err := json.Marshal(probeResult{c.Endpoints, report.Servers, c.Bucket, c.Prefix, report.At})
	if err == nil {
		err = r.data.WriteFile(probeFile, b, 0o640)
	}
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	if err != nil { // it is probed again at the next start
		r.log.Warn("result of the probe not kept", "err", err)
	}
	return nil
}

// isCurrent reports whether the result is of a configuration, and not too old.
func (p probeResult) isCurrent(c bucket.Config, now time.Time) bool {
	age := now.Sub(p.At)
	return age >= 0 && age < probeValid && p.isOf(c)
}

// isOf reports whether the result is of a configuration.
func (p probeResult) isOf(c bucket.Config) bool {
	return slices.Equal(p.Endpoints, c.Endpoints) && p.Bucket == c.Bucket && p.Prefix == c.Prefix
}

// LastProbe returns when a receiver with this configuration last found that its object store passes the
// probe, and what the endpoints called themselves. The error wraps [fs.ErrNotExist] if none did.
func LastProbe(c Config) (at time.Time, servers []string, err error) {
	data, err := durable.Open(string(c.DataDir))
	if err != nil {
		return at, nil, err
	}
	defer data.Close()
	last, err := readProbe(data)
	if err == nil && !last.isOf(c.Store.S3) {
		err = fmt.Errorf("the last probe was of another object store: %w", fs.ErrNotExist)
	}
	return last.At, last.Servers, err
}

func (r *Receiver) lastProbe() (probeResult, error) { return readProbe(r.data) }

func readProbe(data *durable.Dir) (probeResult, error) {
	var last probeResult
	f, err := data.Open(probeFile)
	if err != nil {
		return last, err
	}
	defer f.Close()
	b, err := durable.ReadAtMost(f, probeFile, maxProbeFile)
	if err != nil {
		return last, err
	}
	return last, json.Unmarshal(b, &last)
}
