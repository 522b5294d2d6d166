package scrub_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

func keyOf(name string) episode.Key { return episode.Key{Host: "lab-01", Name: episode.Name(name)} }

// newStore returns an empty store, and a verifier for it.
func newStore(t *testing.T) (*store.Store, *scrub.Verifier) {
	t.Helper()
	data, err := durable.Open(t.TempDir())
	fixture.Must(t, err)
	t.Cleanup(func() { data.Close() })
	s, err := store.Open(data)
	fixture.Must(t, err)
	t.Cleanup(func() { s.Close() })
	return s, &scrub.Verifier{Store: s.Reader, Quarantine: s.Quarantine}
}

// archiveOf returns an archive with 1,000 random bytes.
func archiveOf(t *testing.T, seed byte) []byte {
	t.Helper()
	content := make([]byte, 1000)
	rand.NewChaCha8([32]byte{seed}).Read(content)
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b)
	fixture.Must(t, err)
	w := tar.NewWriter(enc)
	fixture.Must(t, w.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: int64(len(content))}))
	_, err = w.Write(content)
	fixture.Must(t, errors.Join(err, w.Close(), enc.Close()))
	return b.Bytes()
}

func storeArchive(t *testing.T, s *store.Store, name string, content []byte) {
	t.Helper()
	u, err := s.CreateUpload(keyOf(name))
	fixture.Must(t, err)
	_, err = u.Write(content)
	fixture.Must(t, err)
	now := time.Now()
	fixture.Must(t, u.Commit(sha256.Sum256(content), now))
	fixture.Must(t, u.MarkIndexed(now))
}

// replaceReads makes the first n reads return bytes other than the stored ones, and counts all
// reads.
func replaceReads(s *store.Store, n int, other []byte) (readings *int) {
	readings = new(int)
	s.Reader.Uncached = func(dir *durable.Dir, name string) (io.ReadCloser, error) {
		*readings++
		if *readings <= n {
			return io.NopCloser(bytes.NewReader(other)), nil
		}
		return dir.OpenUncached(name)
	}
	return readings
}

func TestArchiveIsQuarantinedAfterTwoReadings(t *testing.T) {
	s, v := newStore(t)
	storeArchive(t, s, "run-7", archiveOf(t, 7))
	readings := replaceReads(s, 2, archiveOf(t, 8))
	got, err := v.VerifyNow(t.Context(), keyOf("run-7"))
	fixture.Must(t, err)
	if !got.Quarantined || !errors.Is(got.Err, store.ErrCorrupt) || *readings != 2 {
		t.Errorf("got %+v after %d readings, want it quarantined after 2", got, *readings)
	}
	if there, err := s.IsQuarantined(keyOf("run-7")); err != nil || !there {
		t.Errorf("the quarantine has it: %v, %v", there, err)
	}
}

func TestSecondReadingRefutesTheFirst(t *testing.T) {
	s, v := newStore(t)
	storeArchive(t, s, "run-7", archiveOf(t, 7))
	replaceReads(s, 1, archiveOf(t, 8))
	got, err := v.VerifyNow(t.Context(), keyOf("run-7"))
	fixture.Must(t, err)
	if got.Quarantined || got.Err != nil || !errors.Is(got.Transient, store.ErrCorrupt) || got.Object.VerifiedAt.IsZero() {
		t.Errorf("got %+v, want it verified, and the first error as transient", got)
	}
}

// A disk that fails as a whole must not empty the store.
func TestFailingDiskEndsQuarantining(t *testing.T) {
	s, v := newStore(t)
	s.Reader.Uncached = func(*durable.Dir, string) (io.ReadCloser, error) { return nil, errors.New("no medium") }
	quarantined := 0
	for i := range 10 {
		name := "run-" + string(rune('a'+i))
		storeArchive(t, s, name, archiveOf(t, byte(i)))
		got, err := v.VerifyNow(t.Context(), keyOf(name))
		fixture.Must(t, err)
		if got.Quarantined {
			quarantined++
		}
	}
	if quarantined == 0 || quarantined > 3 {
		t.Errorf("%d of 10 archives were quarantined, want 1 to 3", quarantined)
	}
}
