package store_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

// TestCheckRefusesASubvolumeAsTheStartDoes: everything is on one mount, with several device
// numbers.
func TestCheckRefusesASubvolumeAsTheStartDoes(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a file system")
	}
	at, _ := fixture.MountImage(t, fixture.MakeImage(t, "btrfs"))
	for _, folder := range []string{"staging", "episodes", "quarantine"} {
		path := filepath.Join(at, "data-of-"+folder)
		fixture.Must(t, os.Mkdir(path, 0o755))
		for _, name := range []string{"staging", "episodes", "quarantine"} {
			if name != folder {
				fixture.Must(t, os.Mkdir(filepath.Join(path, name), 0o755))
			}
		}
		fixture.RequireMount(t, exec.Command("btrfs", "subvolume", "create", filepath.Join(path, folder)).Run())
		d, err := durable.Open(path)
		fixture.Must(t, err)
		_, startErr := store.Open(d)
		for what, err := range map[string]error{"check": store.CheckMoves(d), "start": startErr} {
			if !errors.Is(err, store.ErrUnsuitable) {
				t.Errorf("%s: %s says %v", folder, what, err)
			}
		}
		fixture.Must(t, d.Close())
	}
}
