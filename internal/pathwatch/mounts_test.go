package pathwatch

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

func TestMountsAreReadAsTheKernelWritesThem(t *testing.T) {
	const list = `36 35 98:0 /mnt1 /mnt/a\040b\011c\134d\012 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 36 0:40 / /data rw shared:7 master:3 propagate_from:2 - tmpfs a\040disk rw
38 36 0:41 / /none rw - fuse.x  rw
not a mount
39 36 0:42 / relative rw - tmpfs tmpfs rw
x 36 0:42 / /letters rw - tmpfs tmpfs rw
40 36 0:43 / /short
`
	var got []mountEntry
	fixture.Must(t, eachMount(strings.NewReader(list), func(m mountEntry) { got = append(got, m) }))
	want := []mountEntry{
		{36, "98:0", "/mnt1", "/mnt/a b\tc\\d\n", "ext3", "/dev/root"},
		{37, "0:40", "/", "/data", "tmpfs", "a disk"},
		{38, "0:41", "/", "/none", "fuse.x", ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestLongLineHidesNoMount: options of an overlay have thousands of bytes.
func TestLongLineHidesNoMount(t *testing.T) {
	long := strings.Repeat("lowerdir=/x:", maxMountLine/4)
	list := "36 35 0:1 / /a rw - overlay " + long + " " + long + "\n37 35 0:2 / /b rw - tmpfs tmpfs rw\n"
	var got []string
	fixture.Must(t, eachMount(strings.NewReader(list), func(m mountEntry) { got = append(got, m.point) }))
	if want := []string{"/a", "/b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnescapedNameIsItself(t *testing.T) {
	for in, want := range map[string]string{
		``: "", `plain`: "plain", `\040`: " ", `\`: `\`, `\04`: `\04`, `a\1`: `a\1`, `\999`: `\999`, `\777`: `\777`,
		`\134040`: `\040`, `\377\000`: "\xff\x00", `\-12`: `\-12`, `\+12`: `\+12`,
	} {
		if got := unescapePath([]byte(in)); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzMounts(f *testing.F) {
	if own, err := os.ReadFile(mountinfoPath); err == nil {
		f.Add(own)
	}
	f.Add([]byte("36 35 98:0 /mnt1 /mnt/a\\040b rw - ext3 /dev/root rw\n"))
	f.Add([]byte("1 1 0:0 \\ /\\0 x - \\ \\"))
	f.Fuzz(func(t *testing.T, list []byte) {
		lines, count := strings.Count(string(list), "\n")+1, 0
		err := eachMount(strings.NewReader(string(list)), func(m mountEntry) {
			count++
			if m.point == "" || strings.Contains(m.device, " ") {
				t.Errorf("a mount without a place: %+v", m)
			}
		})
		if err != nil || count > lines {
			t.Errorf("%d mounts in %d lines, %v", count, lines, err)
		}
	})
}

// TestMountBeneathOursIsFound: a service has a mount of its own over its directory, and the
// machine mounts a disk there. The disk ends up beneath the service's mount, where no path
// leads to it. The kernel propagates it from one namespace to another, so this test needs two:
// unshare(1) makes them, and a shell of the outer one mounts.
func TestMountBeneathOursIsFound(t *testing.T) {
	if path := os.Getenv("PATHWATCH_TEST"); path != "" {
		watchUntilMoved(t, path)
		return
	}
	fixture.RequireRoot(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	fixture.Must(t, os.WriteFile(script, []byte(twoNamespaces), 0o600))
	c := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-eu", script, dir, os.Args[0])
	out, err := c.CombinedOutput()
	if err != nil {
		if os.Getenv("CI") == "" && strings.Contains(string(out), "unshare failed") {
			t.Skipf("no namespaces: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	if !strings.Contains(string(out), causeMounted) && !strings.Contains(string(out), causeOther) {
		t.Errorf("the watch did not say what happened:\n%s", out)
	}
}

// twoNamespaces gets the test's directory and its binary. In the inner namespace the
// directory "data" is the root of a file system of its own, so that a mount of the outer
// one over "data" ends up beneath it.
const twoNamespaces = `
cd "$1"
mkdir host
mount -t tmpfs host host
mount --make-shared host
mkdir host/data
mkfifo ready
PATHWATCH_TEST="$1/host/data" unshare --mount --propagation slave sh -euc '
  mount -t tmpfs ours host/data
  exec "$1" -test.run "^TestMountBeneathOursIsFound$" -test.v' inner "$2" <ready &
inner=$!
exec 3>ready
until [ -e host/began ]; do sleep 0.01; done
mount -t tmpfs late host/data
echo >&3
wait "$inner"
`

func watchUntilMoved(t *testing.T, path string) {
	d, err := durable.Open(path)
	fixture.Must(t, err)
	w, err := New(d)
	fixture.Must(t, err)
	if err := w.Check(); err != nil {
		t.Fatalf("at the beginning: %v", err)
	}
	fixture.Must(t, os.WriteFile(filepath.Join(filepath.Dir(path), "began"), nil, 0o600))
	os.Stdin.Read(make([]byte, 1)) // the other namespace has mounted
	if err := Check(d); err != nil {
		t.Fatalf("the path alone shows the mount, which is not what is tested: %v", err)
	}
	for range 2 { // the kernel tells a change once
		err := w.Check()
		if err == nil {
			t.Fatalf("the mount was not found: %+v", slices.Collect(maps.Keys(w.mounts.initial)))
		}
		t.Log(err)
	}
}

func TestMountIsThatOfTheDirectory(t *testing.T) {
	proc, err := durable.Open("/proc/self")
	fixture.Must(t, err)
	defer proc.Close()
	m, err := MountOf(proc)
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
