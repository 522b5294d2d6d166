package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// writeConfigPage writes the page about the configuration, made from the example of a package: its
// comments are the text, and its values the defaults.
func (m Manual) writeConfigPage(root *cobra.Command, example, dir string) error {
	text, err := os.ReadFile(example)
	if err != nil {
		return err
	}
	parts := parseExample(string(text))
	if len(parts) == 0 || parts[0].keys != nil {
		return fmt.Errorf("%s does not begin with a comment about the file", example)
	}
	about, rest, _ := strings.Cut(parts[0].text, "\n\n")
	w := manWriter{manual: m, program: root.Name()}
	if err := w.begin(m.Config, "5", strings.TrimSuffix(strings.ToLower(about[:1])+about[1:], ".")); err != nil {
		return err
	}
	w.section("DESCRIPTION")
	w.line(roff("This page is made from " + filepath.Base(example) + "."))
	w.WriteString(".PP\n")
	w.paragraphs(rest, ".PP")
	w.section("KEYS")
	for _, p := range parts[1:] {
		w.writePart(p)
	}
	w.section("FILES")
	w.item("\\fI"+roff("/etc/cis490/"+m.Config)+"\\fR", "the default configuration of "+root.Name()+"; --config names another")
	w.section("SEE ALSO")
	w.line(manLink(root.Name(), "1") + ",\n" + manLink(root.Name()+"-check", "1"))
	return os.WriteFile(filepath.Join(dir, m.Config+".5"), []byte(w.String()), 0o644)
}

// writePart writes a table's name, a paragraph, or keys with their text.
func (w *manWriter) writePart(p examplePart) {
	switch {
	case p.table != "":
		w.WriteString(".SS " + roff("["+p.table+"]") + "\n")
	case p.keys == nil:
		w.WriteString(".PP\n")
		w.paragraphs(p.text, ".PP")
	default:
		macro := ".TP"
		for _, key := range p.keys {
			w.WriteString(macro + "\n")
			w.line("\\fB" + roff(key.name) + "\\fR = " + roff(key.value))
			macro = ".TQ" // the text is that of all keys
		}
		w.paragraphs(p.text, ".IP")
	}
}

// examplePart is the name of a table, a comment, or keys and the comment above them.
type examplePart struct {
	table string
	text  string // paragraphs, separated by empty lines
	keys  []exampleKey
}

// exampleKey is a key with its value as the example writes it.
type exampleKey struct{ name, value string }

var (
	exampleTable = regexp.MustCompile(`^\[([a-z0-9_.]+)\]$`)
	exampleLine  = regexp.MustCompile(`^#?([a-z0-9_]+) = (.+)$`) // a default that a file should not name is a comment
)

// parseExample returns the parts of an example in order. It is not a parser of TOML: an example has
// a key per line, and whole lines of comments.
func parseExample(text string) []examplePart {
	var parts []examplePart
	var p examplePart
	var lines []string
	end := func() {
		p.text = strings.Join(lines, "\n")
		if p.text != "" || p.keys != nil {
			parts = append(parts, p)
		}
		p, lines = examplePart{}, nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if table := exampleTable.FindStringSubmatch(line); table != nil {
			end()
			parts = append(parts, examplePart{table: table[1]})
		} else if key := exampleLine.FindStringSubmatch(line); key != nil {
			p.keys = append(p.keys, exampleKey{key[1], key[2]})
		} else if comment, ok := strings.CutPrefix(line, "#"); ok {
			if p.keys != nil {
				end()
			}
			lines = append(lines, strings.TrimPrefix(comment, " "))
		} else {
			end()
		}
	}
	end()
	return parts
}
