package manual_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"cis490/internal/fixture"
	"cis490/internal/manual"
)

// generate runs "prog generate WHAT DIR" and returns the files by name.
func generate(t *testing.T, what string) map[string][]byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "made")
	nothing := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "prog", Short: "Do it", Run: nothing, Long: "Prog does it.\n\nExit codes: 0 done, 1 failed, 3 an episode\nis held, 74 fault."}
	sub := &cobra.Command{
		Use: "held", Short: "Show what is held", Run: nothing, Example: "  prog held --max-age 1d | jq '.x'\n.dots",
		Long: ".dots begin a line,\nand 'quotes'\n\nA \\ is shown.\n\nExit codes: 0 all shown, 3 some, or many,\nare held.",
	}
	sub.Flags().String("max-age", "7d", "since `DURATION` ago")
	sub.Flags().String("secret", "", "hidden")
	sub.Flags().Lookup("secret").Hidden = true
	sub.Flags().String("former", "", "deprecated")
	sub.Flags().Lookup("former").Deprecated = "use --max-age"
	root.AddCommand(sub, manual.GenerateCommand(manual.Manual{Config: "prog.toml", Files: []manual.File{{Path: "prog.conf", Text: "settings"}}}))
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

// writeExample writes an example of a configuration and returns its path.
func writeExample(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prog.toml.example")
	fixture.Must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestManPagesHaveAllSections(t *testing.T) {
	page := string(generate(t, "man")["prog-held.1"])
	at := 0
	for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO"} {
		next := strings.Index(page, "\n.SH "+section+"\n")
		if next < at {
			t.Errorf("%s is missing, or not in order:\n%s", section, page)
		}
		at = max(at, next)
	}
	for _, want := range []string{
		`\fIprog.conf\fR`, ".TP\n\\fB0\\fR\nall shown\n.TP\n\\fB1\\fR\nfailed\n.TP\n\\fB3\\fR\nsome, or many, are held\n.TP\n\\fB74\\fR\nfault\n", // the command's own, and the program's
		"\\fB\\-\\-max\\-age\\fR \\fIDURATION\\fR\nsince DURATION ago (default: 7d)\n", ".EX\n  prog held \\-\\-max\\-age 1d | jq \\(aq.x\\(aq\n\\&.dots\n.EE\n",
		"\\&.dots begin a line, and \\(aqquotes\\(aq\n.PP\nA \\e is shown.\n", "\\fB\\%prog.toml\\fR(5)",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	if strings.Contains(page, "Exit codes") || strings.Contains(page, "secret") || strings.Contains(page, "former") {
		t.Errorf("exit codes in the description, or a hidden or deprecated flag:\n%s", page)
	}
}

func TestConfigPageHasEveryKey(t *testing.T) {
	const text = "# Configuration of Prog, here.\n#\n# Change\n# it, with `prog check`.\n\n# The name.\nname = \"a-b\"\n\n[t]\n# Two\n# keys.\n#\n# More.\na = 1\nb = 2\n\n# An address.\n#listen = \"x\"\n\n# No key.\n"
	dir := t.TempDir()
	root := &cobra.Command{Use: "prog", Short: "Do it", Run: func(*cobra.Command, []string) {}}
	root.AddCommand(manual.GenerateCommand(manual.Manual{Config: "prog.toml"}))
	root.SetArgs([]string{"generate", "man", dir, "--example", writeExample(t, text)})
	fixture.Must(t, root.Execute())
	page, err := os.ReadFile(filepath.Join(dir, "prog.toml.5"))
	fixture.Must(t, err)
	for _, want := range []string{
		"prog.toml \\- configuration of Prog, here\n", "Change it, with \\fBprog check\\fR.\n", ".TP\n\\fBname\\fR = \\(dqa\\-b\\(dq\nThe name.\n",
		".SS [t]\n.TP\n\\fBa\\fR = 1\n.TQ\n\\fBb\\fR = 2\nTwo keys.\n.IP\nMore.\n", ".TP\n\\fBlisten\\fR = \\(dqx\\(dq\nAn address.\n", ".PP\nNo key.\n", ".SH FILES\n", ".SH SEE ALSO\n",
	} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	root.SetArgs([]string{"generate", "man", dir, "--example", writeExample(t, "name = 1\n")})
	if err := root.Execute(); err == nil {
		t.Error("an example without a comment was accepted")
	}
}
