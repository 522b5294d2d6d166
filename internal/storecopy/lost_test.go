package storecopy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

func lost(id string) func(*Options) { return func(o *Options) { o.Lost = id } }

func to(place string) func(*Options) { return func(o *Options) { o.To = place } }

// copyIn returns the id of the copy that has the store, by the fence of a bucket.
func copyIn(t *testing.T, in bucket.Bucket) string {
	t.Helper()
	moved, ok := errors.AsType[*batchlog.MovedError](batchlog.CheckHere(t.Context(), in))
	if !ok {
		t.Fatal("the bucket is not fenced")
	}
	return moved.CopyID
}

// newLostStore returns a bucket whose store has moved to a disk, which stored one archive there, and was lost.
func newLostStore(t *testing.T) (in *buckettest.Memory, first wire.Store, dir string) {
	t.Helper()
	in, _, _ = newBucketStore(t)
	dir = filepath.Join(t.TempDir(), "data")
	_, err := copyToDisk(t, t.Context(), in, dir, final)
	fixture.Must(t, err)
	b, stop := openDisk(t, dir)
	defer stop()
	put(t, b, "host-1", "after", archive(70))
	first, err = b.Store()
	fixture.Must(t, err)
	return in, first, dir
}

// The store of a disk that was lost is taken over by one other disk, under another id, which hosts of the lost
// one adopt. No other copy opens it.
func TestALostDiskIsReplaced(t *testing.T) {
	in, first, found := newLostStore(t)
	id, second := copyIn(t, in), filepath.Join(t.TempDir(), "data")
	for _, change := range []func(*Options){to(disk), to("elsewhere")} {
		if got, err := copyToDisk(t, t.Context(), in, second, final, change); err == nil || !strings.Contains(err.Error(), "the id of its copy is "+id) || got.Moved {
			t.Errorf("without --lost: got %+v, %v, want the id of the copy", got, err)
		}
	}
	if got, err := copyToDisk(t, t.Context(), in, second, final, lost("other")); err == nil || got.Moved {
		t.Errorf("with another id: got %+v, %v, want it refused", got, err)
	}
	got, err := copyToDisk(t, t.Context(), in, second, lost(id))
	fixture.Must(t, err)
	if got.Moved || datadir.CheckHere(second) == nil {
		t.Errorf("without --final: got %+v, want no receiver to start", got)
	}
	for range 2 {
		got, err = copyToDisk(t, t.Context(), in, second, final, lost(id))
		fixture.Must(t, err)
		if !got.Moved || got.Store == first.ID {
			t.Errorf("the final run: got %+v, want another id than %s", got, first.ID)
		}
	}
	b, stop := openDisk(t, second)
	now, err := b.Store()
	fixture.Must(t, err)
	if has, err := b.HasStore(first); !has || err != nil || now.ID != got.Store || !slices.Equal(now.Replaces, []string{first.ID}) {
		t.Errorf("a host of the lost disk: got %v, %v, and the store %+v", has, err, now)
	}
	if r := put(t, b, "host-1", "after", archive(70)); r.Status != wire.Stored { // 'shipper verify --heal'
		t.Errorf("what the lost disk had stored: got %+v", r)
	}
	stop()
	// The lost disk is found. Its hosts have adopted the other store, so they take its receipts for nothing.
	lostDisk, stop := openDisk(t, found)
	if has, err := lostDisk.HasStore(now); has || err != nil {
		t.Errorf("the disk that was lost has the new store: %v, %v", has, err)
	}
	stop()
	third := filepath.Join(t.TempDir(), "data")
	for what, dir := range map[string]string{"the disk that was lost": found, "a third one": third} {
		if got, err := copyToDisk(t, t.Context(), in, dir, final, lost(id)); err == nil || got.Moved {
			t.Errorf("%s: got %+v, %v, want it refused", what, got, err)
		}
	}
	// The second one is lost too.
	got, err = copyToDisk(t, t.Context(), in, third, final, lost(copyIn(t, in)))
	fixture.Must(t, err)
	b, _ = openDisk(t, third)
	last, err := b.Store()
	fixture.Must(t, err)
	if !got.Moved || got.Store != last.ID || !slices.Equal(last.Replaces, []string{now.ID, first.ID}) {
		t.Errorf("the third disk: got %+v, and the store %+v, want that it replaces both", got, last)
	}
}

// A store that has not left the bucket is not lost.
func TestAStoreInItsBucketIsNotTakenOver(t *testing.T) {
	in, _, _ := newBucketStore(t)
	if got, err := copyToDisk(t, t.Context(), in, filepath.Join(t.TempDir(), "data"), final, lost("id")); err == nil || got.Moved {
		t.Errorf("got %+v, %v, want it refused", got, err)
	}
	fixture.Must(t, batchlog.CheckHere(t.Context(), in))
}

// A disk that was killed between the fence and its end, and was declared lost, does not open the store when it
// comes back.
func TestADiskThatWasDeclaredLostStaysClosed(t *testing.T) {
	in, _, _ := newBucketStore(t)
	first, second := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "data")
	ctx, kill := context.WithCancel(t.Context())
	var isFenced atomic.Bool
	in.Fault = func(op, name string) buckettest.Fault {
		if isFenced.Load() {
			kill()
			return buckettest.LostBefore
		}
		isFenced.Store(op == buckettest.OpCreate && strings.HasPrefix(name, "log/"))
		return buckettest.None
	}
	if got, err := copyToDisk(t, ctx, in, first, final); err == nil || got.Moved {
		t.Fatalf("the copy that is killed: got %+v, %v", got, err)
	}
	in.Fault = nil
	_, err := copyToDisk(t, t.Context(), in, second, final, to("elsewhere"), lost(copyIn(t, in)))
	fixture.Must(t, err)
	if got, err := copyToDisk(t, t.Context(), in, first, final); err == nil || !strings.Contains(err.Error(), "elsewhere") || got.Moved {
		t.Errorf("the first disk comes back: got %+v, %v, want where the store is", got, err)
	}
	if got, err := copyToDisk(t, t.Context(), in, first, final, lost(copyIn(t, in))); !errors.Is(err, batchlog.ErrDeclaredLost) || got.Moved {
		t.Errorf("the first disk takes over: got %+v, %v, want ErrDeclaredLost", got, err)
	}
	if err := datadir.CheckHere(first); err == nil {
		t.Error("a receiver may start with the first disk")
	}
}

// A copy that takes over is killed at each of its requests, and completed by the next run.
func TestATakeoverIsKilledAtEachRequest(t *testing.T) {
	in, _, _ := newLostStore(t)
	id, before := copyIn(t, in), countRequests(in)
	dir := filepath.Join(t.TempDir(), "data")
	_, err := copyToDisk(t, t.Context(), in, dir, final, lost(id))
	fixture.Must(t, err)
	name := "moved/" + id + ".json"
	fixture.Must(t, in.Remove(t.Context(), name))
	fixture.Must(t, os.RemoveAll(dir))
	requests := countRequests(in) - before
	for n := int64(1); n <= requests && !t.Failed(); n++ {
		ctx, kill := context.WithCancel(t.Context())
		var count atomic.Int64
		outcome := outcomes[int(n)%len(outcomes)]
		in.Fault = func(string, string) buckettest.Fault {
			if count.Add(1) != n {
				return buckettest.None
			}
			kill()
			return outcome
		}
		_, _ = copyToDisk(t, ctx, in, dir, final, lost(id))
		kill()
		in.Fault = nil
		in.Release()
		got, err := copyToDisk(t, t.Context(), in, dir, final, lost(id))
		if err != nil || !got.Moved {
			t.Errorf("request %d of %d: got %+v, %v", n, requests, got, err)
		}
		fixture.Must(t, in.Remove(t.Context(), name))
		fixture.Must(t, os.RemoveAll(dir))
	}
}
