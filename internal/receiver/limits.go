package receiver

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/admission"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// maxUploadWait is how long an upload waits for a slot before it is refused.
const maxUploadWait = 10 * time.Second

// problemOf translates a refusal of package admission for the sender. Other errors
// are returned as they are.
func problemOf(err error) error {
	refused, ok := errors.AsType[*admission.RefusedError](err)
	if !ok {
		return err
	}
	code := map[admission.Reason]wire.Code{
		admission.HostBusy:   wire.HostBusy,
		admission.Busy:       wire.Busy,
		admission.DiskFull:   wire.Full,
		admission.QuotaSpent: wire.Full,
	}[refused.Reason]
	p := wire.Refuse(code, "%s", refused.Detail)
	p.RetryAfter = refused.RetryAfter
	return p
}

// hostBusy refuses a request because of others of the same host.
func hostBusy(format string, args ...any) error {
	p := wire.Refuse(wire.HostBusy, format, args...)
	p.RetryAfter = time.Second
	return p
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// Limits says what the receiver takes, for a ping.
func (r *Receiver) Limits() wire.Limits {
	return wire.Limits{
		MaxSize:        int64(r.cfg.Limits.ArchiveBytes),
		Uploads:        r.cfg.Limits.Uploads,
		UploadsPerHost: r.cfg.Limits.UploadsPerHost,
		UnfinishedAge:  r.cfg.Limits.UnfinishedAge.Std(),
	}
}

// Storage says how much the receiver may still take of a host, for a ping.
func (r *Receiver) Storage(_ context.Context, host episode.Name) (wire.Storage, error) {
	left, _, err := r.disk.Left(host)
	return wire.Storage{FreeBytes: max(left, 0), Accepting: left > 0}, err
}
