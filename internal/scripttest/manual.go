package scripttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"cis490/internal/fixture"
)

// CheckManual generates the manual pages of a program, with the page about its configuration, and
// fails if the formatter warns about one. It returns the text of the pages by name.
func CheckManual(t *testing.T, root *cobra.Command, example string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	root.SetArgs([]string{"generate", "man", dir, "--example", example})
	fixture.Must(t, root.Execute())
	entries, err := os.ReadDir(dir)
	fixture.Must(t, err)
	groff, missing := exec.LookPath("groff")
	if missing != nil && os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	pages := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		fixture.Must(t, err)
		pages[e.Name()] = string(text)
		if missing != nil {
			continue
		}
		if output, err := exec.Command(groff, "-man", "-ww", "-z", "-Tutf8", path).CombinedOutput(); err != nil || len(output) > 0 {
			t.Errorf("%s: %v: %s", e.Name(), err, output)
		}
	}
	return pages
}
