package device

import (
	"bytes"
	"encoding/hex"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of ioctl(2) on amd64, arm64 and arm.
const (
	getUUID         = 0x80111500 // FS_IOC_GETFSUUID, of any file system since Linux 6.9
	ext4GetUUID     = 0x8008662c // EXT4_IOC_GETFSUUID, since Linux 6.0
	xfsGeometry     = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
	btrfsInfo       = 0x8400941f // BTRFS_IOC_FS_INFO
	btrfsDeviceInfo = 0xd000941e // BTRFS_IOC_DEV_INFO
)

// readUUID returns the UUID of f's file system in hex digits, or "" if it has none. It asks through
// the file, because the unit hides /dev. The number of statfs(2) is not a UUID.
func readUUID(f *os.File) string {
	var generic struct {
		size uint8
		uuid [16]byte
	}
	if ioctl(f, getUUID, unsafe.Pointer(&generic)) == nil && generic.size <= 16 {
		return formatHex(generic.uuid[:generic.size])
	}
	return fileSystemUUID(f)
}

// fileSystemUUID is readUUID with requests of particular file systems.
func fileSystemUUID(f *os.File) string {
	switch fsMagic(f) {
	case unix.EXT4_SUPER_MAGIC:
		a := struct {
			size, flags uint32
			uuid        [16]byte
		}{size: 16}
		if ioctl(f, ext4GetUUID, unsafe.Pointer(&a)) == nil {
			return formatHex(a.uuid[:])
		}
	case unix.XFS_SUPER_MAGIC:
		var a struct {
			_    [64]byte
			uuid [16]byte
			_    [32]byte
		}
		if ioctl(f, xfsGeometry, unsafe.Pointer(&a)) == nil {
			return formatHex(a.uuid[:])
		}
	case unix.BTRFS_SUPER_MAGIC:
		if a, ok := readBtrfsInfo(f); ok {
			return formatHex(a.uuid[:])
		}
	}
	return ""
}

// formatHex returns b in hex, or "" if it is zero.
func formatHex(b []byte) string {
	if len(bytes.Trim(b, "\x00")) == 0 {
		return ""
	}
	return hex.EncodeToString(b)
}

// btrfsVolume is the response to BTRFS_IOC_FS_INFO.
type btrfsVolume struct {
	maxID, devices uint64
	uuid           [16]byte
	_              [1024 - 32]byte
}

func readBtrfsInfo(f *os.File) (btrfsVolume, bool) {
	var a btrfsVolume
	return a, ioctl(f, btrfsInfo, unsafe.Pointer(&a)) == nil
}

// maxDevices bounds the number of disks of a btrfs.
const maxDevices = 64

// btrfsDevices returns the paths of the devices of a btrfs, or nil if not all are known. The device
// number of its files is not that of a disk.
func btrfsDevices(f *os.File) []string {
	info, ok := readBtrfsInfo(f)
	if !ok || info.devices > maxDevices {
		return nil
	}
	var paths []string
	for id := uint64(1); id <= info.maxID && id <= 16*maxDevices; id++ {
		a := struct {
			id   uint64
			_    [3072 - 8]byte
			path [1024]byte
		}{id: id}
		if ioctl(f, btrfsDeviceInfo, unsafe.Pointer(&a)) == nil {
			path, _, _ := bytes.Cut(a.path[:], []byte{0})
			paths = append(paths, string(path))
		}
	}
	if uint64(len(paths)) != info.devices {
		return nil
	}
	return paths
}

func fsMagic(f *os.File) int64 {
	var s unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &s) != nil {
		return 0
	}
	return int64(s.Type)
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
