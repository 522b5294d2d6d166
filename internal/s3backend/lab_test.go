package s3backend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/wire"
)

// openBackend opens the backend of a receiver.
func openBackend(t testing.TB, in bucket.Bucket) *Backend {
	t.Helper()
	b, err := Open(t.Context(), in, Options{
		Limits:        wire.Limits{MaxSize: 1 << 30, Uploads: 64, UploadsPerHost: 16, UnfinishedAge: time.Hour},
		MaxUploadWait: 10 * time.Second,
		SpoolDir:      t.TempDir(),
		Log:           slog.New(slog.DiscardHandler),
	})
	fixture.Must(t, err)
	t.Cleanup(func() { b.Close() })
	b.minPart = testPart
	return b
}

// testPart is the size of parts.
const testPart = 64 << 10

// noise returns random bytes. The same seed yields the same bytes.
func noise(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(b)
	return b
}

// uploadOf describes an archive.
func uploadOf(host, name string, archive []byte) wire.Upload {
	return wire.Upload{
		Key:    episode.Key{Host: episode.Name(host), Name: episode.Name(name)},
		Digest: sha256.Sum256(archive), Size: int64(len(archive)),
	}
}

// put puts an archive in one request.
func put(b *Backend, u wire.Upload, archive []byte) (wire.Receipt, error) {
	return b.Put(context.Background(), u, bytes.NewReader(archive))
}

// putPieces announces an archive and sends it in pieces of the given size, each of which breaks off
// after it, at the receivers in turn.
func putPieces(t *testing.T, receivers []*Backend, u wire.Upload, archive []byte, piece int) wire.Receipt {
	t.Helper()
	for i := 0; ; i++ {
		b := receivers[i%len(receivers)]
		got, at, err := b.Announce(t.Context(), u)
		fixture.Must(t, err)
		if at.ID == "" {
			return got
		}
		if at.Offset != int64(min(i*piece, len(archive))) {
			t.Fatalf("announcement %d: got offset %d, want %d", i, at.Offset, i*piece)
		}
		left := archive[at.Offset:]
		body := io.Reader(bytes.NewReader(left))
		if len(left) > piece {
			body = io.MultiReader(bytes.NewReader(left[:piece]), errReader{io.ErrUnexpectedEOF})
		}
		got, _, err = b.AppendPiece(t.Context(), u.Key.Host, at.ID, wire.Piece{Offset: at.Offset, Size: int64(len(left)), Last: true}, body)
		if len(left) > piece {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("piece %d: got %v, want the broken connection", i, err)
			}
			continue
		}
		fixture.Must(t, err)
		return got
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// indexOf returns the rows of the index.
func indexOf(t testing.TB, in bucket.Bucket) []index.Row {
	t.Helper()
	var text strings.Builder
	_, err := batchlog.Export(t.Context(), in, 1, func(rows []byte) error {
		text.Write(rows)
		return nil
	})
	fixture.Must(t, err)
	var rows []index.Row
	for row, err := range index.ReadRows(strings.NewReader(text.String())) {
		fixture.Must(t, err)
		rows = append(rows, row)
	}
	return rows
}

// names returns the names of objects that begin with prefix.
func names(t testing.TB, in bucket.Bucket, prefix string) []string {
	t.Helper()
	var all []string
	for info, err := range in.List(t.Context(), prefix, "") {
		fixture.Must(t, err)
		all = append(all, info.Name)
	}
	return all
}

// checkCustody checks what must hold at any time: each commit has its archive with its digest, each
// acknowledged commit has one row, and each row has a commit. acked are the receipts.
func checkCustody(t testing.TB, in bucket.Bucket, acked []wire.Receipt) {
	t.Helper()
	rows := map[episode.Key]int{}
	for _, row := range indexOf(t, in) {
		rows[row.Key]++
	}
	commits := map[episode.Key]int{}
	for _, name := range names(t, in, commitsPrefix) {
		parts := strings.Split(strings.TrimSuffix(name, ".json"), "/")
		key := episode.Key{Host: episode.Name(parts[1]), Name: episode.Name(parts[2])}
		commits[key]++
		b := &Backend{bucket: in}
		c, err := b.readCommit(t.Context(), key, commits[key])
		fixture.Must(t, err)
		r, _, err := in.Open(t.Context(), c.object)
		if err != nil {
			t.Errorf("lost: %s has no archive: %v", name, err)
			continue
		}
		got, size, err := digest.Of(r)
		r.Close()
		if err != nil || got != c.row.SHA256 || size != c.row.Size {
			t.Errorf("%s: got an archive with the sha256 %s, %v, want %s", name, got, err, c.row.SHA256)
		}
	}
	for key, n := range rows {
		if n > commits[key] {
			t.Errorf("%v has %d rows and %d commits", key, n, commits[key])
		}
	}
	for _, receipt := range acked {
		key := episode.Key{Host: receipt.Host, Name: receipt.Episode}
		if commits[key] == 0 {
			t.Errorf("lost: %v was acknowledged and has no commit", key)
		}
		if rows[key] != commits[key] {
			t.Errorf("%v was acknowledged and has %d rows for %d commits", key, rows[key], commits[key])
		}
	}
}

// newBucket returns an empty bucket.
func newBucket() *buckettest.Memory { return &buckettest.Memory{MinPart: testPart} }
