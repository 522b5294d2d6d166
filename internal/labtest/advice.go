package labtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// advised matches a command of a program in quotes, and what follows it.
var advised = map[string]*regexp.Regexp{
	".go": regexp.MustCompile(`'((?:receiver|shipper)(?: [^'"\n]+)?)'|\b(receiver pki (?:init|issue|list|revoke|renew)[a-z]*)`),
	".md": regexp.MustCompile("`((?:receiver|shipper)(?: [^`\n]+)?)`|(?m:^ *((?:receiver|shipper) [a-z-][^#\n]*))"),
}

// Advised returns the command lines of a program, without its name, that the messages of
// both programs and docs/operations.md tell people to type. Root is the tree's directory.
func Advised(t testing.TB, root, program string) [][]string {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"cmd/*/*.go", "internal/*/*.go", "docs/operations.md"} {
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
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range advised[filepath.Ext(path)].FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(m[1] + m[2])
			if words[0] == program && len(words) > 1 {
				all = append(all, words[1:])
			}
		}
	}
	return all
}
