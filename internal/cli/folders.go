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
		fmt.Fprintf(c.ErrOrStderr(), "%s: note: %+q is taken literally: nothing expands ~ and $ here\n", c.Root().Name(), string(path))
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
