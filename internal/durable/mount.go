package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount describes a mount and its file system. Other users may have chosen the texts.
type Mount struct {
	ID      uint64
	Type    string // of the file system, such as ext4
	Source  string // usually a device
	Point   string
	Options []string // of the mount, then of the file system
}

// Mount returns the mount that d is on. It returns an error wrapping [fs.ErrNotExist] if the list
// of mounts does not have it.
func (d *Dir) Mount() (Mount, error) {
	st, err := statPath(d.fd(), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return Mount{}, opError("stat", d.f.Name(), err)
	}
	path, err := filepath.EvalSymlinks(d.f.Name())
	if err != nil {
		return Mount{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return Mount{}, err
	}
	list, err := os.Open(mountinfoPath)
	if err != nil {
		return Mount{}, err
	}
	defer list.Close()
	return findMount(list, path, st)
}

// findMount returns the mount of a directory. Kernels before 5.8 do not say which it is: then it is
// the last one of the list that is nearest above path, which hides the others.
func findMount(list *os.File, path string, st unix.Statx_t) (Mount, error) {
	var found *mountLine
	err := eachMountLine(list, func(m mountLine) {
		if st.Mask&unix.STATX_MNT_ID != 0 {
			if m.id == st.Mnt_id {
				found = &m
			}
			return
		}
		if isBelow(path, m.point) && (found == nil || len(m.point) >= len(found.point)) {
			found = &m
		}
	})
	if err == nil && found == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Mount{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	return Mount{
		ID: found.id, Type: found.fsType, Source: found.source, Point: found.point,
		Options: strings.Split(found.options, ","),
	}, nil
}
