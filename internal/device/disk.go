package device

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// findDisks returns the serial number or WWID of the disk of f, and an id that distinguishes it
// from other disks and from other partitions of the same disk. Both are empty if a disk of f has
// none. A file system on several disks has those of all of them.
func (m machine) findDisks(f *os.File) (serial, id string) {
	var serials, ids []string
	for _, link := range m.sysfsLinks(f) {
		dir, err := filepath.EvalSymlinks(link)
		if err != nil {
			return "", ""
		}
		s, part := readSerial(dir)
		if s == "" {
			return "", ""
		}
		serials, ids = append(serials, s), append(ids, s+" "+part)
	}
	slices.Sort(serials)
	slices.Sort(ids)
	return strings.Join(serials, ", "), strings.Join(ids, "\x00")
}

// sysfsLinks returns the paths in sysfs of the devices of f's file system.
func (m machine) sysfsLinks(f *os.File) []string {
	st, err := statxFile(f)
	if err != nil {
		return nil
	}
	if fsMagic(f) != unix.BTRFS_SUPER_MAGIC {
		return []string{filepath.Join(m.sys, "dev/block", fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor))}
	}
	var links []string
	for _, path := range btrfsDevices(f) {
		links = append(links, filepath.Join(m.sys, "class/block", filepath.Base(path)))
	}
	return links
}

// sharedSerials are words in names of virtual disks whose serial numbers name a slot of a machine:
// a copy of the image in that slot has the same one.
var sharedSerials = [...]string{"qemu", "vbox", "vmware", "virtual", "persistentdisk"}

// readSerial returns the serial number or WWID of the disk in a sysfs directory, which may be that
// of a partition. Part is the size of the disk and the first sector of the partition. A copied
// partition has the same UUID, so only the sector distinguishes it. The serial number of a USB
// bridge is not used, because it stays when its disk is replaced.
func readSerial(dir string) (serial, part string) {
	start := ""
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		start = readAttribute(dir, "start")
		if start == "" {
			return "", ""
		}
		start, dir = " from "+start, filepath.Dir(dir)
	}
	model := readAttribute(dir, "device/vendor") + readAttribute(dir, "device/model")
	for _, name := range []string{"wwid", "device/wwid", "device/cid", "device/serial", "serial"} {
		s := readAttribute(dir, name)
		if strings.Trim(s, "0 ") == "" {
			continue
		}
		for _, word := range sharedSerials {
			if strings.Contains(strings.ToLower(model+s), word) {
				return "", ""
			}
		}
		return s, readAttribute(dir, "size") + start
	}
	return "", ""
}

// readAttribute returns the content of a sysfs file as printable ASCII, or "".
func readAttribute(dir, name string) string {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 512))
	if err != nil {
		return ""
	}
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b))
	return strings.TrimSpace(s)
}
