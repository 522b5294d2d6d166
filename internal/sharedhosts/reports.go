package sharedhosts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/wire"
)

const (
	reportsPrefix = "hosts/reports/"
	reportSuffix  = ".json"

	// readInterval is how often the reports to other receivers are read, and readTimeout bounds that.
	readInterval = time.Minute
	readTimeout  = 2 * time.Minute
	// maxUnread is how many records may be unreadable before the rest is not read either.
	maxUnread = 10
	// reportTimeout bounds the requests for one report, whose sender waits.
	reportTimeout = 5 * time.Second
)

// Reports shares the last report of each host: the receiver that gets one reads the record of the host,
// adds the report to it and replaces it. All receivers copy changed records, so that commands and pages
// read files as with one receiver. Two reports of a host at the same moment may lose one of them, which
// is of no consequence.
type Reports struct {
	bucket bucket.Bucket
	own    *fleet.Reports
	watch  *datadir.DisabledWatch // knows the hosts that were removed
	log    *slog.Logger

	etags map[episode.Name]string // of the records that were read; used by Run only

	mu       sync.Mutex // guards unshared
	unshared bool       // the last report was not stored, which was logged
}

// NewReports returns what keeps own as the reports of all receivers.
func NewReports(in bucket.Bucket, own *fleet.Reports, watch *datadir.DisabledWatch, log *slog.Logger) *Reports {
	return &Reports{bucket: in, own: own, watch: watch, log: log, etags: make(map[episode.Name]string)}
}

func reportName(host episode.Name) string { return reportsPrefix + string(host) + reportSuffix }

// Fetch reads the record of a host before a report is added to it. If that fails, the report is added to
// what is known here. It refuses a report that comes too soon with a [*wire.Problem], before it sends a
// request: a host must not cause many.
func (r *Reports) Fetch(ctx context.Context, host episode.Name, report wire.Report, now time.Time) error {
	if err := r.own.CheckWait(host, report, now); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if err := r.readRecord(ctx, host, now); err != nil && !isMissing(err) {
		r.log.Debug("shared report not read", "host", host, "err", err)
	}
	return nil
}

func (r *Reports) readRecord(ctx context.Context, host episode.Name, now time.Time) error {
	body, _, err := r.bucket.Open(ctx, reportName(host))
	if err != nil {
		return err
	}
	defer body.Close()
	record, err := io.ReadAll(io.LimitReader(body, fleet.MaxEncoded+1)) // a larger one is invalid
	if err != nil {
		return fmt.Errorf("read %s: %w", reportName(host), err)
	}
	return r.own.Keep(host, record, now)
}

// Publish stores the record of a host after a report was added to it.
func (r *Reports) Publish(ctx context.Context, host episode.Name) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	record, err := r.own.Encode(host)
	if err == nil {
		err = r.bucket.Put(ctx, reportName(host), bytes.NewReader(record), int64(len(record)), sha256.Sum256(record))
	}
	if errors.Is(err, context.Canceled) {
		return // the host did not wait
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch failed := r.unshared; {
	case err != nil && !failed:
		r.log.Warn("reports to this receiver not shared", "err", err)
	case err == nil && failed:
		r.log.Info("reports to this receiver shared again")
	}
	r.unshared = err != nil
}

// Run copies the records of other receivers until ctx ends.
func (r *Reports) Run(ctx context.Context) {
	tick := time.NewTicker(readInterval)
	defer tick.Stop()
	failed := false
	for {
		err := r.readAll(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failed:
			r.log.Warn("reports to other receivers not read", "err", err)
		case err == nil && failed:
			r.log.Info("reports to other receivers read again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readAll copies the records that have changed since the last call: one request per 1000 hosts, and one
// per record.
func (r *Reports) readAll(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	etags := make(map[episode.Name]string)
	unread := 0
	for info, err := range r.bucket.List(ctx, reportsPrefix, "") {
		if err != nil {
			return err
		}
		text, isRecord := strings.CutSuffix(strings.TrimPrefix(info.Name, reportsPrefix), reportSuffix)
		host, err := episode.ParseName(text)
		if !isRecord || err != nil || r.watch.Current().IsRemoved(host) {
			continue
		}
		if len(etags) == fleet.MaxHosts {
			break
		}
		etags[host] = info.ETag
		if before, known := r.etags[host]; known && before == info.ETag && info.ETag != "" {
			continue
		}
		err = r.readRecord(ctx, host, now)
		if err == nil || isMissing(err) || errors.Is(err, fleet.ErrInvalid) {
			continue // it stays as it is until its next report
		}
		r.log.Debug("shared report not read", "host", host, "err", err)
		delete(etags, host) // so that it is read again
		unread++
		if unread > maxUnread {
			return err
		}
	}
	r.etags = etags
	return r.own.NoteShared(now)
}

// ForgetReports removes the records of hosts, if there are any. Receivers keep the copies that they have.
func ForgetReports(ctx context.Context, in bucket.Bucket, hosts ...episode.Name) error {
	var errs []error
	for _, host := range hosts {
		errs = append(errs, in.Remove(ctx, reportName(host)))
	}
	return errors.Join(errs...)
}
