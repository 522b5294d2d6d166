package fsck_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"cis490/internal/indextest"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/store"
)

// packBomb returns an archive that decodes to 64 MiB, and then to an error if it is bad.
func packBomb(tb testing.TB, bad bool) []byte {
	tb.Helper()
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	fixture.Must(tb, err)
	w := tar.NewWriter(enc)
	fixture.Must(tb, w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: 64 << 20}))
	_, err = w.Write(make([]byte, 64<<20))
	fixture.Must(tb, errors.Join(err, w.Close(), enc.Close()))
	if bad {
		b.Bytes()[b.Len()-1] ^= 1
	}
	return b.Bytes()
}

// TestVerifyDecodesABombInPart, and reports it. It still finds bytes that are not those of the
// row.
func TestVerifyDecodesABombInPart(t *testing.T) {
	l, _ := newLabWith(t, 1)
	small, large := indextest.Key("lab-01", "bomb"), indextest.Key("lab-01", "undecodable")
	appendRows(t, l.data, l.put(small, packBomb(t, false)), l.put(large, packBomb(t, true)))
	var expanding []string
	noted := func(o *fsck.Options) {
		o.Deep = true
		o.Expanding = func(k episode.Key) { expanding = append(expanding, string(k.Name)) }
	}
	if found := l.verify(noted); len(found) > 0 || len(expanding) != 2 {
		t.Errorf("found %q, expanding %q", found, expanding)
	}
	other := packBomb(t, false)
	other[len(other)/2] ^= 1
	l.copyByHand("lab-01/bomb.tar.zst", other)
	if found := l.verify(noted); len(found) != 1 || found[0] != "damaged lab-01/bomb 2" {
		t.Errorf("found %q", found)
	}
}

// TestVerifyBelievesTheScrubOfABomb: what was decoded once is not decoded again.
func TestVerifyBelievesTheScrubOfABomb(t *testing.T) {
	l, _ := newLabWith(t, 1)
	fine, bad := indextest.Key("lab-01", "bomb"), indextest.Key("lab-01", "undecodable")
	appendRows(t, l.data, l.put(fine, packBomb(t, false)), l.put(bad, packBomb(t, true)))
	r, err := store.OpenReader(l.options().EpisodesRoot)
	fixture.Must(t, err)
	defer r.Close()
	for _, k := range []episode.Key{fine, bad} {
		_, err := r.ReadBack(t.Context(), k, digest.Digest{}, store.Reading{
			Check:    func(in io.Reader) (digest.Digest, error) { return archive.ContentDigest(in, io.Discard) },
			Remember: func(error) (int64, bool) { return 64 << 20, true },
		})
		if (err != nil) != (k == bad) {
			t.Fatalf("%s: %v", k, err)
		}
	}
	found := l.verify(func(o *fsck.Options) {
		o.Deep = true
		o.Expanding = func(k episode.Key) { t.Errorf("%s was decoded again", k) }
	})
	if len(found) != 1 || found[0] != "damaged lab-01/undecodable 3" {
		t.Errorf("found %q", found)
	}
}

// TestBackfillDecodesABombInPart: its row describes the bytes alone.
func TestBackfillDecodesABombInPart(t *testing.T) {
	l, _ := newLabWith(t, 1)
	_, up := l.storeWithoutRow(indextest.Key("lab-01", "bomb"), packBomb(t, false), time.Now())
	fixture.Must(t, up.MarkIndexed(time.Now()))
	r, err := fsck.Backfill(t.Context(), l.options())
	if err != nil || r.Written != 1 || r.Expanding != 1 || r.Bad != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}
