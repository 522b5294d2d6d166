package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// diskSize is that of a file system of the lab's own. Its image has holes where
// nothing was written.
const diskSize = 24 << 30

// journaled reports whether the file system of a folder is one that a lab may
// have. An ext4 without a journal is not: after a deletion it looks for minutes
// for an inode that is not one of those just deleted, at each file that is made
// (a millisecond instead of ten microseconds), and what an fsync costs there is
// nobody's figure.
func journaled(dir string) bool {
	device := filepath.Base(df(dir, "source"))
	return !strings.Contains(slurp(filepath.Join("/sys/fs/ext4", device, "journal_task")), "none")
}

// df returns a column of df for a folder, or "" if it is not known.
func df(dir, column string) string {
	out, _ := exec.Command("df", "--output="+column, dir).Output()
	_, value, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(value)
}

// disk says what the runs are on.
func (o options) disk() string {
	switch {
	case journaled(o.dir):
		return cmp.Or(df(o.dir, "fstype"), "an unknown file system")
	case o.here:
		return df(o.dir, "fstype") + " without a journal"
	}
	return "ext4 with a journal on a loop device"
}

// mount gives the lab an ext4 of its own, on a loop device. The caller must call
// what it returns. The image is a new one each time, and has no name any more
// when this returns: a process with mounts of its own, such as a test in a box,
// may hold the last one for long, and two devices on one image destroy it.
func (l *lab) mount(ctx context.Context) (unmount func(), err error) {
	at := l.path("disk")
	if _, err := os.Stat("/dev/loop-control"); err != nil || syscall.Getuid() != 0 {
		say("%s is an ext4 without a journal: figures are of no use; run this as root with loop devices, or name another folder with -dir", l.base)
		return func() {}, nil
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	for exec.Command("umount", at).Run() == nil { // what a run left that was killed
	}
	image, err := blank(ctx, l.base)
	if err != nil {
		return nil, err
	}
	defer os.Remove(image)
	device, err := exec.CommandContext(ctx, "losetup", "--find", "--show", "--direct-io=on", image).Output()
	if err != nil {
		return nil, fmt.Errorf("losetup: %w", err)
	}
	loop := strings.TrimSpace(string(device))
	out, err := exec.CommandContext(ctx, "mount", loop, at).CombinedOutput()
	// The device goes when its file system does, or now if that was not mounted.
	derr := exec.Command("losetup", "--detach", loop).Run()
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w: %s", loop, err, out)
	}
	l.base = at
	return func() {
		// Not with ctx: this is done after an interrupt too.
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			say("umount %s: %v: %s", at, err, out)
		}
	}, derr
}

// blank makes an image: all tables written now, so that the kernel does not
// write them while we measure.
func blank(ctx context.Context, dir string) (string, error) {
	f, err := os.CreateTemp(dir, "disk-*.img")
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", f.Name()).CombinedOutput()
	if err != nil {
		return "", errors.Join(fmt.Errorf("mkfs.ext4: %w: %s", err, out), os.Remove(f.Name()))
	}
	return f.Name(), nil
}
