package s3backend

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/fixture"
	"cis490/internal/indextest"
	"cis490/internal/wire"
)

// isRefusedAsMoved reports whether a host is told that the store is elsewhere.
func isRefusedAsMoved(err error) bool {
	return errors.Is(err, wire.Busy) && strings.Contains(err.Error(), "the store has moved")
}

// A receiver of a bucket that the store has left says so by itself, and once in its log.
func TestReceiversNoticeThatTheStoreHasLeft(t *testing.T) {
	dir := t.TempDir()
	data := indextest.OpenDir(t, dir)
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		var logged strings.Builder
		b, err := Open(t.Context(), in, Options{
			Limits: wire.Limits{MaxSize: 1 << 30, Uploads: 4, UploadsPerHost: 4}, SpoolDir: dir, Data: data,
			Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		fixture.Must(t, err)
		archive := noise(1, 2000)
		u := uploadOf("host-1", "run-1", archive)
		_, err = put(b, u, archive)
		fixture.Must(t, err)
		known, err := b.Store()
		fixture.Must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		time.Sleep(10 * followInterval)
		fixture.Must(t, b.CheckSpace())
		logged.Reset()
		fixture.Must(t, batchlog.Fence(t.Context(), in, 1, "elsewhere", "id"))
		time.Sleep(10 * followInterval)
		if err := b.CheckSpace(); err == nil || !strings.Contains(err.Error(), "elsewhere") {
			t.Errorf("readiness: got %v, want where the store is", err)
		}
		for what, ask := range map[string]func() error{
			"a ping":            func() error { _, err := b.Storage(t.Context(), "host-1"); return err },
			"an inventory":      func() error { _, err := b.Inventory(t.Context(), "host-1", nil, false); return err },
			"a stored archive":  func() error { _, err := b.Stat(t.Context(), u.Key); return err },
			"an announcement":   func() error { _, _, err := b.Announce(t.Context(), uploadOf("host-1", "run-2", archive)); return err },
			"what a host knows": func() error { _, err := b.HasStore(known); return err },
			"what it knows of later": func() error {
				_, err := b.HasStore(wire.Store{ID: known.ID, IndexBytes: 99, IndexTail: "x"})
				return err
			},
		} {
			if err := ask(); !isRefusedAsMoved(err) {
				t.Errorf("%s: got %v, want it refused", what, err)
			}
		}
		stop()
		fixture.Must(t, <-ended)
		if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `msg="store has moved"`) {
			t.Errorf("the log: got\n%s\nwant one line", got)
		}
		if got := b.copy.Next(); got != 2 {
			t.Errorf("the copy of the index: got %d as its next batch, want 2", got)
		}
		fixture.Must(t, b.Close())
	})
}

// A host deletes episodes for receipts and inventories. After the fence only the new place vouches, even
// before a receiver has noticed.
func TestNothingIsVouchedForAfterTheFence(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	archive := noise(1, 2000)
	u := uploadOf("host-1", "run-1", archive)
	_, err := put(b, u, archive)
	fixture.Must(t, err)
	asks := map[string]func(b *Backend) error{
		"the same archive": func(b *Backend) error { _, err := put(b, u, archive); return err },
		"its announcement": func(b *Backend) error { _, _, err := b.Announce(t.Context(), u); return err },
		"an inventory": func(b *Backend) error {
			_, err := b.Inventory(t.Context(), "host-1", []wire.InventoryQuery{{Episode: "run-1", Digest: u.Digest}}, false)
			return err
		},
	}
	receivers := make(map[string]*Backend)
	for what := range asks {
		receivers[what] = openBackend(t, in)
	}
	fixture.Must(t, batchlog.Fence(t.Context(), in, 1, "elsewhere", "id"))
	for what, ask := range asks {
		if err := ask(receivers[what]); !isRefusedAsMoved(err) {
			t.Errorf("%s: got %v, want it refused", what, err)
		}
	}
}
