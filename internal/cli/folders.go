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
)

// MissingDirs returns the directories that a start has to make for paths, the outermost
// first. It must be called before [BecomeServiceUser], which may make some.
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

// NoteLiteral is the warning of [LogFolders] for a command that has no log.
func NoteLiteral(c *cobra.Command, literal []config.Path) {
	for _, path := range literal {
		fmt.Fprintf(c.ErrOrStderr(), "%s: note: %+q is taken literally: nothing expands ~ and $ here\n", c.Root().Name(), string(path))
	}
}

// LogFolders logs which directories a start has made, of those that [MissingDirs]
// returned: a path that is spelled wrong is made as well. It warns of paths that stand for
// themselves and look as if a shell should expand them.
func LogFolders(log *slog.Logger, missing []string, literal []config.Path) {
	for _, path := range missing {
		log.Info("created folder", "path", path)
	}
	for _, path := range literal {
		log.Warn("path taken literally", "path", string(path), "hint", "nothing expands ~ and $ here: write the whole path")
	}
}
