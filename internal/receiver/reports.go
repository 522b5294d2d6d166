package receiver

import (
	"context"
	"errors"
	"time"

	"cis490/internal/access"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/wire"
)

// openReports opens what hosts report. Only a storage fault ends the start: on a full disk the receiver
// serves as before.
func (r *Receiver) openReports(now time.Time) error {
	var err error
	r.fleet, err = fleet.Open(r.data, r.countArchives, now)
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	if err != nil {
		r.log.Warn("reports of hosts not kept", "err", err)
	}
	return nil
}

// KeepReport keeps the report of a host. Failing to write it is not a storage fault, because nothing
// depends on it.
func (r *Receiver) KeepReport(ctx context.Context, host episode.Name, report wire.Report) error {
	if err := access.Recheck(ctx); err != nil {
		return err
	}
	cloned, err := r.shared.addReport(ctx, r.fleet, host, report)
	if cloned {
		r.log.Warn("two machines use one certificate", "host", string(host),
			"hint", "a cloned machine? Remove the credentials on one of them, and let it join under a name of its own")
	}
	if durable.IsFull(err) {
		return wire.ErrReportNotKept
	}
	return err
}

func (r *Receiver) countArchives(host episode.Name, lastChange time.Time) (fleet.Count, bool, error) {
	n, at, counted, err := r.backend.CountArchives(host, lastChange)
	return fleet.Count{Archives: n, LastChange: at}, counted, err
}

// spaceInterval is how often the free space is recorded.
const spaceInterval = time.Hour

// recordSpace records the free space of the data directory until ctx ends. A status tells from it when the
// disk will be full.
func (r *Receiver) recordSpace(ctx context.Context) {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r.noteSpace(now)
		}
	}
}

func (r *Receiver) noteSpace(now time.Time) {
	free, err := r.data.FreeSpace()
	if err == nil && !free.IsUnknown() {
		err = r.fleet.AddSpace(free.Bytes, now)
	}
	if err != nil {
		r.log.Debug("free space not kept", "err", err)
	}
}
