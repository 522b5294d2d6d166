package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

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

// TestCompletionTakesBoundedTime: a user waits for it, and the disk may be slow.
func TestCompletionTakesBoundedTime(t *testing.T) {
	dir := t.TempDir()
	for i := range 3000 {
		fixture.WriteFile(t, filepath.Join(dir, fmt.Sprintf("run-%04d", i)), "")
	}
	synctest.Test(t, func(t *testing.T) {
		scanned := 0
		slow := cli.NameDir{Path: dir, Name: func(entry string) (string, bool) {
			scanned++
			time.Sleep(time.Millisecond)
			return entry, true
		}}
		complete := cli.CompleteNames(false, func(*cobra.Command, []string) []cli.NameDir { return []cli.NameDir{slow} })
		if names, _ := complete(&cobra.Command{}, nil, ""); len(names) != 200 || scanned != 1000 {
			t.Errorf("%d names of %d entries", len(names), scanned)
		}
	})
}

// TestCompletionHasEachNameOnce, however many directories have it, and no more names than a user can read.
func TestCompletionHasEachNameOnce(t *testing.T) {
	dir := t.TempDir()
	fixture.WriteFile(t, filepath.Join(dir, "run-1"), "")
	source := cli.NameDir{Path: dir, Name: func(entry string) (string, bool) { return entry, true }}
	if names := cli.FindNames("", source, source); !slices.Equal(names, []string{"run-1"}) {
		t.Errorf("got %q", names)
	}
	many := cli.CompleteFrom(false, func(*cobra.Command, []string, string) []string { return slices.Repeat([]string{"lab-01"}, 300) })
	if names, _ := many(&cobra.Command{}, nil, "lab"); len(names) != 200 {
		t.Errorf("%d names", len(names))
	}
}
