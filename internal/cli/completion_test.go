package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/fixture"
)

func TestCompletionIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 21_000 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("run-%05d", i)))
		fixture.Must(t, err)
		f.Close()
	}
	source := cli.NameDir{Path: dir, Name: func(entry string) (string, bool) { return entry, true }}
	scanned := 0
	counted := source
	counted.Name = func(entry string) (string, bool) { scanned++; return entry, true }
	if names := cli.FindNames("", counted); len(names) != 20_000 || scanned != 20_000 || !slices.IsSorted(names) {
		t.Errorf("%d names of %d entries, want 20000", len(names), scanned)
	}
	complete := cli.CompleteNames(false, func(*cobra.Command, []string) []cli.NameDir { return []cli.NameDir{source, {Path: dir + "/missing"}} })
	names, directive := complete(&cobra.Command{}, []string{"run-00001"}, "run-")
	if len(names) > 200 || len(names) < 100 || slices.Contains(names, "run-00001") || directive != cobra.ShellCompDirectiveNoFileComp {
		t.Errorf("got %d names, directive %v", len(names), directive)
	}
	one := cli.CompleteNames(true, func(*cobra.Command, []string) []cli.NameDir { return []cli.NameDir{source} })
	if names, _ := one(&cobra.Command{}, []string{"first"}, ""); len(names) > 0 {
		t.Errorf("a second argument is completed: %d names", len(names))
	}
}
