package main

import (
	"strings"
	"testing"

	"cis490/internal/labtest"
)

// TestAdviceNamesCommandsThatExist: what messages and docs/operations.md tell people to
// type is a command, with flags that it has.
func TestAdviceNamesCommandsThatExist(t *testing.T) {
	lines := labtest.Advised(t, "../..", "shipper")
	if len(lines) < 20 {
		t.Fatalf("found %d commands only", len(lines))
	}
	for _, words := range lines {
		var names []string
		for _, w := range words {
			if !strings.HasPrefix(w, "-") {
				names = append(names, w)
			}
		}
		root := command()
		c, rest, err := root.Find(names)
		if err != nil || c.HasAvailableSubCommands() && c != root && len(rest) > 0 {
			t.Errorf("'shipper %s': no such command: %v", strings.Join(words, " "), err)
			continue
		}
		c.InitDefaultHelpFlag()
		for _, w := range words {
			name, _, _ := strings.Cut(strings.TrimPrefix(w, "--"), "=")
			if w == "--" || !strings.HasPrefix(w, "--") || c.Flag(name) != nil || root.Flag(name) != nil && c == root {
				continue
			}
			t.Errorf("'shipper %s': no flag %s", strings.Join(words, " "), w)
		}
	}
}
