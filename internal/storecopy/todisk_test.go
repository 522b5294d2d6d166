package storecopy

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"cis490/internal/backendtest"
	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/indextest"
	"cis490/internal/wire"
)

// copyToDisk runs a copy.
func copyToDisk(t testing.TB, ctx context.Context, in bucket.Bucket, dir string, change ...func(*Options)) (Report, error) {
	t.Helper()
	opts := Options{From: place, To: disk, Holder: "copy"}
	for _, c := range change {
		c(&opts)
	}
	data, err := durable.Create(dir)
	fixture.Must(t, err)
	defer data.Close()
	return ToDisk(ctx, in, data, opts)
}

// newBucketStore returns a bucket with a store that was on a disk before, the former directory, and what
// hosts know of the store.
func newBucketStore(t testing.TB) (in *buckettest.Memory, dir string, known []wire.Store) {
	t.Helper()
	dir, _ = newStore(t)
	b, stop := openDisk(t, dir)
	onDisk, err := b.Store()
	fixture.Must(t, err)
	stop()
	in = new(buckettest.Memory)
	_, err = copyToBucket(t, context.Background(), dir, in, final)
	fixture.Must(t, err)
	known = append([]wire.Store{onDisk}, fillBucket(t, in, 30)...)
	return in, dir, known
}

// fillBucket stores archives in a bucket, one of which is repaired, and returns what their hosts know.
func fillBucket(t testing.TB, in *buckettest.Memory, seed byte) (known []wire.Store) {
	t.Helper()
	b := openReceiver(t, in)
	defer b.Close()
	note := func() {
		now, err := b.Store()
		fixture.Must(t, err)
		known = append(known, now)
	}
	note()
	put(t, b, "host-1", "bucket-"+string('a'+rune(seed)%26), archive(seed))
	note()
	put(t, b, "host-3", "broken-"+string('a'+rune(seed)%26), archive(seed+1))
	for _, name := range in.Names() {
		if strings.Contains(name, "episodes/host-3/broken-"+string('a'+rune(seed)%26)) {
			fixture.Must(t, in.Remove(t.Context(), name))
		}
	}
	put(t, b, "host-3", "broken-"+string('a'+rune(seed)%26), archive(seed+1), resent)
	note()
	return known
}

// checkOnDisk checks that a directory has all of the store that was in a bucket, and that hosts take it for
// the same.
func checkOnDisk(t *testing.T, dir string, in *buckettest.Memory, known []wire.Store) {
	t.Helper()
	if got, want := indexOf(t, dir), exported(t, in); got != want {
		t.Errorf("the index of the disk: got\n%s\nwant\n%s", got, want)
	}
	if in := listIn(t, in); in != "" {
		checkHosts(t, "on the disk", listOf(t, dir), `"host-9"`)
	}
	b, stop := openDisk(t, dir)
	defer stop()
	_, err := fsck.Verify(t.Context(), fsck.Options{EpisodesRoot: filepath.Join(dir, "episodes"), Index: filepath.Join(dir, "index.jsonl"), Deep: true}, func(f fsck.Finding) {
		t.Errorf("finding: %+v", f)
	})
	fixture.Must(t, err)
	if got, want := indexOf(t, dir), exported(t, in); got != want {
		t.Errorf("the start of the receiver has changed the index: got\n%s\nwant\n%s", got, want)
	}
	now, err := b.Store()
	fixture.Must(t, err)
	for _, k := range known {
		has, err := b.HasStore(k)
		if !has || err != nil || now.ID != k.ID || now.IndexBytes < k.IndexBytes {
			t.Errorf("a host knows %+v: got %v, %v, and the store %+v", k, has, err, now)
		}
		if k.IndexTail == "" {
			continue
		}
		wrong := k
		wrong.IndexTail = k.IndexTail[:len(k.IndexTail)-1] + "x"
		if has, err := b.HasStore(wrong); has || err != nil {
			t.Errorf("a host knows %+v: got %v, %v, want false", wrong, has, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "staging", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("staging: got %q, %v", left, err)
	}
}

func TestAStoreMovesOutOfABucket(t *testing.T) {
	in, former, known := newBucketStore(t)
	running := openReceiver(t, in)
	for name, dir := range map[string]string{"an empty directory": filepath.Join(t.TempDir(), "data"), "where it was before": former} {
		got, err := copyToDisk(t, t.Context(), in, dir)
		fixture.Must(t, err)
		if got.Moved || got.Missing != 0 {
			t.Errorf("%s: got %+v", name, got)
		}
		if got, want := indexOf(t, dir), exported(t, in); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		if err := datadir.CheckHere(dir); err == nil {
			t.Errorf("%s: a receiver may start before the last run", name)
		}
	}
	put(t, running, "host-1", "beside", archive(50))
	for range 2 {
		got, err := copyToDisk(t, t.Context(), in, former, final)
		fixture.Must(t, err)
		if !got.Moved {
			t.Errorf("the final run: got %+v", got)
		}
	}
	// A receiver that still runs acknowledges nothing, and none starts.
	u := backendtest.UploadOf(backendtest.Key("host-1", "late"), archive(51))
	if got, err := running.Put(t.Context(), u, strings.NewReader(string(archive(51)))); !errors.Is(err, wire.Busy) {
		t.Errorf("an upload after the move: got %+v, %v, want it refused", got, err)
	}
	if _, err := openBucket(t, in); err == nil || !strings.Contains(err.Error(), disk) {
		t.Errorf("a receiver of the bucket: got %v, want where the store is", err)
	}
	checkOnDisk(t, former, in, known)
	if _, err := copyToDisk(t, t.Context(), in, filepath.Join(t.TempDir(), "other"), final, func(o *Options) { o.To = "elsewhere" }); err == nil || !strings.Contains(err.Error(), disk) {
		t.Errorf("a copy to a third place: got %v, want where the store is", err)
	}
}

// A directory of the same name on another machine is not the one into which the store has moved.
func TestAnotherDirectoryOfTheSameNameIsRefused(t *testing.T) {
	in, _, known := newBucketStore(t)
	dir := filepath.Join(t.TempDir(), "data")
	_, err := copyToDisk(t, t.Context(), in, dir, final)
	fixture.Must(t, err)
	second := filepath.Join(t.TempDir(), "data")
	got, err := copyToDisk(t, t.Context(), in, second, final)
	if want := "another data_dir"; err == nil || !strings.Contains(err.Error(), want) || got.Moved {
		t.Errorf("got %+v, %v, want %q", got, err, want)
	}
	if err := datadir.CheckHere(second); err == nil {
		t.Error("a receiver may start with it")
	}
	checkOnDisk(t, dir, in, known)
}

// What the disk had before counts only if it has the bytes: their host may have healed them in the bucket.
func TestDamagedArchivesOfTheDiskAreReplaced(t *testing.T) {
	dir, _ := newStore(t)
	path := archivePath(dir, "host-1", "run-1")
	broken := []byte(fixture.ReadFile(t, path))
	broken[100] ^= 1
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // in place, so the file keeps its receipt
	fixture.Must(t, err)
	_, err = f.Write(broken)
	fixture.Must(t, errors.Join(err, f.Close()))
	in := new(buckettest.Memory)
	_, err = copyToBucket(t, t.Context(), dir, in, final, acceptMissing)
	fixture.Must(t, err)
	b := openReceiver(t, in)
	if got := put(t, b, "host-1", "run-1", archive(1), resent); got.Status != wire.Stored {
		t.Fatalf("the healed archive: got %+v", got)
	}
	b.Close()
	got, err := copyToDisk(t, t.Context(), in, dir, final)
	fixture.Must(t, err)
	if got.Archives != 1 || !got.Moved {
		t.Errorf("got %+v, want one archive copied", got)
	}
	if set, err := filepath.Glob(filepath.Join(dir, "quarantine", "host-1", "run-1~*")); err != nil || len(set) != 1 {
		t.Errorf("quarantine: got %q, %v, want the damaged archive", set, err)
	}
	checkOnDisk(t, dir, in, nil)
}

// A disk whose store has moved on is not filled again from a bucket that the store has left.
func TestADiskWhoseStoreHasMovedOnStaysAway(t *testing.T) {
	in, dir, _ := newBucketStore(t)
	_, err := copyToDisk(t, t.Context(), in, dir, final)
	fixture.Must(t, err)
	next := new(buckettest.Memory)
	_, err = copyToBucket(t, t.Context(), dir, next, final, func(o *Options) { o.To = "the bucket next" })
	fixture.Must(t, err)
	got, err := copyToDisk(t, t.Context(), in, dir, final) // the command that moved it here
	if want := "has moved to the bucket next, and not to " + place; err == nil || !strings.Contains(err.Error(), want) || got.Moved {
		t.Errorf("the former command: got %+v, %v, want %q", got, err, want)
	}
	if err := datadir.CheckHere(dir); err == nil || !strings.Contains(err.Error(), "the bucket next") {
		t.Errorf("a receiver of the disk: got %v, want that the store has moved", err)
	}
}

// A copy is killed at each of its requests. The next run completes it.
func TestACopyToADiskIsKilledAtEachRequest(t *testing.T) {
	whole, _, _ := newBucketStore(t)
	before := countRequests(whole)
	_, err := copyToDisk(t, t.Context(), whole, filepath.Join(t.TempDir(), "data"), final)
	fixture.Must(t, err)
	requests := countRequests(whole) - before
	for i, outcome := range outcomes {
		for n := int64(1 + i); n <= requests && !t.Failed(); n += int64(len(outcomes)) {
			var count, at atomic.Int64
			ctx, kill := context.WithCancel(t.Context())
			in, _, known := newBucketStore(t)
			in.Fault = func(string, string) buckettest.Fault {
				if at.Load() == 0 || count.Add(1) != at.Load() {
					return buckettest.None
				}
				kill()
				return outcome
			}
			at.Store(n)
			dir := filepath.Join(t.TempDir(), "data")
			_, _ = copyToDisk(t, ctx, in, dir, final)
			kill()
			if _, err := copyToDisk(t, t.Context(), in, dir, final); err != nil {
				t.Errorf("request %d of %d: %v", n, requests, err)
			}
			in.Release()
			checkOnDisk(t, dir, in, known)
		}
	}
}

// Hosts that were idle while the store moved to and fro take it for the same, wherever it is.
func TestHostsRememberAllPlaces(t *testing.T) {
	in, _, known := newBucketStore(t)
	for round := range 2 {
		dir := filepath.Join(t.TempDir(), "data")
		_, err := copyToDisk(t, t.Context(), in, dir, final)
		fixture.Must(t, err)
		checkOnDisk(t, dir, in, known)
		b, stop := openDisk(t, dir)
		put(t, b, "host-2", "on-disk-"+string('a'+rune(round)), archive(byte(60+round)))
		now, err := b.Store()
		fixture.Must(t, err)
		known = append(known, now)
		stop()
		in = new(buckettest.Memory)
		_, err = copyToBucket(t, t.Context(), dir, in, final)
		fixture.Must(t, err)
		if got, want := exported(t, in), indexOf(t, dir); got != want {
			t.Errorf("the index of the bucket: got\n%s\nwant\n%s", got, want)
		}
		r := openReceiver(t, in)
		now, err = r.Store()
		fixture.Must(t, err)
		for _, k := range known {
			has, err := r.HasStore(k)
			if !has || err != nil || now.IndexBytes < k.IndexBytes {
				t.Errorf("round %d: a host knows %+v: got %v, %v, and the store %+v", round, k, has, err, now)
			}
		}
		r.Close()
		known = append(known, fillBucket(t, in, byte(40+2*round))...)
	}
}

func TestArchivesThatTheBucketHasLostAreNamed(t *testing.T) {
	in, _, _ := newBucketStore(t)
	var lost string
	for _, name := range in.Names() {
		if strings.HasPrefix(name, "episodes/host-2/run-1/") {
			lost = name
		}
	}
	fixture.Must(t, in.Remove(t.Context(), lost))
	dir := filepath.Join(t.TempDir(), "data")
	for i := range 2 {
		var found []string
		got, err := copyToDisk(t, t.Context(), in, dir, func(o *Options) {
			o.Found = func(f Finding) { found = append(found, f.Finding+" "+string(f.Host)+"/"+string(f.Episode)) }
		})
		fixture.Must(t, err)
		if want := []string{"missing host-2/run-1"}; !slices.Equal(found, want) || got.Missing != 1 {
			t.Errorf("run %d: got %q, %+v, want %q", i, found, got, want)
		}
	}
	if _, err := copyToDisk(t, t.Context(), in, dir, final); !errors.Is(err, ErrIncomplete) {
		t.Errorf("the final run: got %v, want ErrIncomplete", err)
	}
	if _, err := batchlog.Ends(t.Context(), in); err != nil {
		t.Errorf("the bucket: %v", err)
	}
	put(t, openReceiver(t, in), "host-2", "run-1", archive(2)) // its host sends it again
	_, err := copyToDisk(t, t.Context(), in, dir, final)
	fixture.Must(t, err)
	checkOnDisk(t, dir, in, nil)
	if fixture.Exists(filepath.Join(dir, datadir.MissingFile)) {
		t.Error("the list of missing archives is still there")
	}
}

// flaky is a bucket that returns other bytes of an archive, the first times that it is read.
type flaky struct {
	*buckettest.Memory
	name string
	left atomic.Int64
}

func (b *flaky) Open(ctx context.Context, name string) (io.ReadCloser, bucket.Info, error) {
	r, info, err := b.Memory.Open(ctx, name)
	if err != nil || !strings.HasPrefix(name, b.name) || b.left.Add(-1) < 0 {
		return r, info, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(strings.NewReader("x"), r), r}, info, nil
}

func TestADamagedArchiveIsReadTwice(t *testing.T) {
	for readings, want := range map[int64][]string{0: nil, 1: nil, 1000: {"damaged host-2/run-1"}} {
		memory, _, _ := newBucketStore(t)
		in := &flaky{Memory: memory, name: "episodes/host-2/run-1/"}
		in.left.Store(readings)
		var found []string
		got, err := copyToDisk(t, t.Context(), in, filepath.Join(t.TempDir(), "data"), func(o *Options) {
			o.Found = func(f Finding) { found = append(found, f.Finding+" "+string(f.Host)+"/"+string(f.Episode)) }
		})
		fixture.Must(t, err)
		if readings == 1 && in.left.Load() != -1 { // and not again by copyMissing
			t.Errorf("one bad reading: got %d more, want 1", -in.left.Load())
		}
		if !slices.Equal(found, want) || got.Damaged != int64(len(want)) {
			t.Errorf("%d bad readings: got %q, %+v, want %q", readings, found, got, want)
		}
	}
}

// A run that ends because too many archives are missing does not keep the next one from its end.
func TestMissingArchivesOfFormerRunsAreNotCounted(t *testing.T) {
	in, _, _ := newBucketStore(t)
	for _, name := range in.Names() {
		if strings.HasPrefix(name, "episodes/host-2/run-1/") {
			fixture.Must(t, in.Remove(t.Context(), name))
		}
	}
	dir := t.TempDir()
	for run, want := range []error{errTooManyMissing, nil, nil} {
		c := &toDisk{run: newRun(Options{From: place, To: disk}), data: indextest.OpenDir(t, dir), in: in}
		fixture.Must(t, c.open(t.Context()))
		c.findings.Store(maxNewFindings)
		if err := c.copyAll(t.Context()); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("run %d: got %v, want %v", run, err, want)
		}
		if want == nil && c.report.Missing != 1 {
			t.Errorf("run %d: got %+v, want one missing", run, c.report)
		}
		fixture.Must(t, c.closeAll())
	}
}

// A directory that has something else is refused, and stays as it is.
func TestAnotherDirectoryIsRefused(t *testing.T) {
	in, _, _ := newBucketStore(t)
	other, _ := newStore(t)
	unknown := t.TempDir()
	fixture.Must(t, os.Mkdir(filepath.Join(unknown, "episodes"), 0o750))
	changed := filepath.Join(t.TempDir(), "data")
	_, err := copyToDisk(t, t.Context(), in, changed)
	fixture.Must(t, err)
	text := indexOf(t, changed)
	appendIndex(t, changed, strings.Replace(text[:strings.IndexByte(text, '\n')+1], "run-1", "run-0", 1))
	for _, tt := range []struct{ dir, want string }{
		{other, "use another data_dir"}, {unknown, "use an empty data_dir"}, {changed, "run-0"},
	} {
		if _, err := copyToDisk(t, t.Context(), in, tt.dir, final); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
	if _, err := batchlog.Ends(t.Context(), in); err != nil {
		t.Errorf("the bucket: %v", err)
	}
}
