package main

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"time"

	"cis490/internal/activity"
	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/hosts"
	"cis490/internal/notify"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
	"cis490/internal/s3backend"
	"cis490/internal/snapshot"
	"cis490/internal/statuspage"
)

// facts are the state of a receiver and its hosts, read from its directories at one moment.
type facts struct {
	at        time.Time
	status    diskbackend.Status
	bucket    *s3backend.Status // nil with a store on a disk
	statusErr error
	hosts     []hosts.Host
	hostsErr  error
	hooks     []notify.QueueState
}

func readFacts(cfg receiver.Config, in *bucket.S3, records *revocation.RecordCache, now time.Time) facts {
	f := facts{at: now, hooks: notify.Inspect(cfg.Hooks, string(cfg.DataDir))}
	f.status, f.bucket, f.statusErr = inspectStore(cfg, in, now)
	f.hosts, _, f.hostsErr = listHostsAgain(cfg, records, now)
	return f
}

// factSource shares readings of a receiver's directories among scrapes and viewers. Arrivals are read only
// for the pages, because they take memory that a receiver without viewers does not need.
type factSource struct {
	cfg      receiver.Config
	bucket   *bucket.S3 // nil with a store on a disk
	facts    snapshot.Shared[facts]
	records  revocation.RecordCache
	arrivals snapshot.Shared[arrivals]
	rows     activity.Arrivals // used only by readArrivals, which does not run concurrently
}

type arrivals struct {
	activity.Summary
	err error
}

func (s *factSource) latest() facts {
	return s.facts.Latest(func() facts { return readFacts(s.cfg, s.bucket, &s.records, time.Now()) })
}

// readArrivals reads the rows that were appended to the index since the last call.
func (s *factSource) readArrivals() arrivals {
	now := time.Now()
	err := s.readRows(now)
	return arrivals{s.rows.Summary(now), err}
}

func (s *factSource) readRows(now time.Time) error {
	data, err := durable.Open(string(s.cfg.DataDir))
	if err != nil {
		return err
	}
	defer data.Close()
	f, err := data.Open(datadir.IndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return s.rows.Read(f, info.Size(), now)
}

// newPageState returns what the pages show of the directories. The caller adds what only the daemon knows.
func newPageState(read facts, arrived arrivals) statuspage.State {
	return statuspage.State{
		Now: time.Now(), ReadAt: read.at, Version: cli.Version(), Receiver: read.status, Bucket: read.bucket, ReceiverErr: read.statusErr,
		Hosts: read.hosts, HostsErr: read.hostsErr, Arrivals: arrived.Summary, ArrivalsErr: arrived.err,
	}
}

// newPages returns the pages of a receiver.
func newPages(r *receiver.Receiver, source *factSource) http.Handler {
	return statuspage.New(func() statuspage.State {
		state := newPageState(source.latest(), source.arrivals.Latest(source.readArrivals))
		state.Refusal, state.CertEnds, state.Conflicts = r.Ready(context.Background()), r.CertNotAfter(), r.Conflicts()
		return state
	})
}
