package hostdir

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

// ShareEpisodes gives each directory in the episodes directory at path to the group of this
// process or, if that is root, to the group of the episodes directory: see [source.ShareEpisodes].
//
// The process may have rights over all users' files, and the service user can change where
// the path leads. So the directory must belong to this process's user, or belong to root
// and be given by an absolute path on which only root created links.
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
	return source.ShareEpisodes(ctx, dir, gid)
}

// sharedGroup returns the group to which the episodes directory may be shared.
func sharedGroup(dir *durable.Dir, path string) (int, error) {
	st, err := dir.Stat()
	if err != nil {
		return 0, err
	}
	uid, gid := st.Owner()
	euid := os.Geteuid()
	abs, err := filepath.Abs(path) // a unit may name it with a dot
	if err != nil {
		return 0, err
	}
	switch {
	case euid == 0 && gid == 0:
		return 0, fmt.Errorf("%s belongs to the group root: give it to the group of the experiments (chgrp cis490-lab %[1]s)", abs)
	case euid == 0:
		return gid, nil
	case os.Getegid() == 0:
		return 0, errors.New("this process runs with the group root: run it with the group of the experiments")
	case uid == euid, uid == 0 && filepath.IsAbs(path):
		return os.Getegid(), nil
	}
	return 0, fmt.Errorf("%s belongs to uid %d, but this process runs as uid %d: share a folder of that user, or one of root by its absolute path", abs, uid, euid)
}
