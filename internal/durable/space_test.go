package durable_test

import (
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// TestFileSystemOfNoSizeIsNotFull: /proc reports 0 blocks, as ramfs and some FUSE file
// systems do.
func TestFileSystemOfNoSizeIsNotFull(t *testing.T) {
	for path, unknown := range map[string]bool{"/proc": true, t.TempDir(): false} {
		dir, err := durable.Open(path)
		fixture.Must(t, err)
		defer dir.Close()
		free, err := dir.FreeSpace()
		if err != nil || free.IsUnknown() != unknown || free.Bytes <= 0 {
			t.Errorf("%s: %+v, unknown %t, %v", path, free, free.IsUnknown(), err)
		}
		if space, err := dir.FreeBytes(); err != nil || space != free.Bytes && unknown {
			t.Errorf("%s: space %d, %v", path, space, err)
		}
	}
}
