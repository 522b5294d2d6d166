package diskbackend

import (
	"context"
	"errors"
	"fmt"
	"math"

	"cis490/internal/admission"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// openDisk creates the budget of the disk, and logs a warning if it is full.
func (b *Backend) openDisk() {
	quota := &admission.Quota{
		Max:   b.cfg.HostBytes,
		Count: func(host episode.Name) (int64, error) { return b.store.HostBytes(host, admission.FileCost) },
		Log:   b.log,
	}
	b.disk = admission.NewDisk(func() (admission.Space, error) { return b.cfg.availableSpace(b.data) }, quota)
	if err := b.CheckSpace(); err != nil {
		b.log.Warn("disk is full", "err", err)
	}
}

// Storage returns how much may still be stored for a host, for a ping.
func (b *Backend) Storage(ctx context.Context, host episode.Name) (wire.Storage, error) {
	s, err := b.inspectStorage(host)
	return s, b.checkAnswer(ctx, err)
}

func (b *Backend) inspectStorage(host episode.Name) (wire.Storage, error) {
	left, err := b.disk.SpaceLeft(host)
	if err != nil {
		return wire.Storage{}, err
	}
	s := wire.Storage{FreeBytes: max(left.Bytes, 0), Accepting: true}
	if left.Inodes != math.MaxInt64 {
		free := max(left.Inodes, 0)
		s.FreeInodes = &free
	}
	err = b.disk.CheckReserve(host, 0, 1)
	if refused, ok := errors.AsType[*admission.RefusedError](err); ok {
		s.Accepting, s.Detail, err = false, refused.Detail, nil
	}
	b.reportSeparateHost(host, &s)
	return s, err
}

// CheckSpace returns an error if uploads are refused because of the disk.
func (b *Backend) CheckSpace() error { return b.cfg.checkSpace(b.data) }

// CheckSpace returns an error if uploads would be refused because of the disk of c's data
// directory, which must exist.
func (c Config) CheckSpace() error {
	data, err := durable.Open(c.DataDir)
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
func (c Config) InodeFloor(total int64) int64 {
	return admission.FloorOf(c.MinFreeInodes, total)
}

// availableSpace returns what is free on the file system of data, above the minimum of c.
func (c Config) availableSpace(data *durable.Dir) (admission.Space, error) {
	free, err := data.FreeSpace()
	s := admission.Space{Bytes: free.Bytes - c.MinFree, Inodes: math.MaxInt64}
	if free.TotalInodes > 0 {
		s.Inodes = free.Inodes - c.InodeFloor(free.TotalInodes)
	}
	return s, err
}

// logSeparateHosts logs the hosts whose archives cannot be stored, because their directory is
// a separate mount. The others are served.
func (b *Backend) logSeparateHosts() {
	for host, err := range b.store.SeparateHosts() {
		b.log.Error("host cannot be stored", "host", host, "err", err)
	}
}

// reportSeparateHost sets in the answer to a ping that archives of a host cannot be stored.
func (b *Backend) reportSeparateHost(host episode.Name, s *wire.Storage) {
	_, separate := errors.AsType[*durable.SeparateError](b.store.CheckHost(host))
	if separate && s.Accepting {
		s.Accepting, s.Detail = false, wire.HostIsMount
	}
}
