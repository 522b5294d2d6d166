package storecopy

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cis490/internal/backendtest"
	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/s3backend"
	"cis490/internal/wire"
)

// checkMoved checks that a bucket has all of a store, and that hosts take it for the same.
func checkMoved(t *testing.T, in *buckettest.Memory, dir string, archives int, known []wire.Store) {
	t.Helper()
	if got, want := exported(t, in), indexOf(t, dir); got != want {
		t.Errorf("the index of the bucket: got\n%s\nwant\n%s", got, want)
	}
	counts := map[string]int{}
	for _, name := range in.Names() {
		top, _, _ := strings.Cut(name, "/")
		counts[top]++
	}
	rows := strings.Count(indexOf(t, dir), "\n")
	if counts["episodes"] != archives || counts["commits"] != rows || counts["missing"] != 0 {
		t.Errorf("objects: got %v, want %d archives and %d commits", counts, archives, rows)
	}
	if got := findings(t, in); len(got) > 0 {
		t.Errorf("findings: got %q, want none", got)
	}
	checkHosts(t, "in the bucket", listIn(t, in), `"host-9"`)
	b := openReceiver(t, in)
	now, err := b.Store()
	fixture.Must(t, err)
	for _, k := range known {
		has, err := b.HasStore(k)
		if !has || err != nil || now.ID != k.ID || now.IndexBytes < k.IndexBytes {
			t.Errorf("a host knows %+v: got %v, %v, and the store %+v", k, has, err, now)
		}
	}
	if got := put(t, b, "host-1", "other", archive(6)); got.Status != wire.AlreadyPresent || got.Digest != backendtest.UploadOf(backendtest.Key("", ""), archive(6)).Digest {
		t.Errorf("a repaired archive that is sent again: got %+v", got)
	}
	if got := put(t, b, "host-1", "new", archive(20)); got.Status != wire.Stored {
		t.Errorf("a new archive: got %+v", got)
	}
	later, err := b.Store()
	fixture.Must(t, err)
	if later.IndexBytes <= now.IndexBytes {
		t.Errorf("the length of the index after another row: got %d, want more than %d", later.IndexBytes, now.IndexBytes)
	}
}

// knownStores returns what hosts of a receiver may know of its store.
func knownStores(t *testing.T, dir string) []wire.Store {
	t.Helper()
	b, stop := openDisk(t, dir)
	defer stop()
	now, err := b.Store()
	fixture.Must(t, err)
	known := []wire.Store{now, {ID: now.ID}, {ID: now.ID, IndexBytes: now.IndexBytes / 2}}
	put(t, b, "host-1", "after", archive(21))
	now, err = b.Store()
	fixture.Must(t, err)
	return append(known, now)
}

func TestAStoreMovesIntoABucket(t *testing.T) {
	dir, archives := newStore(t)
	known := knownStores(t, dir)
	in := new(buckettest.Memory)
	_, stop := openDisk(t, dir)
	got, err := copyToBucket(t, t.Context(), dir, in)
	fixture.Must(t, err)
	rows := int64(strings.Count(indexOf(t, dir), "\n"))
	if got.Rows != rows || got.Missing+got.Damaged != 0 || got.Moved || got.IndexBytes != int64(len(indexOf(t, dir))) {
		t.Errorf("got %+v, want %d rows", got, rows)
	}
	if _, err := openBucket(t, in); err == nil || !strings.Contains(err.Error(), "--final' completes it") {
		t.Errorf("a receiver before the last run: got %v, want what to do", err)
	}
	if _, err := copyToBucket(t, t.Context(), dir, in, final); !isLocked(err) {
		t.Errorf("a final run beside the receiver: got %v, want its lock", err)
	}
	stop()
	got, err = copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	if got.Rows != 0 || !got.Moved {
		t.Errorf("the final run: got %+v", got)
	}
	for range 2 { // as often as wanted
		if again, err := copyToBucket(t, t.Context(), dir, in, final); err != nil || !again.Moved {
			t.Errorf("after the move: got %+v, %v", again, err)
		}
	}
	if err := datadir.CheckHere(dir); err == nil || !strings.Contains(err.Error(), place) {
		t.Errorf("a receiver of the disk: got %v, want that the store has moved", err)
	}
	checkMoved(t, in, dir, archives+1, known)
	if got, want := contentOf(t, in, "store.json"), `{"layout":2,`; !strings.HasPrefix(got, want) {
		t.Errorf("store.json: got %q, want %q, which older receivers refuse", got, want)
	}
	has, err := openReceiver(t, in).HasStore(wire.Store{ID: known[0].ID, IndexBytes: known[0].IndexBytes, IndexTail: known[len(known)-1].IndexTail})
	if has || err != nil {
		t.Errorf("a host that knows other rows: got %v, %v, want false", has, err)
	}
}

func contentOf(t *testing.T, in bucket.Bucket, name string) string {
	t.Helper()
	r, _, err := in.Open(t.Context(), name)
	fixture.Must(t, err)
	defer r.Close()
	content, err := io.ReadAll(r)
	fixture.Must(t, err)
	return string(content)
}

func isLocked(err error) bool {
	_, locked := errors.AsType[*durable.LockedError](err)
	return locked
}

// Another bucket of the same name is not the one into which the store has moved, whether the move is complete
// or was killed after the disk was given up.
func TestAnotherBucketOfTheSameNameIsRefused(t *testing.T) {
	for _, killed := range []bool{false, true} {
		dir, archives := newStore(t)
		in := new(buckettest.Memory)
		ctx, kill := context.WithCancel(t.Context())
		in.Fault = func(op, name string) buckettest.Fault {
			if killed && op == buckettest.OpCreate && name == "store.json" {
				kill()
				return buckettest.LostBefore
			}
			return buckettest.None
		}
		if _, err := copyToBucket(t, ctx, dir, in, final); (err != nil) != killed {
			t.Errorf("killed %v: the final run: got %v", killed, err)
		}
		kill()
		copied := new(buckettest.Memory)
		_, err := s3backend.OpenImport(t.Context(), copied, storeID(t, dir), "")
		fixture.Must(t, err)
		for what, second := range map[string]*buckettest.Memory{"empty": new(buckettest.Memory), "a copy": copied} {
			before := second.Names()
			got, err := copyToBucket(t, t.Context(), dir, second, final)
			if want := "this is another one"; err == nil || !strings.Contains(err.Error(), want) || got.Moved {
				t.Errorf("killed %v, %s: got %+v, %v, want %q", killed, what, got, err, want)
			}
			if after := second.Names(); !slices.Equal(before, after) {
				t.Errorf("killed %v, %s: objects: got %q, want %q", killed, what, after, before)
			}
		}
		killed = false
		_, err = copyToBucket(t, t.Context(), dir, in, final)
		fixture.Must(t, err)
		checkMoved(t, in, dir, archives, nil)
	}
}

func storeID(t *testing.T, dir string) string {
	t.Helper()
	name, err := datadir.ReadStore(openDir(t, dir))
	fixture.Must(t, err)
	return name.ID
}

// What 'receiver store replaces' has changed while the copy ran goes along.
func TestIDsOfReplacedStoresGoAlong(t *testing.T) {
	dir, _ := newStore(t)
	old := strings.Repeat("A", 26)
	in := new(buckettest.Memory)
	changed := false
	in.Fault = func(op, name string) buckettest.Fault {
		if op == buckettest.OpCreate && !changed {
			changed = true
			_, err := datadir.ReplaceStore(context.Background(), dir, old, "test")
			fixture.Must(t, err)
		}
		return buckettest.None
	}
	_, err := copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	now, err := openReceiver(t, in).Store()
	fixture.Must(t, err)
	if want := []string{old}; !slices.Equal(now.Replaces, want) {
		t.Errorf("the bucket replaces: got %q, want %q", now.Replaces, want)
	}
	if err := datadir.CheckHere(dir); err == nil {
		t.Error("a receiver of the disk may start")
	}
}

// A copy is killed at each of its requests, which takes effect before, later or never. The next run
// completes it.
func TestACopyIsKilledAtEachRequest(t *testing.T) {
	dir, archives := newStore(t)
	known := knownStores(t, dir)
	whole := new(buckettest.Memory)
	_, err := copyToBucket(t, t.Context(), dir, whole, final)
	fixture.Must(t, err)
	fixture.Must(t, here(dir))
	requests := countRequests(whole)
	for i, outcome := range outcomes {
		for n := int64(1 + i); n <= requests && !t.Failed(); n += int64(len(outcomes)) {
			ctx, kill := context.WithCancel(t.Context())
			in := new(buckettest.Memory)
			var count atomic.Int64
			in.Fault = func(string, string) buckettest.Fault {
				if count.Add(1) != n {
					return buckettest.None
				}
				kill()
				return outcome
			}
			_, _ = copyToBucket(t, ctx, dir, in, final)
			kill()
			if _, err := copyToBucket(t, t.Context(), dir, in, final); err != nil {
				t.Errorf("request %d of %d: %v", n, requests, err)
			}
			in.Release()
			fixture.Must(t, here(dir))
			checkMoved(t, in, dir, archives+1, known)
		}
	}
}

// outcomes are how a request that is killed ends. Each request has one of them.
var outcomes = []buckettest.Fault{buckettest.LostBefore, buckettest.LostAfter, buckettest.Late}

func countRequests(in *buckettest.Memory) (sum int64) {
	for _, n := range in.Requests() {
		sum += int64(n)
	}
	return sum
}

// here makes a store that has moved one that may be copied again.
func here(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "store.json"))
	if err != nil {
		return err
	}
	data, err := durable.Open(dir)
	if err != nil {
		return err
	}
	defer data.Close()
	if !strings.Contains(string(text), "moved_to") {
		return nil
	}
	_, err = datadir.EndCopy(context.Background(), data, nil, nil, "test")
	return err
}

func TestASecondRunRepeatsNothing(t *testing.T) {
	dir, _ := newStore(t)
	in := new(buckettest.Memory)
	_, err := copyToBucket(t, t.Context(), dir, in)
	fixture.Must(t, err)
	before := in.Requests()
	_, err = copyToBucket(t, t.Context(), dir, in)
	fixture.Must(t, err)
	sum := 0
	for op, n := range in.Requests() {
		sum += n - before[op]
	}
	if puts := in.Requests()[buckettest.OpPut] - before[buckettest.OpPut]; puts > 0 || sum > 8 {
		t.Errorf("the second run sent %d archives and %d requests, want none and a few", puts, sum)
	}
}

// Two copies that do not know of one another do no harm.
func TestTwoCopiesAtOnce(t *testing.T) {
	dir, archives := newStore(t)
	in := new(buckettest.Memory)
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() {
			c := &toBucket{run: newRun(Options{To: place}), data: openDir(t, dir), in: in}
			fixture.Must(t, c.open(t.Context()))
			defer c.closeAll()
			if err := c.copyAll(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	_, err := copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	checkMoved(t, in, dir, archives, nil)
	lock, err := datadir.LockCopy(openDir(t, dir), "another copy")
	fixture.Must(t, err)
	defer lock.Unlock()
	if _, err := copyToBucket(t, t.Context(), dir, in); !isLocked(err) {
		t.Errorf("while another copy runs: got %v, want its lock", err)
	}
}

func openDir(t *testing.T, dir string) *durable.Dir {
	data, err := durable.Open(dir)
	fixture.Must(t, err)
	t.Cleanup(func() { data.Close() })
	return data
}

// Archives that the disk does not have are named and keep their rows. A later run looks for them again.
func TestMissingArchivesAreNamedUntilTheyAreThere(t *testing.T) {
	dir, archives := newStore(t)
	kept := fixture.ReadFile(t, archivePath(dir, "host-1", "run-1"))
	fixture.Must(t, os.Remove(archivePath(dir, "host-1", "run-1")))
	damagedArchive := archive(2)
	damagedArchive[100] ^= 1
	fixture.WriteFile(t, archivePath(dir, "host-2", "run-1"), string(damagedArchive))
	in := new(buckettest.Memory)
	for i := range 2 {
		var found []string
		got, err := copyToBucket(t, t.Context(), dir, in, func(o *Options) {
			o.Found = func(f Finding) { found = append(found, f.Finding+" "+string(f.Host)+"/"+string(f.Episode)) }
		})
		fixture.Must(t, err)
		if want := []string{"missing host-1/run-1", "damaged host-2/run-1"}; !slices.Equal(found, want) || got.Missing != 1 || got.Damaged != 1 {
			t.Errorf("run %d: got %q, %+v, want %q", i, found, got, want)
		}
	}
	if _, err := copyToBucket(t, t.Context(), dir, in, final); !errors.Is(err, ErrIncomplete) {
		t.Errorf("the final run: got %v, want ErrIncomplete", err)
	}
	fixture.WriteFile(t, archivePath(dir, "host-1", "run-1"), kept)
	got, err := copyToBucket(t, t.Context(), dir, in, final, acceptMissing)
	fixture.Must(t, err)
	if got.Missing != 0 || got.Damaged != 1 || !got.Moved || got.Archives != 1 {
		t.Errorf("got %+v, want one archive, one damaged, moved", got)
	}
	if got, want := exported(t, in), indexOf(t, dir); got != want {
		t.Errorf("the index: got\n%s\nwant\n%s", got, want)
	}
	if got := findings(t, in); !slices.Equal(got, []string{"digest-differs host-2/run-1", "damaged host-2/run-1"}) {
		t.Errorf("findings: got %q", got)
	}
	// Its host sends it again.
	if got := put(t, openReceiver(t, in), "host-2", "run-1", archive(2)); got.Status != wire.Stored {
		t.Errorf("got %+v, want it stored", got)
	}
	if got := findings(t, in); len(got) > 0 {
		t.Errorf("findings: got %q, want none", got)
	}
	_ = archives
}

// A bucket that has something else is refused, and stays as it is.
func TestAnotherBucketIsRefused(t *testing.T) {
	dir, _ := newStore(t)
	other, _ := newStore(t)
	for name, tt := range map[string]struct {
		prepare func(*buckettest.Memory)
		want    string
	}{
		"files of others": {func(in *buckettest.Memory) {
			put := strings.NewReader("x")
			fixture.Must(t, in.Put(t.Context(), "holiday.jpg", put, 1, backendtest.UploadOf(backendtest.Key("", ""), []byte("x")).Digest))
		}, `"holiday.jpg"`},
		"a store in use": {func(in *buckettest.Memory) { openReceiver(t, in) }, "and not"},
		"another copy": {func(in *buckettest.Memory) {
			_, err := copyToBucket(t, t.Context(), other, in)
			fixture.Must(t, err)
		}, "is being copied into the bucket"},
		"rows of an image": {func(in *buckettest.Memory) {
			before := indexOf(t, dir)
			appendIndex(t, dir, strings.Replace(before[:strings.IndexByte(before, '\n')+1], "run-1", "run-0", 1))
			_, err := copyToBucket(t, t.Context(), dir, in)
			fixture.Must(t, err)
			fixture.WriteFile(t, filepath.Join(dir, "index.jsonl"), before)
		}, "run-0"},
	} {
		t.Run(name, func(t *testing.T) {
			in := new(buckettest.Memory)
			tt.prepare(in)
			before := in.Names()
			_, err := copyToBucket(t, t.Context(), dir, in, final)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if after := in.Names(); !slices.Equal(before, after) {
				t.Errorf("objects: got %q, want %q", after, before)
			}
			if err := datadir.CheckHere(dir); err != nil {
				t.Errorf("the disk: %v", err)
			}
		})
	}
}

// A torn row is not a row yet, and a line that is none ends the copy.
func TestLinesThatAreNoRows(t *testing.T) {
	dir, archives := newStore(t)
	before := indexOf(t, dir)
	appendIndex(t, dir, `{"torn`)
	in := new(buckettest.Memory)
	_, err := copyToBucket(t, t.Context(), dir, in)
	fixture.Must(t, err)
	if got := exported(t, in); got != before {
		t.Errorf("got %q, want the whole rows", got)
	}
	fixture.WriteFile(t, filepath.Join(dir, "index.jsonl"), before+"nonsense\n"+before[:strings.IndexByte(before, '\n')+1])
	_, err = copyToBucket(t, t.Context(), dir, in, final)
	if want := "line 11 of the index is not a row"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	fixture.WriteFile(t, filepath.Join(dir, "index.jsonl"), before+`{"torn`) // the final run cuts it, as a start does
	_, err = copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	checkMoved(t, in, dir, archives, nil)
}

// An engine that is full ends the copy, and loses nothing.
func TestAFullObjectStoreEndsTheCopy(t *testing.T) {
	dir, archives := newStore(t)
	var count atomic.Int64
	full := true
	in := &buckettest.Memory{}
	in.Fault = func(op, _ string) buckettest.Fault {
		if op == buckettest.OpPut && count.Add(1) > 3 && full {
			return buckettest.Full
		}
		return buckettest.None
	}
	if _, err := copyToBucket(t, t.Context(), dir, in, final); !errors.Is(err, bucket.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	full = false
	_, err := copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	checkMoved(t, in, dir, archives, nil)
}
