package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/fixture"
)

// generate runs "prog generate WHAT DIR" and returns the files by name.
func generate(t *testing.T, what string) map[string][]byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "made")
	root := &cobra.Command{Use: "prog", Short: "Do it", Run: func(*cobra.Command, []string) {}}
	sub := &cobra.Command{Use: "held", Short: "Show what is held", Run: func(*cobra.Command, []string) {}}
	root.AddCommand(sub, cli.GenerateCommand())
	root.SetArgs([]string{"generate", what, dir})
	fixture.Must(t, root.Execute())
	entries, err := os.ReadDir(dir)
	fixture.Must(t, err)
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// Two builds of one commit must give the same bytes, whenever they are made.
func TestManPagesAreDatedByTheCommit(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	pages := generate(t, "man")
	for _, name := range []string{"prog.1", "prog-held.1"} {
		if !bytes.Contains(pages[name], []byte(`"Jan 1970"`)) {
			t.Errorf("%s: want a page dated Jan 1970, got:\n%s", name, pages[name])
		}
	}
	if page, there := pages["prog-generate.1"]; there {
		t.Errorf("a page for the hidden command:\n%s", page)
	}
	for name, page := range pages {
		if bytes.Contains(page, []byte("Auto generated")) {
			t.Errorf("%s says when it was generated", name)
		}
	}
}

func TestCompletionsForEveryShell(t *testing.T) {
	files := generate(t, "completion")
	for _, name := range []string{"prog.bash", "_prog", "prog.fish"} {
		if !bytes.Contains(files[name], []byte("prog")) {
			t.Errorf("%s: got %d bytes that do not name the program", name, len(files[name]))
		}
	}
}
