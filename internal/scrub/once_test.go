package scrub_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/indextest"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// newIndexedStore returns a store in which the archives of names are stored, the data
// directory, and its path.
func newIndexedStore(t *testing.T, names ...string) (*store.Store, *durable.Dir, string) {
	t.Helper()
	path := t.TempDir()
	data := indextest.OpenDir(t, path)
	s, err := store.Open(data)
	fixture.Must(t, err)
	t.Cleanup(func() { s.Close() })
	var rows []byte
	for i, name := range names {
		content := archiveOf(t, byte(i))
		storeArchive(t, s, name, content)
		rows = append(rows, indextest.EncodeRows(index.Row{
			ReceivedAt: indextest.Arrival.Add(time.Duration(i) * time.Millisecond),
			Key:        keyOf(name), SHA256: sha256.Sum256(content), Size: int64(len(content)),
		})...)
	}
	fixture.Must(t, os.WriteFile(filepath.Join(path, indextest.IndexName), rows, 0o640))
	return s, data, path
}

// runOnce returns what a scrub finds, as "damaged run-7".
func runOnce(t *testing.T, data *durable.Dir, o scrub.Options) (scrub.Progress, string) {
	t.Helper()
	var found []string
	o.Found = func(f scrub.Finding) { found = append(found, f.Finding+" "+string(f.Episode)) }
	p, err := scrub.RunOnce(t.Context(), data, indextest.IndexName, o)
	fixture.Must(t, err)
	return p, strings.Join(found, ", ")
}

func TestScrubFindsFlippedBytesAndVanishedFiles(t *testing.T) {
	_, data, path := newIndexedStore(t, "bad", "gone", "good")
	if p, found := runOnce(t, data, scrub.Options{}); found != "" || p.Objects != 3 || p.Bytes == 0 {
		t.Fatalf("of a good store: %q, %+v", found, p)
	}
	bad := filepath.Join(path, "episodes", "lab-01", "bad.tar.zst")
	b := []byte(fixture.ReadFile(t, bad))
	b[len(b)/2] ^= 1
	f, err := os.OpenFile(bad, os.O_WRONLY, 0)
	fixture.Must(t, err)
	defer f.Close()
	_, err = f.Write(b)
	fixture.Must(t, err)
	fixture.Must(t, os.Remove(filepath.Join(path, "episodes", "lab-01", "gone.tar.zst")))
	p, found := runOnce(t, data, scrub.Options{})
	if want := "damaged bad, missing gone"; found != want || p.Damaged != 1 || p.Missing != 1 || p.Objects != 2 {
		t.Errorf("found %q, %+v, want %q", found, p, want)
	}
	if !fixture.Exists(bad) {
		t.Error("a scrub without Quarantine moved an archive")
	}
	if p, found := runOnce(t, data, scrub.Options{Host: "lab-02"}); found != "" || p.Objects != 0 {
		t.Errorf("of another host: %q, %+v", found, p)
	}
}

// TestScrubSkipsWhatWasVerifiedRecently: that is how an interrupted scrub continues.
func TestScrubSkipsWhatWasVerifiedRecently(t *testing.T) {
	s, data, _ := newIndexedStore(t, "a", "b", "c")
	v := scrub.Verifier{Store: s.Reader, Quarantine: s.Quarantine}
	_, err := v.VerifyNow(t.Context(), keyOf("a"))
	fixture.Must(t, err)
	if p, _ := runOnce(t, data, scrub.Options{OlderThan: time.Hour}); p.Objects != 2 || p.Skipped != 1 {
		t.Errorf("read %d and skipped %d, want 2 and 1", p.Objects, p.Skipped)
	}
	if p, _ := runOnce(t, data, scrub.Options{}); p.Objects != 3 {
		t.Errorf("a complete scrub read %d, want 3", p.Objects)
	}
}

// The total that is counted during the pass matches what the pass reads.
func TestTotalIsWhatThePassReads(t *testing.T) {
	s, data, _ := newIndexedStore(t, "a", "b", "c")
	v := scrub.Verifier{Store: s.Reader}
	_, err := v.VerifyNow(t.Context(), keyOf("a"))
	fixture.Must(t, err)
	for _, olderThan := range []time.Duration{0, time.Hour} {
		counted := make(chan struct{})
		var total, size, checked int64
		p, _ := runOnce(t, data, scrub.Options{
			OlderThan: olderThan,
			Total:     func(archives, bytes int64) { total, size = archives, bytes; close(counted) },
			Checked:   func(archives int64) { checked = archives; <-counted },
		})
		if total != p.Objects || size != p.Bytes || checked != p.Objects {
			t.Errorf("older than %v: counted %d with %d bytes, checked %d, want %d with %d", olderThan, total, size, checked, p.Objects, p.Bytes)
		}
	}
}
