package crashtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk is a file system in an image file, mounted by a loop device.
type Disk struct {
	Image string // path of the file
	Mount string // where it is mounted, while it is
	// Tear gives the disk a volatile cache from the next Attach on, and seeds what each cut
	// does: the writes since the last flush are kept, dropped or torn.
	Tear func() uint64
	Torn Fates // summed over all cuts so far

	fs    string
	cache *volatileDisk
}

// NewDisk makes a file system of a kind, ext4 or xfs, in a sparse image of a
// size.
func NewDisk(fs, image string, size int64) (*Disk, error) {
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	if err := MakeFS(fs, image); err != nil {
		return nil, err
	}
	return &Disk{Image: image, fs: fs}, nil
}

// MakeFS makes a file system of a kind in an image or on a device.
func MakeFS(fs, path string) error {
	argv := []string{"mkfs.ext4", "-q", "-F", "-m", "0", path}
	if fs == "xfs" {
		argv = []string{"mkfs.xfs", "-q", "-f", path}
	}
	return run(argv...)
}

// run runs a system administrator's command.
func run(argv ...string) error {
	path := argv[0]
	if found, err := exec.LookPath("/usr/sbin/" + path); err == nil {
		path = found
	}
	out, err := exec.Command(path, argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// Attach mounts the disk at dir. The loop device is released with the mount.
func (d *Disk) Attach(dir string) error {
	image := d.Image
	if d.Tear != nil {
		image += ".cached"
		var err error
		if d.cache, err = newVolatile(d.grain(), d.Image, image); err != nil {
			return err
		}
	}
	if err := run("mount", "-t", d.fs, "-o", "loop", image, dir); err != nil {
		return err
	}
	d.Mount = dir
	return nil
}

// grain is the unit that a cut does not tear, because file systems require that of a disk. ext4
// overwrites its superblock, two sectors with one checksum, in place and outside the journal.
// xfs takes a block of 4 KiB for written if its first sector is. Neither can be mounted if that
// is torn.
func (d *Disk) grain() int64 {
	if d.fs == "xfs" {
		return 4096
	}
	return 2 * sector
}

// Sync makes everything that was written durable, as sync(1) would.
func (d *Disk) Sync() error {
	f, err := os.Open(d.Mount)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// The ioctl that ext4 and xfs share (FS_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN), and
// its flag to throw away what the journal has not written yet.
const (
	ioctlShutdown = 0x8004587d
	noLogFlush    = 2
)

// Cut simulates power loss: from now on nothing reaches the disk, and the page cache and the
// journal's memory are lost. Of the disk's own cache, any part may be lost.
func (d *Disk) Cut() error {
	if d.cache != nil {
		f, err := d.cache.takePower(d.Tear())
		d.Torn.Add(f)
		return err
	}
	f, err := os.Open(d.Mount)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ioctlShutdown, noLogFlush); err != nil {
		return fmt.Errorf("cut %s: %w", d.Mount, err)
	}
	return nil
}

// Detach unmounts the disk.
func (d *Disk) Detach() error {
	if d.Mount != "" {
		if err := unmount(d.Mount); err != nil {
			return err
		}
		d.Mount = ""
	}
	if d.cache == nil {
		return nil
	}
	err := d.cache.unmountFile()
	d.cache = nil
	return err
}

// Reattach brings a disk that was cut off back to the same place: the file system recovers from
// its journal.
func (d *Disk) Reattach() error {
	dir := d.Mount
	if err := d.Detach(); err != nil {
		return err
	}
	return d.Attach(dir)
}
