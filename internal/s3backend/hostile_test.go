package s3backend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

func TestAHostHasItsPartOfTheBucket(t *testing.T) {
	in := newBucket()
	b, err := Open(t.Context(), in, Options{
		Limits:    wire.Limits{MaxSize: 1 << 30, Uploads: 4, UploadsPerHost: 4},
		HostBytes: 30_000, MaxUploadWait: time.Second, SpoolDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	fixture.Must(t, err)
	defer b.Close()
	stored := 0
	for i := range 10 {
		archive := noise(uint64(i), 8_000)
		_, err := put(b, uploadOf("host-1", fmt.Sprintf("run-%d", i), archive), archive)
		if err == nil {
			stored++
		} else if !errors.Is(err, wire.Full) {
			t.Fatalf("run-%d: got %v, want %s", i, err, wire.Full)
		}
	}
	if stored < 2 || stored > 3 {
		t.Errorf("stored %d archives of 8 kB within 30 kB, want 2 or 3", stored)
	}
	archive := noise(1, 8_000)
	if _, err := put(b, uploadOf("host-2", "run-1", archive), archive); err != nil {
		t.Errorf("another host: %v", err)
	}
}

// All receivers count what a host has stored at any of them, across a start. An archive that was quarantined
// does not count: it is kept for a fault of the object store.
func TestReceiversShareTheQuotaOfAHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		open := func() *Backend {
			b, err := Open(t.Context(), in, Options{
				Limits:    wire.Limits{MaxSize: 1 << 30, Uploads: 4, UploadsPerHost: 4},
				HostBytes: 50_000, MaxUploadWait: time.Second, SpoolDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
			})
			fixture.Must(t, err)
			return b
		}
		receivers := []*Backend{open(), open()}
		var last wire.Upload
		fill := func() (stored int) {
			for i := range 20 {
				archive := noise(uint64(i), 8_000)
				u := uploadOf("host-1", fmt.Sprintf("run-%d", i), archive)
				got, err := put(receivers[i%2], u, archive)
				if err == nil && got.Status == wire.Stored {
					stored, last = stored+1, u
				} else if err != nil && !errors.Is(err, wire.Full) {
					t.Fatalf("run-%d: got %v, want %s", i, err, wire.Full)
				}
				time.Sleep(2 * time.Minute)
			}
			return stored
		}
		if got := fill(); got < 5 || got > 6 {
			t.Errorf("two receivers stored %d archives of 8 kB within 50 kB, want 5 or 6", got)
		}
		fixture.Must(t, errors.Join(receivers[0].Close(), receivers[1].Close()))
		receivers = []*Backend{open(), open()}
		if got := fill(); got != 0 {
			t.Errorf("after a start two receivers stored %d more archives, want 0", got)
		}
		c, err := receivers[0].newestCommit(t.Context(), last.Key)
		fixture.Must(t, err)
		fixture.Must(t, receivers[0].quarantineArchive(t.Context(), c, errCorrupt))
		if got := fill(); got != 1 {
			t.Errorf("stored %d archives instead of the one that is quarantined, want 1", got)
		}
		fixture.Must(t, errors.Join(receivers[0].Close(), receivers[1].Close()))
	})
}

// A host that is connected to two receivers may send the second one a part with other bytes and the same
// ETag, which is an MD5.
func TestPartsThatWereReplacedAreNotCommitted(t *testing.T) {
	in := newBucket()
	in.Breach = buckettest.IgnorePartETags
	b := openBackend(t, in)
	archive := noise(1, 3*testPart)
	u := uploadOf("host-1", "run-1", archive)
	replaced := false
	in.Fault = func(op, name string) buckettest.Fault {
		if op == buckettest.OpFinish && !replaced {
			replaced = true
			other := noise(2, testPart)
			_, err := in.PutPart(t.Context(), name, in.Uploads()[0], 1, bytes.NewReader(other), testPart, sha256.Sum256(other))
			fixture.Must(t, err)
		}
		return buckettest.None
	}
	_, at, err := b.Announce(t.Context(), u)
	fixture.Must(t, err)
	got, _, err := b.AppendPiece(t.Context(), "host-1", at.ID, wire.Piece{Size: u.Size, Last: true}, bytes.NewReader(archive))
	if !errors.Is(err, wire.Damaged) || !replaced {
		t.Errorf("got %v, %v, want %s", got, err, wire.Damaged)
	}
	if commits := names(t, in, commitsPrefix); len(commits) > 0 {
		t.Errorf("commits: got %q, want none", commits)
	}
}

func TestUnfinishedUploadsOfAHostAreBounded(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	most := b.sessions.MaxPerHost()
	for i := range most + 10 {
		archive := noise(uint64(i), 2*testPart)
		u := uploadOf("host-1", fmt.Sprintf("run-%d", i), archive)
		_, at, err := b.Announce(t.Context(), u)
		fixture.Must(t, err)
		for n := range int64(3) { // each breaks off a byte later
			_, _, err := b.AppendPiece(t.Context(), "host-1", at.ID, wire.Piece{Offset: n * 100, Size: u.Size - n*100, Last: true}, bytes.NewReader(archive[n*100:n*100+100]))
			if err == nil {
				t.Fatal("a piece that breaks off was taken for a whole one")
			}
		}
	}
	dirs, tails := map[string]bool{}, 0
	for _, name := range names(t, in, uploadsPrefix) {
		dirs[name[:strings.LastIndexByte(name, '/')]] = true
		if strings.Contains(name, "/tail-") {
			tails++
		}
	}
	if len(dirs) > most || tails > 2*most {
		t.Errorf("got %d uploads with %d tails, want at most %d with two each", len(dirs), tails, most)
	}
}

func TestOnlyUploadsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		for _, name := range []string{"uploads/marker", "uploads/host-1/notes.txt", "uploads/host-1/short/x"} {
			fixture.Must(t, in.Put(t.Context(), name, strings.NewReader("x"), 1, sha256.Sum256([]byte("x"))))
		}
		fixture.Must(t, in.Put(t.Context(), identityName, strings.NewReader(`{"layout":1,"id":"STORE"}`), 25, sha256.Sum256([]byte(`{"layout":1,"id":"STORE"}`))))
		time.Sleep(100 * time.Hour)
		b := openFaulty(t, in, t.TempDir())
		archive := noise(1, 3*testPart)
		u := uploadOf("host-1", "run-1", archive)
		_, at, err := b.Announce(t.Context(), u)
		fixture.Must(t, err)
		b.AppendPiece(t.Context(), "host-1", at.ID, wire.Piece{Size: u.Size, Last: true}, bytes.NewReader(archive[:testPart+5]))
		before := len(names(t, in, uploadsPrefix))
		fixture.Must(t, b.removeExpired(t.Context(), time.Now().Add(-time.Hour)))
		if got := len(names(t, in, uploadsPrefix)); got != before {
			t.Errorf("objects: got %d, want %d", got, before)
		}
		fixture.Must(t, b.removeExpired(t.Context(), time.Now().Add(time.Hour)))
		if got := len(names(t, in, uploadsPrefix)); got != before {
			t.Errorf("an upload that this receiver holds was removed: %d objects, want %d", got, before)
		}
		fixture.Must(t, b.Close())
	})
}

// packed returns an archive that can be decoded: one without members.
func packed(t *testing.T) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	fixture.Must(t, err)
	return enc.EncodeAll(make([]byte, 1024), nil)
}

func TestVerifiedIsReadAndDecoded(t *testing.T) {
	in := newBucket()
	one, other := openBackend(t, in), openBackend(t, in)
	archive := packed(t)
	u := uploadOf("host-1", "run-1", archive)
	_, err := put(one, u, archive)
	fixture.Must(t, err)
	ask := func(b *Backend, readBack bool) wire.InventoryEntry {
		t.Helper()
		entries, err := b.Inventory(t.Context(), "host-1", []wire.InventoryQuery{{Episode: "run-1", Digest: u.Digest}}, readBack)
		fixture.Must(t, err)
		return entries[0]
	}
	if e := ask(one, false); e.VerifiedAt != nil {
		t.Errorf("before: got %v, want it not verified", e)
	}
	if e := ask(one, true); e.VerifiedAt == nil || e.Contents == nil || e.State != wire.Present {
		t.Errorf("read back: got %+v, want it verified", e)
	}
	if e := ask(other, false); e.VerifiedAt == nil || e.Contents == nil {
		t.Errorf("another receiver: got %+v, want it verified", e)
	}
	bad := noise(1, len(archive))
	fixture.Must(t, in.Put(t.Context(), archiveName(u.Key, u.Digest, 1), bytes.NewReader(bad), int64(len(bad)), sha256.Sum256(bad)))
	if e := ask(other, false); e.VerifiedAt != nil {
		t.Errorf("another object: got %+v, want it not verified", e)
	}
	fixture.Must(t, in.Remove(t.Context(), archiveName(u.Key, u.Digest, 1)))
	if e := ask(other, false); e.State != wire.Absent {
		t.Errorf("a lost archive: got %s, want %s", e.State, wire.Absent)
	}
}

func TestOneOddCommitLeavesTheOtherEntries(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	archive := noise(1, 2000)
	u := uploadOf("host-1", "run-1", archive)
	_, err := put(b, u, archive)
	fixture.Must(t, err)
	odd := episode.Key{Host: "host-1", Name: "run-2"}
	fixture.Must(t, in.Put(t.Context(), commitName(odd, 1), strings.NewReader("{}"), 2, sha256.Sum256([]byte("{}"))))
	entries, err := b.Inventory(t.Context(), "host-1", []wire.InventoryQuery{{Episode: "run-2", Digest: u.Digest}, {Episode: "run-1", Digest: u.Digest}}, false)
	fixture.Must(t, err)
	if !entries[0].Unreadable || entries[1].State != wire.Present {
		t.Errorf("got %+v, want one unreadable and one present", entries)
	}
}

// An archive that takes longer to read than its sender waits is acknowledged at the next attempt.
func TestAReadingContinuesWithoutItsSender(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	archive := noise(1, 5000)
	u := uploadOf("host-1", "run-1", archive)
	_, err := put(b, u, archive)
	fixture.Must(t, err)
	reads := 0
	ctx, cancel := context.WithCancel(t.Context())
	in.Fault = func(op, name string) buckettest.Fault {
		if op == buckettest.OpOpen && strings.HasPrefix(name, episodesPrefix) {
			reads++
			if reads == 1 {
				cancel() // the sender gives up
			}
		}
		return buckettest.None
	}
	b.Put(ctx, u, bytes.NewReader(archive))
	if got, err := put(b, u, archive); err != nil || got.Status != wire.AlreadyPresent || reads != 1 {
		t.Errorf("got %v, %v after %d readings, want the receipt after one", got, err, reads)
	}
}

func TestASuccessOfAnotherRequestIsReadBack(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	archive := noise(1, 5000)
	u := uploadOf("host-1", "run-1", archive)
	// The winner's archive is damaged under its name.
	bad := noise(2, 5000)
	name := archiveDir(u.Key) + u.Digest.String() + ".WINNER.tar.zst"
	fixture.Must(t, in.Put(t.Context(), name, bytes.NewReader(bad), 5000, sha256.Sum256(bad)))
	raced := false
	in.Fault = func(op, object string) buckettest.Fault {
		if op == buckettest.OpPut && strings.HasPrefix(object, episodesPrefix) && !raced {
			raced = true
			c := commit{generation: 1, object: name}
			c.row.Key, c.row.SHA256, c.row.Size, c.row.ReceivedAt = u.Key, u.Digest, u.Size, time.Now()
			fixture.Must(t, b.createCommit(t.Context(), c))
		}
		return buckettest.None
	}
	if got, err := put(b, u, archive); !errors.Is(err, wire.Damaged) {
		t.Errorf("got %v, %v, want %s", got, err, wire.Damaged)
	}
	got, err := put(b, u, archive)
	fixture.Must(t, err)
	checkCustodyOf(t, in, got)
}

// checkCustodyOf checks that the newest commit of a receipt has its archive.
func checkCustodyOf(t *testing.T, in bucket.Bucket, got wire.Receipt) {
	t.Helper()
	b := &Backend{bucket: in}
	c, err := b.newestCommit(t.Context(), episode.Key{Host: got.Host, Name: got.Episode})
	fixture.Must(t, err)
	r, _, err := in.Open(t.Context(), c.object)
	fixture.Must(t, err)
	defer r.Close()
	if d, _, err := digest.Of(r); err != nil || d != got.Digest {
		t.Errorf("the archive: got %s, %v, want %s", d, err, got.Digest)
	}
}
