package labtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"cis490/internal/fixture"
)

// commandPatterns matches a command of a program in quotes, and what follows it.
var commandPatterns = map[string]*regexp.Regexp{
	".go": regexp.MustCompile(`'((?:receiver|shipper)(?: [^'"\n]+)?)'|\b(receiver pki (?:init|issue|list|revoke|renew)[a-z]*)`),
	".md": regexp.MustCompile("`((?:receiver|shipper)(?: [^`\n]+)?)`|(?m:^ *((?:receiver|shipper) [a-z-][^#\n]*))"),
}

// CheckAdvice checks that what messages, docs/install.md and docs/operations.md tell people to type is
// a command of a program, with flags that it has. Tree is the directory of the project.
func CheckAdvice(t testing.TB, tree string, command func() *cobra.Command) {
	t.Helper()
	program := command().Name()
	lines := advisedLines(t, tree, program)
	if len(lines) < 20 {
		t.Fatalf("found %d commands only", len(lines))
	}
	for _, words := range lines {
		checkCommandLine(t, command(), words)
	}
}

// checkCommandLine checks one command line, without the name of the program.
func checkCommandLine(t testing.TB, root *cobra.Command, words []string) {
	t.Helper()
	line := root.Name() + " " + strings.Join(words, " ")
	names := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.HasPrefix(w, "-") })
	c, rest, err := root.Find(names)
	if err != nil || c.HasAvailableSubCommands() && c != root && len(rest) > 0 {
		t.Errorf("'%s': no such command: %v", line, err)
		return
	}
	c.InitDefaultHelpFlag()
	for _, w := range words {
		name, _, _ := strings.Cut(strings.TrimPrefix(w, "--"), "=")
		if w == "--" || !strings.HasPrefix(w, "--") || c.Flag(name) != nil || root.Flag(name) != nil && c == root {
			continue
		}
		t.Errorf("'%s': no flag %s", line, w)
	}
}

// advisedLines returns the command lines of a program, without its name, that the messages
// of both programs, docs/install.md and docs/operations.md tell people to type.
func advisedLines(t testing.TB, root, program string) [][]string {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"cmd/*/*.go", "internal/*/*.go", "docs/install.md", "docs/operations.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: found %q, %v", pattern, found, err)
		}
		paths = append(paths, found...)
	}
	var all [][]string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/labtest/") {
			continue
		}
		text, err := os.ReadFile(path)
		fixture.Must(t, err)
		for _, m := range commandPatterns[filepath.Ext(path)].FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(m[1] + m[2])
			if words[0] == program && len(words) > 1 {
				all = append(all, words[1:])
			}
		}
	}
	return all
}
