package s3backend

import (
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
)

// A real engine returns a flipped bit without an error, and with the same ETag.
func TestScrubFindsABitThatAnEngineLost(t *testing.T) {
	dir := t.TempDir()
	in, err := bucket.Open(buckettest.VersitygwAt(t, dir))
	fixture.Must(t, err)
	b, seen := openScrubber(t, in)
	defer b.Close()
	uploads, archives := storeArchives(t, b, 3)
	file, err := filepath.Glob(filepath.Join(dir, "*", archiveName(uploads[2].Key, uploads[2].Digest, 1)))
	fixture.Must(t, err)
	f, err := os.OpenFile(file[0], os.O_WRONLY, 0)
	fixture.Must(t, err)
	_, err = f.Write(flip(archives[2]))
	fixture.Must(t, err)
	fixture.Must(t, f.Close())
	got, err := b.scrubPass(t.Context())
	if want := "damaged run-2 aside"; err != nil || seen.String() != want || got.Objects != 3 || got.Damaged != 1 {
		t.Errorf("got %+v, %q, %v, want %q", got, seen, err, want)
	}
	if e := examineOne(t, b, uploads[1]); e.VerifiedAt == nil {
		t.Errorf("an archive that is intact: got %+v, want it verified", e)
	}
	again, err := put(b, uploads[2], archives[2])
	if rows := indexOf(t, in); err != nil || len(rows) != 4 || !rows[3].Repaired {
		t.Errorf("sent again: got %+v, %v, and the rows %+v", again, err, rows)
	}
}
