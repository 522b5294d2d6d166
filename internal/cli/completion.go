package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cis490/internal/durable"
)

// Limits on a completion: a user waits for it, and cannot read more names.
const (
	maxCompletions    = 200    // names
	maxScannedEntries = 20_000 // in all directories together
	maxCompletionTime = 100 * time.Millisecond
	entriesPerCheck   = 1000 // between two checks of the time
)

// NameDir is a directory whose entries name hosts or episodes.
type NameDir struct {
	Path string
	// Name returns the host or episode that an entry names, or false if it names none.
	Name func(entry string) (name string, ok bool)
}

// FindNames returns the sorted names that begin with prefix, among the first 20,000 entries. It
// changes nothing, and skips what it cannot read.
func FindNames(prefix string, dirs ...NameDir) []string {
	return scanNames(prefix, maxScannedEntries, 0, dirs)
}

// scanNames is [FindNames] with a maximum number of entries and of results. If results is 0, neither
// results nor time are limited.
func scanNames(prefix string, entries, results int, dirs []NameDir) []string {
	var names []string
	begun, scanned := time.Now(), 0
	limitReached := func() bool {
		return scanned >= entries || results > 0 && scanned%entriesPerCheck == 0 && time.Since(begun) > maxCompletionTime
	}
	for _, d := range dirs {
		dir, err := durable.Open(d.Path)
		if err != nil {
			continue
		}
		for e, err := range dir.Names() {
			if err != nil {
				break
			}
			if name, ok := d.Name(e.Name()); ok && strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
			scanned++
			if limitReached() {
				break
			}
		}
		dir.Close()
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if results > 0 {
		names = names[:min(len(names), results)]
	}
	return names
}

// CompleteNames makes the shell complete arguments with the names in the directories that find
// returns. If root runs the completion, it stays root, because it only reads names. If one is set,
// only the first argument is completed.
func CompleteNames(one bool, find func(c *cobra.Command, args []string) []NameDir) cobra.CompletionFunc {
	return CompleteFrom(one, func(c *cobra.Command, args []string, prefix string) []string {
		return scanNames(prefix, maxScannedEntries, maxCompletions, find(c, args))
	})
}

// CompleteFrom is [CompleteNames] with a function that returns the names themselves.
func CompleteFrom(one bool, find func(c *cobra.Command, args []string, prefix string) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if one && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := slices.DeleteFunc(find(c, args, prefix), func(name string) bool {
			return slices.Contains(args, name) || !strings.HasPrefix(name, prefix)
		})
		return names[:min(len(names), maxCompletions)], cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteFlag is [CompleteNames] for a flag, which must be defined.
func CompleteFlag(c *cobra.Command, flag string, find func(c *cobra.Command, args []string) []NameDir) {
	registerFlag(c, flag, CompleteNames(false, find))
}

// CompleteFlagFrom is [CompleteFrom] for a flag, which must be defined.
func CompleteFlagFrom(c *cobra.Command, flag string, find func(c *cobra.Command, args []string, prefix string) []string) {
	registerFlag(c, flag, CompleteFrom(false, find))
}

func registerFlag(c *cobra.Command, flag string, complete cobra.CompletionFunc) {
	err := c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return complete(c, nil, prefix)
	})
	if err != nil {
		panic(err) // no such flag, or called twice
	}
}

// limitFileCompletion makes the shell offer files and directories only where a command takes them:
// for flags whose value is a FILE, a DIR or the directory OUT. Hidden commands are left alone.
func limitFileCompletion(c *cobra.Command) {
	for _, sub := range c.Commands() {
		limitFileCompletion(sub)
	}
	if c.Hidden {
		return
	}
	if c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, has := c.GetFlagCompletionFunc(f.Name); has {
			return
		}
		complete := cobra.NoFileCompletions
		switch value, _ := pflag.UnquoteUsage(f); value {
		case "FILE":
			return
		case "DIR", "OUT":
			complete = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, complete) // fails only if there is one
	})
}

// isCompletion reports whether a shell asks for completions.
func isCompletion(args []string) bool {
	return len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd)
}
