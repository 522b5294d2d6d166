// Package manual writes the man pages and the completions of a program, for its packages.
//
// Invariant: two builds of one commit write the same bytes.
package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// Manual is what the manual pages of a program contain besides its commands.
type Manual struct {
	Version string // of the program
	Config  string // the name of the page about the configuration, such as "receiver.toml"
	Files   []File // that the commands use, at the paths of a package
}

// File is a file or directory and a description of its contents.
type File struct{ Path, Text string }

// GenerateCommand writes files of the program's package. It is hidden, because users do not need
// it.
func GenerateCommand(manual Manual) *cobra.Command {
	c := &cobra.Command{
		Use:    "generate",
		Short:  "Write man pages and completions, for packages",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	example := ""
	man := newGenerator("man", "Write a man page for each command", func(root *cobra.Command, dir string) error {
		if err := manual.writePages(root, dir); err != nil || example == "" {
			return err
		}
		return manual.writeConfigPage(root, example, dir)
	})
	man.Flags().StringVar(&example, "example", "", "also write a page about the configuration, from the example in `FILE`")
	c.AddCommand(man, newGenerator("completion", "Write completions for bash, zsh and fish", generateCompletion))
	return c
}

func newGenerator(name, short string, generate func(root *cobra.Command, dir string) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " DIR",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			// Files of a package are for all users, unlike those of a daemon.
			syscall.Umask(0o022)
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			if err := generate(c.Root(), args[0]); err != nil {
				return fmt.Errorf("generate %s in %s: %w", name, args[0], err)
			}
			return nil
		},
	}
}

func generateCompletion(root *cobra.Command, dir string) error {
	for file, generate := range map[string]func(path string) error{
		root.Name() + ".bash": func(path string) error { return root.GenBashCompletionFileV2(path, true) },
		"_" + root.Name():     root.GenZshCompletionFile,
		root.Name() + ".fish": func(path string) error { return root.GenFishCompletionFile(path, true) },
	} {
		if err := generate(filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	return nil
}
