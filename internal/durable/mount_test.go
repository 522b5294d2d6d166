package durable

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
)

func TestMountIsThatOfTheDirectory(t *testing.T) {
	proc, err := Open("/proc/self")
	fixture.Must(t, err)
	defer proc.Close()
	m, err := proc.Mount()
	if err != nil || m.Type != "proc" || m.Point != "/proc" || !slices.Contains(m.Options, "rw") {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestMountWithoutItsID: an old kernel gives none. The last mount at a place hides the others.
func TestMountWithoutItsID(t *testing.T) {
	const list = `21 1 8:1 / / rw - ext4 /dev/sda1 rw,errors=remount-ro
22 21 8:2 / /data rw,noatime - xfs /dev/sdb rw
23 22 0:9 / /data ro - nfs4 nas:/x rw
24 21 0:9 / /data/deeper ro - tmpfs none
`
	path := filepath.Join(t.TempDir(), "mountinfo")
	fixture.WriteFile(t, path, list)
	for _, c := range []struct {
		path string
		id   uint64 // 0: none
		want uint64 // 0: not found
	}{
		{"/data/outbox", 0, 23},
		{"/other", 0, 21},
		{"/data/deeper/x", 0, 24},
		{"/database", 0, 21},
		{"/data/outbox", 22, 22},
		{"/", 24, 24},
		{"/", 99, 0},
	} {
		f, err := os.Open(path)
		fixture.Must(t, err)
		st := unix.Statx_t{Mnt_id: c.id}
		if c.id != 0 {
			st.Mask = unix.STATX_MNT_ID
		}
		m, err := findMount(f, c.path, st)
		f.Close()
		if m.ID != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s with id %d: got %+v, %v; want %d", c.path, c.id, m, err, c.want)
		}
		if m.ID == 22 && !slices.Equal(m.Options, []string{"rw", "noatime", "rw"}) {
			t.Errorf("options %q", m.Options)
		}
	}
}
