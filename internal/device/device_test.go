package device

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

func openFile(tb testing.TB, path string) *os.File {
	tb.Helper()
	f, err := os.Open(path)
	fixture.Must(tb, err)
	tb.Cleanup(func() { f.Close() })
	return f
}

// identify returns the identity of a file on a disk that has a serial number.
func identify(tb testing.TB, root, name, serial string) Identity {
	tb.Helper()
	dir, err := os.Open(root)
	fixture.Must(tb, err)
	defer dir.Close()
	v, err := OpenDisk(dir, serial)
	fixture.Must(tb, err)
	f, err := os.Open(filepath.Join(root, name))
	fixture.Must(tb, err)
	defer f.Close()
	id, err := v.Identify(f)
	fixture.Must(tb, err)
	return id
}

func TestUUIDIsThatOfTheFileSystem(t *testing.T) {
	for kind := range fixture.FileSystems {
		t.Run(kind, func(t *testing.T) {
			img := fixture.MakeImage(t, kind)
			out, err := exec.Command("blkid", "-o", "value", "-s", "UUID", img).Output()
			fixture.RequireMount(t, err)
			path, _ := fixture.MountImage(t, img)
			f := openFile(t, path)
			want := strings.ReplaceAll(strings.TrimSpace(string(out)), "-", "")
			if got := readUUID(f); got != want || want == "" {
				t.Errorf("got %q, want %q", got, want)
			}
			if got := fileSystemUUID(f); got != want {
				t.Errorf("before Linux 6.9: got %q, want %q", got, want)
			}
		})
	}
}

// A file is the same after a mount. Another file is not, nor is one that took its place. Only
// the disk distinguishes a copy of the image.
func TestIdentityIsOfOneFileOnOneDisk(t *testing.T) {
	for kind := range fixture.FileSystems {
		t.Run(kind, func(t *testing.T) {
			img := fixture.MakeImage(t, kind)
			path, unmount := fixture.MountImage(t, img)
			for _, name := range []string{"a", "b"} {
				fixture.Must(t, os.WriteFile(filepath.Join(path, name), []byte(name), 0o640))
			}
			a, b := identify(t, path, "a", "S1"), identify(t, path, "b", "S1")
			if a.File == b.File || a.OnDisk == b.OnDisk {
				t.Error("two files are one")
			}
			unmount()
			copied := filepath.Join(t.TempDir(), "copy")
			fixture.Must(t, exec.Command("cp", "--sparse=always", img, copied).Run())
			path, unmount = fixture.MountImage(t, img)
			if again := identify(t, path, "a", "S1"); again != a {
				t.Errorf("after a mount: %x, want %x", again, a)
			}
			fixture.Must(t, os.Remove(filepath.Join(path, "a")))
			fixture.Must(t, os.WriteFile(filepath.Join(path, "a"), []byte("a"), 0o640))
			if again := identify(t, path, "a", "S1"); again.File == a.File {
				t.Error("a later file of the name is the same")
			}
			unmount() // btrfs does not mount two of one UUID
			path, _ = fixture.MountImage(t, copied)
			if c := identify(t, path, "a", "S1"); c != a {
				t.Errorf("the copy of an image differs by more than its disk: %x, want %x", c, a)
			}
			if c := identify(t, path, "a", "S2"); c.File != a.File || c.OnDisk == a.OnDisk {
				t.Errorf("on the disk S2: %x, of %x", c, a)
			}
		})
	}
}

// A loop device shows no serial number: the boot ID is used instead, and then the process.
func TestBootIDStandsInForASerialNumber(t *testing.T) {
	for kind := range fixture.FileSystems {
		t.Run(kind, func(t *testing.T) {
			path, _ := fixture.MountImage(t, fixture.MakeImage(t, kind))
			f := openFile(t, path)
			m := machine{sys: "/sys", boot: "b1", process: "p1"}
			v := m.findVolume(f)
			if v.Serial != "" || v.Lifetime != UntilReboot || !strings.HasPrefix(v.String(), "no serial: a reboot") {
				t.Errorf("got %+v: %s", v, v)
			}
			m.boot = "b2"
			if m.findVolume(f).ID() == v.ID() {
				t.Error("a reboot changes nothing")
			}
			m.boot = ""
			if v := m.findVolume(f); v.Lifetime != UntilRestart || !strings.Contains(v.String(), "restart") {
				t.Errorf("got %+v: %s", v, v)
			}
		})
	}
}

// Without a UUID an inode number has little meaning: it is valid until the next boot.
func TestFileSystemWithoutUUIDCountsUntilReboot(t *testing.T) {
	m := machine{boot: "b1", process: "p1"}
	f := openFile(t, t.TempDir())
	v := m.newVolume(f, "", "S1", "S1 100")
	if v.Lifetime != UntilReboot || !strings.Contains(v.String(), "UUID") || !strings.Contains(v.fileSystem, "b1") {
		t.Errorf("got %+v: %s", v, v)
	}
	if known := m.newVolume(f, "u", "S1", "S1 100"); known.Lifetime != UntilMoved || known.String() != "serial S1" {
		t.Errorf("got %+v: %s", known, known)
	}
}

// TestSerialNumbersOfDisks builds a copy of what sysfs shows of them.
func TestSerialNumbersOfDisks(t *testing.T) {
	for what, c := range map[string]struct {
		files map[string]string // below the disk
		part  bool
		want  string
	}{
		"SATA":                 {map[string]string{"device/wwid": "naa.5000c500a1b2c3d4\n", "device/model": "ST8000VN004"}, false, "naa.5000c500a1b2c3d4"},
		"a partition":          {map[string]string{"device/wwid": "naa.5000c500a1b2c3d4"}, true, "naa.5000c500a1b2c3d4"},
		"NVMe":                 {map[string]string{"wwid": "eui.0025385b71b0a1c2", "device/serial": "S4EWNX0M"}, true, "eui.0025385b71b0a1c2"},
		"SD card":              {map[string]string{"device/cid": "275048534433324760d9a1b2c3014b00", "device/serial": "0xd9a1b2c3"}, true, "275048534433324760d9a1b2c3014b00"},
		"virtio":               {map[string]string{"serial": "vol-0a1b2c"}, false, "vol-0a1b2c"},
		"virtio without":       {map[string]string{"serial": "", "device/vendor": "0x1af4"}, false, ""},
		"a slot of QEMU":       {map[string]string{"device/wwid": "t10.ATA     QEMU HARDDISK                           QM00001"}, false, ""},
		"a slot of VMware":     {map[string]string{"device/vendor": "VMware  ", "device/wwid": "naa.6000c29a"}, false, ""},
		"device mapper":        {map[string]string{"dm/uuid": "LVM-abc"}, false, ""},
		"a number of zeros":    {map[string]string{"device/serial": "0000 0000"}, false, ""},
		"what cannot be shown": {map[string]string{"serial": "a\x00\x1b[2Jb\xff"}, false, "a[2Jb"},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			fixture.Must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			fixture.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
		fixture.Must(t, os.WriteFile(filepath.Join(dir, "size"), []byte("1024\n"), 0o644))
		at := dir
		if c.part {
			at = filepath.Join(dir, "part1")
			fixture.Must(t, errors.Join(os.Mkdir(at, 0o755), os.WriteFile(filepath.Join(at, "partition"), []byte("1\n"), 0o644),
				os.WriteFile(filepath.Join(at, "size"), []byte("7\n"), 0o644), os.WriteFile(filepath.Join(at, "start"), []byte("2048\n"), 0o644)))
		}
		part := map[bool]string{false: "1024", true: "1024 from 2048"}[c.part]
		got, of := readSerial(at)
		if got != c.want || got != "" && of != part {
			t.Errorf("%s: got %q of %q, want %q of %q", what, got, of, c.want, part)
		}
	}
}

// A copy of one partition in another (dd if=sda1 of=sda2) is not the same disk. If the first
// sector cannot be read, nothing distinguishes them, and the boot ID is used.
func TestPartitionsOfOneDiskDiffer(t *testing.T) {
	disk := t.TempDir()
	write := func(name, text string) {
		fixture.Must(t, errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(disk, name)), 0o755), os.WriteFile(filepath.Join(disk, name), []byte(text), 0o644)))
	}
	write("size", "1000215216\n")
	write("wwid", "eui.0025385b71b0a1c2\n")
	seen := map[string]string{}
	for name, start := range map[string]string{"p1": "2048\n", "p2": "206848\n", "p3": ""} {
		write(name+"/partition", name[1:])
		write(name+"/size", "204800\n")
		write(name+"/start", start)
		serial, part := readSerial(filepath.Join(disk, name))
		if (serial == "") != (start == "") {
			t.Errorf("%s: got the serial number %q", name, serial)
		}
		if other, found := seen[part]; found {
			t.Errorf("%s and %s are the same part of the disk: %q", name, other, part)
		}
		seen[part] = name
	}
	if _, part := readSerial(disk); seen[part] != "" {
		t.Errorf("the whole disk is %s", seen[part])
	}
}

// Device mapper shows no serial number: a copy of one volume in another, within one boot, is
// recognised by the number of the device.
func TestDevicesOfOneBootDiffer(t *testing.T) {
	path, _ := fixture.MountImage(t, fixture.MakeImage(t, "ext4"))
	f := openFile(t, path)
	st, err := statxFile(f)
	fixture.Must(t, err)
	v := machine{boot: "b1"}.newVolume(f, "u", "", "")
	if want := fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor); v.Lifetime != UntilReboot || !strings.Contains(v.disk, want) {
		t.Errorf("got %q, want the device %s in it", v.disk, want)
	}
}

// The unit hides the file and shows the number without dashes: an operator's command and the
// daemon must agree about the boot.
func TestBootIDIsSpelledInOneWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "boot_id")
	fixture.Must(t, os.WriteFile(file, []byte("85D4a754-f62d-4362-9b54-c721f00b2b3b\n"), 0o644))
	const want, other = "85d4a754f62d43629b54c721f00b2b3b", "00000000f62d43629b54c721f00b2b3b"
	for _, c := range []struct{ file, environment, want string }{
		{file, "", want},
		{"/nonexistent", want, want},
		{file, other, want},
		{"/nonexistent", "%b", ""},
		{"/nonexistent", "", ""},
	} {
		if got := bootID(c.file, c.environment); got != c.want {
			t.Errorf("of %+v: got %q", c, got)
		}
	}
}
