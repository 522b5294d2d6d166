package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/serviceuser"
)

// MissingDirs returns the directories that a start must create for paths, the outermost first. It
// must be called before [BecomeServiceUser], which may create some.
func MissingDirs(paths ...config.Path) []string {
	var missing []string
	for _, p := range paths {
		var chain []string
		for at := string(p); at != ""; at = filepath.Dir(at) {
			if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) || slices.Contains(missing, at) {
				break
			}
			chain = append(chain, at)
		}
		slices.Reverse(chain)
		missing = append(missing, chain...)
	}
	return missing
}

// NoteLiteral is the warning of [LogFolders] for a command without a log.
func NoteLiteral(c *cobra.Command, literal []config.Path) {
	for _, path := range literal {
		Note(c, "%+q is taken literally: nothing expands ~ and $ here", string(path))
	}
}

// LogFolders logs which directories of [MissingDirs] a start has created, because a misspelled path
// is created too. It warns of literal paths that a shell would expand.
func LogFolders(log *slog.Logger, missing []string, literal []config.Path) {
	for _, path := range missing {
		log.Info("created folder", "path", path)
	}
	for _, path := range literal {
		log.Warn("path taken literally", "path", string(path), "hint", "nothing expands ~ and $ here: write the whole path")
	}
}

// CheckDisks returns an error if a program cannot work on the file systems of its directories. It
// notes what this user cannot probe. See [ProbeDisks].
func CheckDisks(c *cobra.Command, dirs ...string) error {
	untried, err := ProbeDisks(dirs...)
	for _, text := range untried {
		Note(c, "%s", text)
	}
	return err
}

// ProbeDisks returns an error if a program cannot work on the file systems of its directories, and
// which ones this user cannot probe. It probes the first directory on each file system. It must be
// called after [BecomeServiceUser], because it creates a file, which root must not do where others
// can write.
func ProbeDisks(dirs ...string) (untried []string, err error) {
	var seen []uint64
	for _, path := range dirs {
		device, err := checkDisk(path, seen)
		switch {
		case errors.Is(err, durable.ErrNoLinks):
			return untried, UsageError(fmt.Errorf("%w: use a disk with ext4 or xfs, and name its directory in the configuration", err))
		case errors.Is(err, fs.ErrPermission):
			untried = append(untried, fmt.Sprintf("the file system of %s was not tried: %v", path, err))
		case err != nil:
			return untried, err
		default:
			seen = append(seen, device)
		}
	}
	return untried, nil
}

// checkDisk probes the file system of a directory unless it is in seen.
func checkDisk(path string, seen []uint64) (uint64, error) {
	dir, err := serviceuser.OpenNearest(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	st, err := dir.Stat()
	if err != nil || slices.Contains(seen, st.Device()) {
		return st.Device(), err
	}
	if err := serviceuser.CheckPrivate(dir); err != nil {
		return 0, err
	}
	return st.Device(), dir.CheckLinks()
}

// BecomeServiceUser gives up root for the service user. Each command that works with a program's
// state must call it, once it has read what only root may read. See [serviceuser.Become].
func BecomeServiceUser(c *cobra.Command, s serviceuser.State) error {
	_, notes, err := serviceuser.Become(s)
	if notes != nil {
		Note(c, "%v", notes)
	}
	return err
}

// CheckLine returns the command line that hands over root's files, with the configuration of c.
func CheckLine(c *cobra.Command) string {
	line := c.Root().Name() + " check"
	if f := c.Root().PersistentFlags().Lookup("config"); f != nil && f.Changed {
		line += " --config " + f.Value.String()
	}
	return line
}
