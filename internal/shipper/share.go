package shipper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"cis490/internal/durable"
	"cis490/internal/serviceuser"
	"cis490/internal/source"
)

// ShareEpisodes gives each directory in the episodes folder at path to the group that
// this process runs with, or, if that is root, to the group of the folder: see
// [source.Share].
//
// The process may have rights over everybody's files, and the service user can change
// what the path leads to. So the folder must belong to this process's user, or be
// root's and named by a whole path on which only root made links.
func ShareEpisodes(ctx context.Context, path string) (source.Sharing, error) {
	dir, err := serviceuser.OpenDir(path)
	if err != nil {
		return source.Sharing{}, err
	}
	defer dir.Close()
	gid, err := sharedGroup(dir, path)
	if err != nil {
		return source.Sharing{}, err
	}
	return source.Share(ctx, dir, gid)
}

// sharedGroup returns the group to share a folder with, if it is one to share.
func sharedGroup(dir *durable.Dir, path string) (int, error) {
	st, err := dir.Stat()
	if err != nil {
		return 0, err
	}
	uid, gid := st.Owner()
	us := os.Geteuid()
	whole, err := filepath.Abs(path) // a unit may name it with a dot
	if err != nil {
		return 0, err
	}
	switch {
	case us == 0 && gid == 0:
		return 0, fmt.Errorf("%s belongs to the group root: give it to the group of the experiments (chgrp cis490-lab %[1]s)", whole)
	case us == 0:
		return gid, nil
	case os.Getegid() == 0:
		return 0, errors.New("this process runs with the group root: run it with the group of the experiments")
	case uid == us, uid == 0 && filepath.IsAbs(path):
		return os.Getegid(), nil
	}
	return 0, fmt.Errorf("%s belongs to uid %d, and this process runs as uid %d: it shares a folder of that user, or one of root by its whole path", whole, uid, us)
}
