package s3backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// openFaulty opens the backend of a receiver, whose start may fail: then it starts again.
func openFaulty(t *testing.T, in *buckettest.Memory, spool string) *Backend {
	t.Helper()
	for range 20 {
		b, err := Open(t.Context(), in, Options{
			Limits:        wire.Limits{MaxSize: 1 << 30, Uploads: 64, UploadsPerHost: 16, UnfinishedAge: time.Hour},
			MaxUploadWait: 10 * time.Second, SpoolDir: spool, Log: slog.New(slog.DiscardHandler),
		})
		if err == nil {
			b.minPart = testPart
			return b
		}
		if !errors.Is(err, buckettest.ErrLost) && !errors.Is(err, bucket.ErrFull) {
			t.Fatal(err)
		}
	}
	t.Fatal("all starts failed")
	return nil
}

// episodes of a day: small ones, one of several parts, a resent one, and two recordings of one name.
func dayOfUploads() (uploads []wire.Upload, archives [][]byte) {
	add := func(name string, archive []byte) {
		uploads, archives = append(uploads, uploadOf("host-1", name, archive)), append(archives, archive)
	}
	add("small-1", noise(1, 2000))
	add("large", noise(2, 5*testPart+100))
	add("small-2", noise(3, 2000))
	add("small-1", noise(1, 2000)) // again
	add("small-2", noise(4, 2000)) // another recording: a conflict
	return uploads, archives
}

// send sends an archive as a shipper does, and tries again at the other receiver.
func send(t *testing.T, receivers []*Backend, u wire.Upload, archive []byte) (wire.Receipt, error) {
	t.Helper()
	var got wire.Receipt
	var err error
	for attempt := range 12 {
		b := receivers[attempt%len(receivers)]
		if got, err = sendOnce(t.Context(), b, u, archive); err == nil || errors.Is(err, wire.Conflict) {
			return got, err
		}
		time.Sleep(time.Second) // of the test's clock
	}
	return got, err
}

func sendOnce(ctx context.Context, b *Backend, u wire.Upload, archive []byte) (wire.Receipt, error) {
	if u.Size < wire.MinAnnounced {
		return b.Put(ctx, u, bytes.NewReader(archive))
	}
	got, at, err := b.Announce(ctx, u)
	if err != nil || at.ID == "" {
		return got, err
	}
	// A connection that breaks within a part.
	if middle := u.Size - testPart; at.Offset < middle {
		got, _, err := b.AppendPiece(ctx, u.Key.Host, at.ID, wire.Piece{Offset: at.Offset, Size: u.Size - at.Offset, Last: true},
			bytes.NewReader(archive[at.Offset:middle]))
		return got, err // a receipt if another request has stored it
	}
	got, _, err = b.AppendPiece(ctx, u.Key.Host, at.ID, wire.Piece{Offset: at.Offset, Size: u.Size - at.Offset, Last: true},
		bytes.NewReader(archive[at.Offset:]))
	return got, err
}

// day sends the uploads of a day to two receivers, in whose bucket operation n has an outcome. It
// returns the number of operations. A crash stops the receivers after the upload. What is late comes
// a number of operations later, or after everything else.
func day(t *testing.T, n int, outcome buckettest.Fault, crash bool, delay int, spool string) int {
	in := newBucket()
	stop := make(chan struct{}, 1)
	var operations atomic.Int64
	in.Fault = func(string, string) buckettest.Fault {
		i := int(operations.Add(1))
		if delay > 0 && i == n+delay {
			in.Release()
		}
		if i != n {
			return buckettest.None
		}
		if crash {
			stop <- struct{}{}
		}
		return outcome
	}
	receivers := []*Backend{openFaulty(t, in, spool), openFaulty(t, in, spool)}
	uploads, archives := dayOfUploads()
	var acked []wire.Receipt
	digests := map[string]digest.Digest{}
	for i, u := range uploads {
		got, err := send(t, receivers, u, archives[i])
		select {
		case <-stop:
			for i, b := range receivers {
				fixture.Must(t, b.Close())
				receivers[i] = openFaulty(t, in, spool)
			}
		default:
		}
		if errors.Is(err, wire.Conflict) && digests[string(u.Key.Name)] == (digest.Digest{}) {
			t.Errorf("operation %d: %s: a conflict without another archive", n, u.Key)
		}
		if err != nil && !errors.Is(err, wire.Conflict) {
			t.Errorf("operation %d: %s: %v", n, u.Key, err)
		}
		if err != nil {
			continue
		}
		if of, known := digests[string(u.Key.Name)]; known && of != got.Digest {
			t.Errorf("operation %d: %s was acknowledged with two digests", n, u.Key)
		}
		digests[string(u.Key.Name)] = got.Digest
		acked = append(acked, got)
	}
	count := int(operations.Swap(1 << 40)) // no further fault
	in.Release()
	for _, b := range receivers {
		fixture.Must(t, b.Close())
	}
	if len(digests) != 3 {
		t.Errorf("operation %d: acknowledged %d episodes, want 3", n, len(digests))
	}
	checkCustody(t, in, acked)
	return count
}

// Each operation of a day fails once, in each way: nothing is lost, nothing is there twice.
func TestEachOperationFailsOnce(t *testing.T) {
	spool := t.TempDir()
	for _, tt := range []struct {
		name    string
		outcome buckettest.Fault
		crash   bool
		delay   int
	}{
		{"lost before", buckettest.LostBefore, false, 0},
		{"answer lost", buckettest.LostAfter, false, 0},
		{"late", buckettest.Late, false, 0},
		{"late by one", buckettest.Late, false, 1},
		{"late by three", buckettest.Late, false, 3},
		{"late by nine", buckettest.Late, false, 9},
		{"full", buckettest.Full, false, 0},
		{"lost before, crash", buckettest.LostBefore, true, 0},
		{"answer lost, crash", buckettest.LostAfter, true, 0},
		{"late, crash", buckettest.Late, true, 0},
		{"crash", buckettest.None, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n, operations := 1, 1; n <= operations; n++ {
				synctest.Test(t, func(t *testing.T) { operations = day(t, n, tt.outcome, tt.crash, tt.delay, spool) })
				if t.Failed() {
					t.Fatalf("operation %d of %d", n, operations)
				}
			}
		})
	}
}

func TestASmallEpisodeTakesFourRequests(t *testing.T) {
	in := newBucket()
	requests := func() (sum int) {
		for _, n := range in.Requests() {
			sum += n
		}
		return sum
	}
	b := openBackend(t, in)
	const episodes = 20
	before := requests()
	for i := range episodes {
		archive := noise(uint64(i), 3000)
		_, err := put(b, uploadOf("host-1", fmt.Sprintf("run-%d", i), archive), archive)
		fixture.Must(t, err)
	}
	if got := requests() - before; got > 4*episodes {
		t.Errorf("got %d requests for %d episodes, want at most 4 for each", got, episodes)
	}
}

// A row that never came to be is not acknowledged, and its commit is found by the next attempt.
func TestNoRowNoReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := true
		in := newBucket()
		in.Fault = func(op, name string) buckettest.Fault {
			if failing && op == buckettest.OpCreate && name == batchlog.Name(1) {
				return buckettest.LostBefore
			}
			return buckettest.None
		}
		b := openFaulty(t, in, t.TempDir())
		archive := noise(1, 2000)
		u := uploadOf("host-1", "run-1", archive)
		if got, err := put(b, u, archive); err == nil {
			t.Errorf("got the receipt %v without a row", got)
		}
		failing = false
		got, err := put(b, u, archive)
		fixture.Must(t, err)
		if got.Status != wire.AlreadyPresent {
			t.Errorf("status: got %s, want %s", got.Status, wire.AlreadyPresent)
		}
		checkCustody(t, in, []wire.Receipt{got})
		fixture.Must(t, b.Close())
		if _, err := in.Stat(t.Context(), batchlog.Name(2)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a second batch: got %v", err)
		}
	})
}
