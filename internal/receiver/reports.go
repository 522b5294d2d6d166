package receiver

import (
	"context"
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/wire"
)

// NoteReport keeps the report of a host. A report that cannot be written is no storage fault: nothing
// depends on it.
func (r *Receiver) NoteReport(_ context.Context, host episode.Name, report wire.Report) error {
	news, err := r.fleet.Note(host, report, time.Now())
	if news.Cloned {
		r.log.Warn("two machines use one certificate", "host", string(host),
			"hint", "a cloned machine? Remove the credentials on one of them, and let it join under a name of its own")
	}
	if _, refused := errors.AsType[*wire.Problem](err); err == nil || refused {
		return err
	}
	if durable.IsFull(err) {
		return wire.Refuse(wire.Full, "the report was not kept")
	}
	r.log.Error("report not kept", "host", string(host), "err", err)
	return wire.Refuse(wire.Internal, "the report was not kept")
}

func (r *Receiver) countArchives(host episode.Name, lastArrival time.Time) (fleet.Count, bool, error) {
	n, at, counted, err := r.store.CountArchives(host, lastArrival)
	return fleet.Count{Archives: n, LastArrival: at}, counted, err
}

// noteSpace keeps the free space of the data directory, from which a status tells when the disk will be
// full.
func (r *Receiver) noteSpace(now time.Time) {
	free, err := r.data.FreeSpace()
	if err == nil && !free.IsUnknown() {
		err = r.fleet.NoteSpace(free.Bytes, now)
	}
	if err != nil {
		r.log.Debug("free space not kept", "err", err)
	}
}
