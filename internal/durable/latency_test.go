package durable

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// TestMeasureSyncLeavesNothing: neither after the end, nor after ^C, nor what a killed process left.
func TestMeasureSyncLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	fixture.Must(t, err)
	defer d.Close()
	if !IsProbe(probeSync) {
		t.Errorf("no Layout has %s", probeSync)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	fixture.WriteFile(t, filepath.Join(dir, probeSync), "left")
	for _, c := range []struct {
		ctx  context.Context
		n    int
		want error
	}{{t.Context(), 3, nil}, {canceled, 0, context.Canceled}} {
		took, err := d.MeasureSync(c.ctx, 3, 4096)
		if len(took) != c.n || !errors.Is(err, c.want) || !slices.IsSorted(took) || slices.ContainsFunc(took, func(d time.Duration) bool { return d <= 0 }) {
			t.Errorf("got %v, %v; want %d times, %v", took, err, c.n, c.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
}

// TestMeasureSyncKeepsWhatIsNotItsOwn, at its name.
func TestMeasureSyncKeepsWhatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	fixture.Must(t, err)
	defer d.Close()
	fixture.Must(t, os.Symlink("elsewhere", filepath.Join(dir, probeSync)))
	if _, err := d.MeasureSync(t.Context(), 1, 1); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want %v", err, fs.ErrExist)
	}
	if _, err := os.Lstat(filepath.Join(dir, probeSync)); err != nil {
		t.Error(err)
	}
}
