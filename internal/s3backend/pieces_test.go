package s3backend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/bits"
	"strings"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// countedBucket counts the bytes of archives that are moved, in whatever objects. It does not count small
// objects about an archive, of which each request needs a few.
type countedBucket struct {
	bucket.Bucket
	bytes int64
}

func (c *countedBucket) count(name string, r io.Reader) io.Reader {
	if strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".jsonl") {
		return r
	}
	return &countedReader{r, func(n int) { c.bytes += int64(n) }}
}

func (c *countedBucket) Put(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	return c.Bucket.Put(ctx, name, c.count(name, body), size, d)
}

func (c *countedBucket) PutPart(ctx context.Context, name, id string, number int, body io.Reader, size int64, d digest.Digest) (bucket.Part, error) {
	return c.Bucket.PutPart(ctx, name, id, number, c.count(name, body), size, d)
}

func (c *countedBucket) Open(ctx context.Context, name string) (io.ReadCloser, bucket.Info, error) {
	r, info, err := c.Bucket.Open(ctx, name)
	if err != nil {
		return nil, info, err
	}
	return struct {
		io.Reader
		io.Closer
	}{c.count(name, r), r}, info, nil
}

// However small the pieces are in which a host sends an archive, and at however many receivers, these move
// only some times as much to and from the object store.
func TestSmallPiecesDoNotMoveWholeParts(t *testing.T) {
	const part = 256
	for name, tt := range map[string]struct{ piece, receivers int }{
		"bytes":                  {1, 1},
		"bytes at two receivers": {1, 2},
		"a link that breaks":     {part / 8, 2},
		"pieces that end a part": {part, 2},
	} {
		t.Run(name, func(t *testing.T) {
			in := &countedBucket{Bucket: &buckettest.Memory{MinPart: part}}
			var receivers []*Backend
			for range tt.receivers {
				b := openBackend(t, in)
				b.minPart = part
				receivers = append(receivers, b)
			}
			archive := noise(1, 2*part+part/2+1)
			u := uploadOf("host-1", "run-1", archive)
			got := putPieces(t, receivers, u, archive, tt.piece)
			fixture.Must(t, got.Covers(u))
			factor := float64(in.bytes) / float64(len(archive))
			// Once in a part, once read back, with meta.json twice; once put and read in each of its tails,
			// which double in length.
			limit := float64(3 + 2*bits.Len(uint(part/tt.piece)))
			t.Logf("%.1f bytes for each byte of the archive, at most %.0f", factor, limit)
			if factor > limit {
				t.Errorf("moved %.1f bytes for each byte of the archive, want at most %.1f", factor, limit)
			}
			if left := names(t, in, uploadsPrefix); len(left) > 0 {
				t.Errorf("left of the upload: %q", left)
			}
		})
	}
}

// A receiver whose tails another one has joined meanwhile lets the host announce the upload again.
func TestTailsOfAnotherReceiverEndAPiece(t *testing.T) {
	in := newBucket()
	one, other := openBackend(t, in), openBackend(t, in)
	archive := noise(1, 2*testPart)
	u := uploadOf("host-1", "run-1", archive)
	send := func(b *Backend, from, to int64) (wire.Receipt, error) {
		p := wire.Piece{Offset: from, Size: to - from, Last: to == u.Size}
		got, _, err := b.AppendPiece(t.Context(), "host-1", uploadID(u), p, bytes.NewReader(archive[from:to]))
		return got, err
	}
	announce := func(b *Backend, want int64) {
		t.Helper()
		_, at, err := b.Announce(t.Context(), u)
		if err != nil || at.Offset != want {
			t.Fatalf("announced: got offset %d, %v, want %d", at.Offset, err, want)
		}
	}
	announce(one, 0)
	_, err := send(one, 0, 10)
	fixture.Must(t, err)
	announce(other, 10)
	_, err = send(other, 10, 30)
	fixture.Must(t, err)
	if _, err := send(one, 10, u.Size); !errors.Is(err, wire.NoUpload) {
		t.Errorf("a tail is not there any more: got %v, want %s", err, wire.NoUpload)
	}
	announce(one, 30)
	got, err := send(one, 30, u.Size)
	fixture.Must(t, err)
	checkCustody(t, in, []wire.Receipt{got})
}

// TestUnusedTailsAreRemoved: a host could let receivers leave any number of tails.
func TestUnusedTailsAreRemoved(t *testing.T) {
	in := newBucket()
	b := openBackend(t, in)
	u := uploadOf("host-1", "run-1", noise(1, 2*testPart))
	for i := range int64(maxTails + 1) {
		fixture.Must(t, in.Put(t.Context(), tailName(u, tail{i + 1, 1}), strings.NewReader("x"), 1, sha256.Sum256([]byte("x"))))
	}
	_, at, err := b.Announce(t.Context(), u)
	if left := names(t, in, uploadsPrefix); err != nil || at.Offset != 0 || len(left) > 0 {
		t.Errorf("got offset %d, %v, and the objects %q, want none", at.Offset, err, left)
	}
}

// A tail that leaves its part, or overlaps the parts, is not what a receiver has kept.
func TestTailsBeyondThePartAreNotUsed(t *testing.T) {
	u := uploadOf("host-1", "run-1", noise(1, 25))
	for _, tt := range []struct {
		partsEnd int64
		tails    []tail
		want     int64 // the offset
	}{
		{0, []tail{{0, 10}}, 10},
		{0, []tail{{0, 11}}, 0},
		{0, []tail{{0, 6}, {6, 4}}, 10},
		{0, []tail{{0, 6}, {6, 5}}, 6},
		{0, []tail{{0, 0}, {0, -1}}, 0},
		{10, []tail{{5, 5}, {0, 10}}, 10},
		{20, []tail{{20, 5}}, 25},
		{20, []tail{{20, 6}}, 20},
		{20, []tail{{20, 2}, {20, 3}, {23, 1}}, 24},
	} {
		var objects []string
		for _, t := range tt.tails {
			objects = append(objects, tailName(u, t))
		}
		p := &progress{partsEnd: tt.partsEnd}
		p.findTails(u, objects, 10)
		if p.offset != tt.want {
			t.Errorf("%v after byte %d: got offset %d, want %d", tt.tails, tt.partsEnd, p.offset, tt.want)
		}
	}
}

// TestTailsStayFew: a part has few tails, so that an announcement reads little.
func TestTailsStayFew(t *testing.T) {
	const partSize = 64 << 10
	const most = 17 // each is at least twice as long as the one after it
	for name, size := range map[string]func(end int64) int64{
		"bytes":     func(int64) int64 { return 1 },
		"shrinking": func(end int64) int64 { return max(1, (partSize-end)/100) },
		"mixed":     func(end int64) int64 { return 1 + end%7*end%1000 },
	} {
		p := &progress{}
		for p.offset < partSize {
			end := min(partSize, p.offset+size(p.offset))
			joined, kept := p.nextTail(end)
			p.tails, p.offset = append(p.tails[:kept:kept], joined), end
			if len(p.tails) > most {
				t.Fatalf("%s: got %d tails at byte %d, want at most %d", name, len(p.tails), end, most)
			}
		}
	}
}
