package receiver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"cis490/internal/admission"
	"cis490/internal/durable"
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
	code := map[admission.RefusalReason]wire.Code{
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

// Storage returns how much may still be stored for a host, for a ping.
func (r *Receiver) Storage(ctx context.Context, host episode.Name) (wire.Storage, error) {
	s, err := r.inspectStorage(host)
	return s, r.checkAnswer(ctx, err)
}

func (r *Receiver) inspectStorage(host episode.Name) (wire.Storage, error) {
	left, err := r.disk.SpaceLeft(host)
	if err != nil {
		return wire.Storage{}, err
	}
	s := wire.Storage{FreeBytes: max(left.Bytes, 0), Accepting: true}
	if left.Inodes != math.MaxInt64 {
		free := max(left.Inodes, 0)
		s.FreeInodes = &free
	}
	err = r.disk.CheckReserve(host, 0, 1)
	if refused, ok := errors.AsType[*admission.RefusedError](err); ok {
		s.Accepting, s.Detail, err = false, refused.Detail, nil
	}
	r.reportSeparateHost(host, &s)
	return s, err
}

// CheckSpace returns an error if uploads would be refused because of the disk of c's data
// directory, which must exist.
func (c Config) CheckSpace() error {
	data, err := durable.Open(string(c.DataDir))
	if err != nil {
		return err
	}
	return errors.Join(c.checkSpace(data), data.Close())
}

func (c Config) checkSpace(data *durable.Dir) error {
	d := admission.NewDisk(func() (admission.Space, error) { return c.availableSpace(data) }, new(admission.Quota))
	if err := d.CheckReserve("", 0, 1); err != nil {
		return fmt.Errorf("uploads are refused: %w", err)
	}
	return nil
}

// InodeFloor returns how many inodes of a file system with total inodes stay free.
func (c Config) InodeFloor(total int64) int64 { return admission.FloorOf(c.MinFreeInodes, total) }

// availableSpace returns what is free on the file system of data, above the minimum of c.
func (c Config) availableSpace(data *durable.Dir) (admission.Space, error) {
	free, err := data.FreeSpace()
	s := admission.Space{Bytes: free.Bytes - int64(c.MinFree), Inodes: math.MaxInt64}
	if free.TotalInodes > 0 {
		s.Inodes = free.Inodes - c.InodeFloor(free.TotalInodes)
	}
	return s, err
}
