// Package device tells files, file systems and disks apart. It answers for an open
// file, because what is noted of a file must not count for a copy of it.
//
// A file is known by the UUID of its file system, its inode number, and its birth
// time (its generation if there is none): inode numbers alone coincide after a copy
// with rsync. A disk is known by its serial number or WWID: a copy of a disk's image
// has the UUIDs, inode numbers and birth times of the original. The first sector of a
// partition tells it from a copy in another partition of that disk.
//
// Where a disk shows no serial number (device mapper, loop, most virtual disks), the
// boot ID of the machine stands in for it: nobody exchanges a disk below a mounted
// file system. Where there is no boot ID, a random number of the process does.
//
// The invariant: two files have one [Identity] only if they are the same file on the
// same disk. The reverse does not hold: a reboot may change an identity.
//
// BUG(device): a disk or bridge that reports the serial number of another one cannot
// be told from it. What is known to report constant numbers counts as virtual.
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

// ID is a hash that names a file, or a file on a disk.
type ID [16]byte

// Identity says which file an open file is.
type Identity struct {
	File   ID // the file, by its file system; the same on a copy of the disk's image
	OnDisk ID // the file on this disk
}

// Lifetime is how long an identity stays the same.
type Lifetime string

// Lifetimes of an identity.
const (
	UntilMoved   Lifetime = "disk"    // as long as the file is on this disk
	UntilReboot  Lifetime = "boot"    // until the machine is booted
	UntilRestart Lifetime = "process" // until the store is opened again
)

// Volume is a file system on a disk.
type Volume struct {
	UUID     string // of the file system; empty if it shows none
	Serial   string // serial number or WWID of the disk; empty if it shows none
	Lifetime Lifetime

	fileSystem, disk string // what is hashed
}

// ID names the volume.
func (v Volume) ID() string {
	sum := sha256.Sum256([]byte("cis490 volume\x00" + v.fileSystem + "\x00" + v.disk))
	return hex.EncodeToString(sum[:16])
}

// String says what an identity depends on, for an operator.
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
	// Session names the time from one boot of the machine to the next, or the time of this
	// process where the boot ID is not known.
	Session ID

	find   func(*os.File) Volume
	pinned uint64 // the file system that stays mounted while the store is open

	mu           sync.Mutex
	pinnedVolume *Volume // guarded by mu; of pinned
}

// Open returns the volumes of a store whose directory is dir, which must stay open as
// long as they are used.
func Open(dir *os.File) (*Volumes, error) {
	m := machine{sys: "/sys", boot: bootID("/proc/sys/kernel/random/boot_id", os.Getenv("CIS490_BOOT_ID")), process: rand.Text()}
	return open(dir, m, m.findVolume)
}

// OpenDisk is [Open] for a test: the store is on the disk with the serial number.
func OpenDisk(dir *os.File, serial string) (*Volumes, error) {
	m := machine{boot: "test"}
	return open(dir, m, func(f *os.File) Volume { return m.newVolume(f, readUUID(f), serial, serial) })
}

func open(dir *os.File, m machine, find func(*os.File) Volume) (*Volumes, error) {
	st, err := stat(dir)
	if err != nil {
		return nil, err
	}
	return &Volumes{Session: m.session(), find: find, pinned: deviceNumber(&st)}, nil
}

// Of returns the volume of an open file.
func (v *Volumes) Of(f *os.File) (Volume, error) {
	st, err := stat(f)
	if err != nil {
		return Volume{}, err
	}
	return v.volumeOf(f, deviceNumber(&st)), nil
}

func (v *Volumes) volumeOf(f *os.File, dev uint64) Volume {
	if dev != v.pinned {
		return v.find(f) // its number may be that of another file system later
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pinnedVolume == nil {
		found := v.find(f)
		v.pinnedVolume = &found
	}
	return *v.pinnedVolume
}

// Identify returns which file f is. It costs one system call, or two where files have
// no birth time.
func (v *Volumes) Identify(f *os.File) (Identity, error) {
	st, err := stat(f)
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
		b = binary.BigEndian.AppendUint64(append(b, 'g'), generation(f))
	}
	file := hash(b)
	return Identity{File: file, OnDisk: hash(append(append(b, "\x00disk\x00"...), vol.disk...))}, nil
}

func hash(b []byte) ID {
	sum := sha256.Sum256(b)
	return ID(sum[:16])
}

func stat(f *os.File) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return st, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return st, nil
}

func deviceNumber(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

// generation returns the number that tells a file from earlier ones of its inode
// number, or 0 if the file system has none.
func generation(f *os.File) uint64 {
	const getVersion = 0x80087601 // FS_IOC_GETVERSION
	var n uint64
	if ioctl(f, getVersion, unsafe.Pointer(&n)) != nil {
		return 0
	}
	return n
}

// bootID returns the boot ID of the machine as 32 hex digits, or "". The daemon's unit
// hides the file, and says it in the environment, without dashes.
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

// machine is where disks are looked for, and what stands in for a serial number.
type machine struct {
	sys           string // where sysfs is mounted
	boot, process string
}

func (m machine) session() ID { return hash([]byte("cis490 session\x00" + cmp.Or(m.boot, m.process))) }

func (m machine) findVolume(f *os.File) Volume {
	serial, id := m.findDisks(f)
	return m.newVolume(f, readUUID(f), serial, id)
}

// newVolume makes a volume of what is known of it. An empty uuid or serial is not known.
func (m machine) newVolume(f *os.File, uuid, serial, id string) Volume {
	v := Volume{UUID: uuid, Serial: serial, Lifetime: UntilMoved, fileSystem: "uuid " + uuid, disk: "serial " + id}
	standIn := "boot " + m.boot
	short := UntilReboot
	if m.boot == "" {
		standIn, short = "process "+m.process, UntilRestart
	}
	dev := uint64(0)
	if st, err := stat(f); err == nil {
		dev = deviceNumber(&st)
	}
	if serial == "" {
		v.disk, v.Lifetime = standIn, short
		if unix.Major(dev) != 0 { // a block device, not the number of one mount, as of btrfs
			v.disk += fmt.Sprintf(" device %d:%d", unix.Major(dev), unix.Minor(dev))
		}
	}
	if uuid == "" {
		v.fileSystem, v.Lifetime = fmt.Sprintf("device %d:%d %s", unix.Major(dev), unix.Minor(dev), standIn), short
	}
	return v
}
