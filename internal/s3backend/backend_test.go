package s3backend

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

func TestAnArchiveIsStoredOnce(t *testing.T) {
	in := newBucket()
	one, other := openBackend(t, in), openBackend(t, in)
	archive := noise(1, 5000)
	u := uploadOf("host-1", "run-1", archive)
	first, err := put(one, u, archive)
	fixture.Must(t, err)
	fixture.Must(t, first.Covers(u))
	if first.Status != wire.Stored {
		t.Errorf("status: got %s, want %s", first.Status, wire.Stored)
	}
	for _, b := range []*Backend{one, other} {
		again, err := put(b, u, archive)
		fixture.Must(t, err)
		if again.Status != wire.AlreadyPresent || !again.ReceivedAt.Equal(first.ReceivedAt.Time) {
			t.Errorf("again: got %s of %v, want %s of %v", again.Status, again.ReceivedAt, wire.AlreadyPresent, first.ReceivedAt)
		}
		found, err := b.Stat(t.Context(), u.Key)
		fixture.Must(t, err)
		fixture.Must(t, found.Covers(u))
	}
	if rows := indexOf(t, in); len(rows) != 1 || rows[0].SHA256 != u.Digest {
		t.Errorf("rows: got %v, want one of %s", rows, u.Digest)
	}
	checkCustody(t, in, []wire.Receipt{first})
}

// A refusal that does not need the body comes before the body.
func TestAConflictIsRefusedBeforeTheBody(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	archive := noise(1, 5000)
	u := uploadOf("host-1", "run-1", archive)
	_, err := put(b, u, archive)
	fixture.Must(t, err)
	other := uploadOf("host-1", "run-1", noise(2, 5000))
	for name, send := range map[string]func() error{
		"put":      func() error { _, err := b.Put(t.Context(), other, errReader{errors.New("body was read")}); return err },
		"announce": func() error { _, _, err := b.Announce(t.Context(), other); return err },
	} {
		problem, ok := errors.AsType[*wire.Problem](send())
		if !ok || problem.Code != wire.Conflict || problem.Stored != u.Digest {
			t.Errorf("%s: got %v, want a conflict with %s", name, problem, u.Digest)
		}
	}
}

func TestOtherBytesThanAnnouncedAreNotStored(t *testing.T) {
	for _, size := range []int{5000, wire.MinAnnounced + 1} {
		in := newBucket()
		b := openBackend(t, in)
		archive := noise(1, size)
		u := uploadOf("host-1", "run-1", archive)
		u.Digest = digest.Digest{1}
		if _, err := put(b, u, archive); !errors.Is(err, wire.DigestMismatch) {
			t.Errorf("%d bytes: got %v, want %s", size, err, wire.DigestMismatch)
		}
		_, at, err := b.Announce(t.Context(), u)
		fixture.Must(t, err)
		_, _, err = b.AppendPiece(t.Context(), "host-1", at.ID, wire.Piece{Size: u.Size, Last: true}, bytes.NewReader(archive))
		if !errors.Is(err, wire.DigestMismatch) {
			t.Errorf("%d bytes in a piece: got %v, want %s", size, err, wire.DigestMismatch)
		}
		if got := names(t, in, ""); !slices.Equal(got, []string{identityName}) {
			t.Errorf("%d bytes: objects: got %q, want only %s", size, got, identityName)
		}
	}
}

func TestOfTwoRecordingsOneIsStored(t *testing.T) {
	in := newBucket()
	receivers := []*Backend{openBackend(t, in), openBackend(t, in), openBackend(t, in)}
	var mu sync.Mutex
	var acked []wire.Receipt
	const runs = 20
	for run := range runs {
		var g sync.WaitGroup
		for i := range 6 {
			g.Go(func() {
				archive := noise(uint64(100*run+i%2), 3000)
				u := uploadOf("host-1", fmt.Sprintf("run-%d", run), archive)
				got, err := put(receivers[i%3], u, archive)
				if err != nil && !errors.Is(err, wire.Conflict) {
					t.Errorf("%s: %v", u.Key, err)
				}
				if err == nil {
					mu.Lock()
					acked = append(acked, got)
					mu.Unlock()
				}
			})
		}
		g.Wait()
	}
	digests := map[string]digest.Digest{}
	for _, receipt := range acked {
		if of, known := digests[string(receipt.Episode)]; known && of != receipt.Digest {
			t.Errorf("%s was acknowledged with two digests", receipt.Episode)
		}
		digests[string(receipt.Episode)] = receipt.Digest
	}
	if len(digests) != runs {
		t.Errorf("episodes: got %d, want %d", len(digests), runs)
	}
	checkCustody(t, in, acked)
}

func TestAnUploadContinuesAtAnotherReceiver(t *testing.T) {
	archive := noise(3, 8*testPart+12345)
	for _, piece := range []int{len(archive), testPart, 10_000, testPart + 1, 2*testPart - 1} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			in := newBucket()
			u := uploadOf("host-1", "run-1", archive)
			got := putPieces(t, []*Backend{openBackend(t, in), openBackend(t, in)}, u, archive, piece)
			fixture.Must(t, got.Covers(u))
			checkCustody(t, in, []wire.Receipt{got})
			if left := names(t, in, uploadsPrefix); len(left) > 0 {
				t.Errorf("left of the upload: %q", left)
			}
			if n := len(in.Uploads()); n > 0 {
				t.Errorf("multipart uploads: got %d, want 0", n)
			}
		})
	}
}

// A sender that is connected twice, to two receivers, does not mix the two.
func TestTwoReceiversReceiveOneUpload(t *testing.T) {
	in := newBucket()
	receivers := []*Backend{openBackend(t, in), openBackend(t, in)}
	archive := noise(4, 6*testPart+5)
	u := uploadOf("host-1", "run-1", archive)
	var mu sync.Mutex
	var acked []wire.Receipt
	var g sync.WaitGroup
	for _, b := range receivers {
		g.Go(func() {
			for range 20 {
				got, at, err := b.Announce(t.Context(), u)
				if err == nil && at.ID != "" {
					got, _, err = b.AppendPiece(t.Context(), "host-1", at.ID, wire.Piece{Offset: at.Offset, Size: u.Size - at.Offset, Last: true}, bytes.NewReader(archive[at.Offset:]))
				}
				if err == nil {
					mu.Lock()
					acked = append(acked, got)
					mu.Unlock()
					return
				}
				if !errors.Is(err, wire.NoUpload) && !errors.Is(err, wire.OffsetMismatch) {
					t.Errorf("got %v", err)
					return
				}
			}
			t.Error("20 attempts were not enough")
		})
	}
	g.Wait()
	if len(acked) != 2 {
		t.Errorf("receipts: got %d, want 2", len(acked))
	}
	checkCustody(t, in, acked)
}

func TestACorruptArchiveIsRepaired(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	archive := noise(5, 5000)
	u := uploadOf("host-1", "run-1", archive)
	first, err := put(b, u, archive)
	fixture.Must(t, err)
	bad := noise(6, 5000)
	fixture.Must(t, in.Put(t.Context(), archiveName(u.Key, u.Digest, 1), bytes.NewReader(bad), 5000, sha256.Sum256(bad)))
	entries, err := b.Inventory(t.Context(), "host-1", []wire.InventoryQuery{{Episode: "run-1", Digest: u.Digest}}, true)
	fixture.Must(t, err)
	if entries[0].State != wire.StateDamaged {
		t.Errorf("state: got %s, want %s", entries[0].State, wire.StateDamaged)
	}
	repaired, err := put(b, u, archive)
	fixture.Must(t, err)
	if repaired.Status != wire.Stored || repaired.ReceivedAt.Before(first.ReceivedAt.Time) {
		t.Errorf("got %v, want it stored", repaired)
	}
	again, err := put(openBackend(t, in), u, archive)
	fixture.Must(t, err)
	if again.Status != wire.AlreadyPresent || !again.ReceivedAt.Equal(repaired.ReceivedAt.Time) {
		t.Errorf("again: got %v, want the receipt of %v", again, repaired.ReceivedAt)
	}
	rows := indexOf(t, in)
	if len(rows) != 2 || rows[0].Repaired || !rows[1].Repaired {
		t.Errorf("rows: got %v, want a second one that is repaired", rows)
	}
	if kept, err := in.Stat(t.Context(), archiveName(u.Key, u.Digest, 1)); err != nil || kept.Size != 5000 {
		t.Errorf("the corrupt archive: got %v, %v, want it kept", kept, err)
	}
}

func TestInventoryNamesWhatIsStored(t *testing.T) {
	b := openBackend(t, newBucket())
	archive := noise(7, 3000)
	u := uploadOf("host-1", "run-1", archive)
	_, err := put(b, u, archive)
	fixture.Must(t, err)
	got, err := b.Inventory(t.Context(), "host-1", []wire.InventoryQuery{
		{Episode: "run-1", Digest: u.Digest}, {Episode: "run-1", Digest: digest.Digest{9}}, {Episode: "run-2", Digest: u.Digest},
	}, false)
	fixture.Must(t, err)
	var states []wire.State
	for _, e := range got {
		states = append(states, e.State)
	}
	if want := []wire.State{wire.Present, wire.Divergent, wire.Absent}; !slices.Equal(states, want) {
		t.Errorf("states: got %v, want %v", states, want)
	}
}

// What one receiver has told a host is known to the others.
func TestAllReceiversAreOneStore(t *testing.T) {
	in := newBucket()
	one, other := openBackend(t, in), openBackend(t, in)
	archive := noise(8, 3000)
	for i := range 3 {
		_, err := put(one, uploadOf("host-1", fmt.Sprintf("run-%d", i), archive), archive)
		fixture.Must(t, err)
	}
	told, err := one.Store()
	fixture.Must(t, err)
	fixture.Must(t, told.Validate())
	has, err := other.HasStore(told)
	now, storeErr := other.Store()
	if !has || err != nil || storeErr != nil || now.IndexBytes < told.IndexBytes {
		t.Errorf("got %v, %v, and an index of %d, want at least %d", has, err, now.IndexBytes, told.IndexBytes)
	}
	for name, wrong := range map[string]wire.Store{
		"another id":     {ID: "other", IndexBytes: told.IndexBytes, IndexTail: told.IndexTail},
		"a longer index": {ID: told.ID, IndexBytes: 4, IndexTail: "b4" + strings.TrimPrefix(told.IndexTail, "b3")},
		"another index":  {ID: told.ID, IndexBytes: 2, IndexTail: "b2" + strings.TrimPrefix(told.IndexTail, "b3")},
		"no batch":       {ID: told.ID, IndexBytes: 3, IndexTail: "x"},
	} {
		if has, err := other.HasStore(wrong); has || err != nil {
			t.Errorf("%s: got %v, %v, want false", name, has, err)
		}
	}
}

func TestAPrefixOfSomebodyElseIsRefused(t *testing.T) {
	in := newBucket()
	fixture.Must(t, in.Put(t.Context(), "holiday.jpg", strings.NewReader("x"), 1, sha256.Sum256([]byte("x"))))
	_, err := Open(t.Context(), in, Options{})
	if err == nil || !strings.Contains(err.Error(), `"holiday.jpg"`) || !strings.Contains(err.Error(), "store.s3.prefix") {
		t.Errorf("got %v, want the object and the key named", err)
	}
}

// Receivers may start at once in an empty bucket.
func TestReceiversThatStartAtOnceShareAStore(t *testing.T) {
	in := newBucket()
	started := false
	in.Fault = func(op, name string) buckettest.Fault {
		if op == buckettest.OpList && name == "" && !started {
			started = true
			b := openBackend(t, in) // between the other's look for the identity and its list
			archive := noise(1, 2000)
			_, err := put(b, uploadOf("host-1", "run-1", archive), archive)
			fixture.Must(t, err)
		}
		return buckettest.None
	}
	b := openBackend(t, in)
	if got, err := b.Stat(t.Context(), uploadOf("host-1", "run-1", nil).Key); err != nil || !started {
		t.Errorf("got %v, %v, want what the other receiver stored", got, err)
	}
}

func TestExpiredUploadsAreRemoved(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	archive := noise(9, 6*testPart)
	u := uploadOf("host-1", "run-1", archive)
	_, at, err := b.Announce(t.Context(), u)
	fixture.Must(t, err)
	b.AppendPiece(t.Context(), "host-1", at.ID, wire.Piece{Size: u.Size, Last: true}, bytes.NewReader(archive[:testPart+5]))
	if len(names(t, in, uploadsPrefix)) < 2 || len(in.Uploads()) != 1 {
		t.Fatalf("the upload: got %q and %d multipart uploads", names(t, in, uploadsPrefix), len(in.Uploads()))
	}
	fixture.Must(t, b.expireUploads(t.Context(), time.Now().Add(-time.Hour)))
	if len(names(t, in, uploadsPrefix)) < 2 {
		t.Error("an upload of just now was removed")
	}
	fixture.Must(t, openBackend(t, in).expireUploads(t.Context(), time.Now().Add(time.Second)))
	if left := names(t, in, uploadsPrefix); len(left) > 0 || len(in.Uploads()) != 0 {
		t.Errorf("left: %q and %d multipart uploads", left, len(in.Uploads()))
	}
}

// TestAReceiverReadsBackNoRowOfItsOwn: its copy of the index has them from memory. The only request is for
// what others may have appended.
func TestAReceiverReadsBackNoRowOfItsOwn(t *testing.T) {
	in := newBucket()
	data, err := durable.Open(t.TempDir())
	fixture.Must(t, err)
	defer data.Close()
	b, err := Open(t.Context(), in, Options{
		Limits: wire.Limits{MaxSize: 1 << 30, Uploads: 4, UploadsPerHost: 4}, MaxUploadWait: 10 * time.Second,
		Data: data, SpoolDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	fixture.Must(t, err)
	defer b.Close()
	fixture.Must(t, b.CopyIndex(t.Context()))
	archive := noise(1, 5000)
	_, err = put(b, uploadOf("host-1", "run-1", archive), archive)
	fixture.Must(t, err)
	before := in.Requests()[buckettest.OpOpen]
	fixture.Must(t, b.CopyIndex(t.Context()))
	if n := in.Requests()[buckettest.OpOpen] - before; n != 1 {
		t.Errorf("read %d objects, want 1", n)
	}
	if n := b.copy.CountArchives("host-1"); n != 1 {
		t.Errorf("the copy has %d archives, want 1", n)
	}
}
