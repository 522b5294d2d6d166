package durable

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"
)

// probeSync is the temporary name of [Dir.MeasureSync].
const probeSync = probePrefix + "sync"

// MeasureSync writes a file in d in rounds of size bytes, each followed by an fsync, and returns how
// long each round took, the shortest first. It removes the file, also when ctx ends; the next call
// removes what a killed process left. The file keeps its name meanwhile, because btrfs does not sync
// a file without one. An error of an fsync is an [ErrFault]. Others must not be able to write in d.
func (d *Dir) MeasureSync(ctx context.Context, rounds, size int) (took []time.Duration, err error) {
	if err := d.clearMeasured(); err != nil {
		return nil, err
	}
	f, err := d.Create(probeSync, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Discard()) }()
	piece := make([]byte, size)
	for range rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := f.Write(piece); err != nil {
			return nil, err
		}
		if err := f.f.Sync(); err != nil {
			return nil, faultError("sync", f.f.Name(), err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// clearMeasured removes the file of a MeasureSync that was killed.
func (d *Dir) clearMeasured() error {
	st, err := d.Lstat(probeSync)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !st.IsRegular() {
		err = &fs.PathError{Op: "replace", Path: d.Path(probeSync), Err: fs.ErrExist}
	}
	if err != nil {
		return err
	}
	return d.Unlink(probeSync)
}
