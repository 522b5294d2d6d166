package receiver

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/hostrecord"
	"cis490/internal/retry"
	"cis490/internal/sharedhosts"
	"cis490/internal/wire"
)

// sharing has what several receivers share about hosts. A nil one is that of a receiver with a store on
// a disk, which shares nothing.
type sharing struct {
	bucket   bucket.Bucket
	list     *sharedhosts.List
	follower *sharedhosts.Follower
	reports  *sharedhosts.Reports
}

// hostList returns the list of disabled hosts. holder describes this process to others that wait for
// its lock.
func (r *Receiver) hostList(holder string) datadir.HostList {
	l := datadir.HostList{Dir: string(r.cfg.DataDir), Holder: holder}
	if r.shared != nil {
		l.Shared = r.shared.list
	}
	return l
}

// watchDisabled reads the list of disabled hosts in the data directory.
func (r *Receiver) watchDisabled() (*datadir.DisabledWatch, error) {
	if r.shared != nil {
		return datadir.WatchCopy(r.data, r.log), nil
	}
	return datadir.WatchDisabled(r.data, r.log)
}

// follow makes the newest list of all receivers current. reports are those of this receiver.
func (s *sharing) follow(ctx context.Context, watch *datadir.DisabledWatch, own datadir.HostList, reports *fleet.Reports, log *slog.Logger) error {
	if s == nil {
		return nil
	}
	s.reports = sharedhosts.NewReports(s.bucket, reports, watch, log)
	var err error
	s.follower, err = sharedhosts.Follow(ctx, s.list, watch, own, log)
	return err
}

// shareReplaced tells the other receivers, which have no records, which certificates had ended before the
// list was shared.
func (r *Receiver) shareReplaced(ctx context.Context, current *datadir.DisabledSnapshot, holder string) error {
	if r.shared == nil || r.join == nil || current.Err != nil {
		return nil
	}
	records, err := hostrecord.List(string(r.cfg.IdentityDir))
	if err != nil {
		r.log.Warn("ended certificates not shared", "err", err) // those of the other records are
	}
	ended := make(map[episode.Name]datadir.Replaced)
	for host, record := range records {
		if record.ReplacedBefore == nil {
			continue
		}
		before := *record.ReplacedBefore
		if r := record.Renewed; r != nil && !r.NotBefore.After(before) { // the clock was set back: the host uses it
			before = r.NotBefore.Add(-time.Second)
		}
		ended[host] = datadir.Replaced{NotBefore: before, By: record.ReplacedBy}
	}
	return r.hostList(holder).AdoptReplaced(ctx, current, ended)
}

// check returns an error if the list of disabled hosts may be outdated.
func (s *sharing) check() error {
	if s == nil {
		return nil
	}
	return s.follower.Check()
}

// run follows what other receivers change until ctx ends.
func (s *sharing) run(ctx context.Context, b backend) error {
	if s == nil {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		s.reports.Run(ctx)
		return nil
	})
	g.Go(func() error { return s.follower.Run(ctx) })
	err := g.Wait()
	if err != nil {
		_ = b.HandleFault(err) // the daemon ends with err
	}
	return err
}

// addReport adds a report to the record of its host.
func (s *sharing) addReport(ctx context.Context, to *fleet.Reports, host episode.Name, report wire.Report) (cloned bool, err error) {
	if s == nil {
		return to.Add(host, report, time.Now())
	}
	if err := s.reports.Fetch(ctx, host, report, time.Now()); err != nil {
		return false, err
	}
	cloned, err = to.Add(host, report, time.Now())
	if err == nil {
		s.reports.Publish(ctx, host)
	}
	return cloned, err
}

// awaitOthers waits until other receivers have asked for the list again. Otherwise they could refuse a
// host that has just been told that it has joined.
func (s *sharing) awaitOthers(ctx context.Context) {
	if s != nil {
		retry.Sleep(ctx, sharedhosts.PollInterval+sharedhosts.PollInterval/4)
	}
}
