// Package device identifies files, file systems and disks. It takes open files, because a fact
// about a file must not be used for a copy of it.
//
// A file is identified by the UUID of its file system, its inode number, and its birth time, or its
// generation if there is none. Inode numbers alone may be equal after a copy with rsync. A disk is
// identified by its serial number or WWID, because the copy of a disk image has the same UUIDs,
// inode numbers and birth times. The first sector of a partition tells it from a copy in another
// partition of the same disk.
//
// If a disk has no serial number (device mapper, loop, most virtual disks), the boot ID of the
// machine is used instead: a disk is not replaced below a mounted file system. Without a boot ID, a
// random number of the process is used.
//
// Invariant: two files have the same [Identity] only if they are the same file on the same disk.
// The reverse does not hold, because a reboot may change an identity.
//
// BUG(device): a disk or bridge that reports the serial number of another one cannot be told from
// it. Devices known to report constant numbers count as virtual.
package device

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ID is a hash that identifies a file, or a file on a disk.
type ID [16]byte

// Identity identifies an open file.
type Identity struct {
	File   ID // the file on its file system; the same on a copy of the disk image
	OnDisk ID // the file on this disk
}

// Lifetime is how long an identity stays the same.
type Lifetime string

// The values of a Lifetime.
const (
	UntilMoved   Lifetime = "disk"    // as long as the file is on this disk
	UntilReboot  Lifetime = "boot"    // until the machine reboots
	UntilRestart Lifetime = "process" // until the store is opened again
)

// Volume is a file system on a disk.
type Volume struct {
	UUID     string // of the file system; empty if it has none
	Serial   string // serial number or WWID of the disk; empty if it has none
	Lifetime Lifetime

	fileSystem, disk string // input of the hashes
}

// ID returns the id of the volume.
func (v Volume) ID() string {
	sum := sha256.Sum256([]byte("cis490 volume\x00" + v.fileSystem + "\x00" + v.disk))
	return hex.EncodeToString(sum[:16])
}

// String describes for an operator what an identity depends on.
func (v Volume) String() string {
	missing := "no serial"
	switch {
	case v.Lifetime == UntilMoved:
		return "serial " + v.Serial
	case v.UUID == "":
		missing = "no file system UUID"
	}
	if v.Lifetime == UntilReboot {
		return missing + ": a reboot voids what was read back"
	}
	return missing + " and no boot ID: a restart voids what was read back"
}

// Volumes identifies the files of one store. Its methods are safe for concurrent use.
type Volumes struct {
	// Session identifies the current boot of the machine or, without a boot ID, this process.
	Session ID

	find   func(*os.File) Volume
	pinned uint64 // number of the file system that stays mounted while the store is open

	mu           sync.Mutex
	pinnedVolume *Volume // volume of pinned; guarded by mu
}

// Open returns the volumes of a store in the directory dir, which must stay open while they are
// used.
func Open(dir *os.File) (*Volumes, error) {
	m := machine{sys: "/sys", boot: BootID(), process: rand.Text()}
	return open(dir, m, m.findVolume)
}

// OpenDisk is [Open] for tests. The store is on a disk with the given serial number.
func OpenDisk(dir *os.File, serial string) (*Volumes, error) {
	m := machine{boot: "test"}
	return open(dir, m, func(f *os.File) Volume { return m.newVolume(f, readUUID(f), serial, serial) })
}

func open(dir *os.File, m machine, find func(*os.File) Volume) (*Volumes, error) {
	st, err := statxFile(dir)
	if err != nil {
		return nil, err
	}
	return &Volumes{Session: m.sessionID(), find: find, pinned: deviceNumber(&st)}, nil
}

// FindVolume returns the volume of an open file.
func (v *Volumes) FindVolume(f *os.File) (Volume, error) {
	st, err := statxFile(f)
	if err != nil {
		return Volume{}, err
	}
	return v.volumeOf(f, deviceNumber(&st)), nil
}

func (v *Volumes) volumeOf(f *os.File, dev uint64) Volume {
	if dev != v.pinned {
		return v.find(f) // another file system may have its number later
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pinnedVolume == nil {
		found := v.find(f)
		v.pinnedVolume = &found
	}
	return *v.pinnedVolume
}

// Identify returns the identity of f. It takes one system call, or two if the file has no birth
// time.
func (v *Volumes) Identify(f *os.File) (Identity, error) {
	st, err := statxFile(f)
	if err != nil {
		return Identity{}, err
	}
	vol := v.volumeOf(f, deviceNumber(&st))
	b := append([]byte("cis490 file\x00"), vol.fileSystem...)
	b = binary.BigEndian.AppendUint64(append(b, 0), st.Ino)
	if st.Mask&unix.STATX_BTIME != 0 {
		b = binary.BigEndian.AppendUint64(append(b, 'b'), uint64(st.Btime.Sec))
		b = binary.BigEndian.AppendUint32(b, st.Btime.Nsec)
	} else {
		b = binary.BigEndian.AppendUint64(append(b, 'g'), readGeneration(f))
	}
	file := hashID(b)
	return Identity{File: file, OnDisk: hashID(append(append(b, "\x00disk\x00"...), vol.disk...))}, nil
}

func hashID(b []byte) ID {
	sum := sha256.Sum256(b)
	return ID(sum[:16])
}

func statxFile(f *os.File) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return st, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return st, nil
}

func deviceNumber(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

// readGeneration returns the number that distinguishes files that have used the same inode number,
// or 0 if the file system has none.
func readGeneration(f *os.File) uint64 {
	const getVersion = 0x80087601 // FS_IOC_GETVERSION
	var n uint64
	if ioctl(f, getVersion, unsafe.Pointer(&n)) != nil {
		return 0
	}
	return n
}

// BootID returns an ID of the machine that lasts until its next boot, as 32 hex digits, or "" if there is
// none.
func BootID() string {
	return bootID("/proc/sys/kernel/random/boot_id", os.Getenv("CIS490_BOOT_ID"))
}

// bootID returns the boot ID of the machine as 32 hex digits, or "". The daemon's unit hides the
// file, and passes the ID in the environment, without dashes.
func bootID(file, environment string) string {
	b, _ := os.ReadFile(file) // no file, no ID
	for _, id := range []string{string(b), environment} {
		id = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(id), "-", ""))
		if raw, herr := hex.DecodeString(id); herr == nil && len(raw) == 16 {
			return id
		}
	}
	return ""
}

// machine is where disks are looked up, and what replaces a missing serial number.
type machine struct {
	sys           string // where sysfs is mounted
	boot, process string
}

func (m machine) sessionID() ID {
	return hashID([]byte("cis490 session\x00" + cmp.Or(m.boot, m.process)))
}

func (m machine) findVolume(f *os.File) Volume {
	serial, id := m.findDisks(f)
	return m.newVolume(f, readUUID(f), serial, id)
}

// newVolume returns a volume. An empty uuid or serial is unknown.
func (m machine) newVolume(f *os.File, uuid, serial, id string) Volume {
	v := Volume{UUID: uuid, Serial: serial, Lifetime: UntilMoved, fileSystem: "uuid " + uuid, disk: "serial " + id}
	standIn := "boot " + m.boot
	short := UntilReboot
	if m.boot == "" {
		standIn, short = "process "+m.process, UntilRestart
	}
	dev := uint64(0)
	if st, err := statxFile(f); err == nil {
		dev = deviceNumber(&st)
	}
	if serial == "" {
		v.disk, v.Lifetime = standIn, short
		if unix.Major(dev) != 0 { // a block device, and not a number of one mount, as on btrfs
			v.disk += fmt.Sprintf(" device %d:%d", unix.Major(dev), unix.Minor(dev))
		}
	}
	if uuid == "" {
		v.fileSystem, v.Lifetime = fmt.Sprintf("device %d:%d %s", unix.Major(dev), unix.Minor(dev), standIn), short
	}
	return v
}
