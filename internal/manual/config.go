package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// writeConfigPage generates the page about the configuration from the example in a package: the
// comments become the text, and the values are the defaults.
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
	if err := w.writeHeader(m.Config, "5", strings.TrimSuffix(strings.ToLower(about[:1])+about[1:], ".")); err != nil {
		return err
	}
	w.startSection("DESCRIPTION")
	w.writeLine(escapeRoff("This page is generated from " + filepath.Base(example) + "."))
	w.WriteString(".PP\n")
	w.writeParagraphs(rest, ".PP")
	w.startSection("KEYS")
	for _, p := range parts[1:] {
		w.writePart(p)
	}
	w.startSection("FILES")
	w.writeItem("\\fI"+escapeRoff("/etc/cis490/"+m.Config)+"\\fR", "the default configuration of "+root.Name()+"; --config names another")
	w.startSection("SEE ALSO")
	w.writeLine(manLink(root.Name(), "1") + ",\n" + manLink(root.Name()+"-check", "1"))
	return os.WriteFile(filepath.Join(dir, m.Config+".5"), []byte(w.String()), 0o644)
}

// writePart writes a table's name, a paragraph, or keys with their text.
func (w *manWriter) writePart(p examplePart) {
	switch {
	case p.table != "":
		w.WriteString(".SS " + escapeRoff("["+p.table+"]") + "\n")
	case p.keys == nil:
		w.WriteString(".PP\n")
		w.writeParagraphs(p.text, ".PP")
	default:
		macro := ".TP"
		for _, key := range p.keys {
			w.WriteString(macro + "\n")
			w.writeLine("\\fB" + escapeRoff(key.name) + "\\fR = " + escapeRoff(key.value))
			macro = ".TQ" // the keys share one text
		}
		w.writeParagraphs(p.text, ".IP")
	}
}

// examplePart is the name of a table, a comment, or keys with the comment above them.
type examplePart struct {
	table string
	text  string // paragraphs, separated by empty lines
	keys  []exampleKey
}

// exampleKey is a key with its value as the example writes it.
type exampleKey struct{ name, value string }

var (
	exampleTable = regexp.MustCompile(`^\[([a-z0-9_.]+)\]$`)
	exampleLine  = regexp.MustCompile(`^#?([a-z0-9_]+) = (.+)$`) // a default that files should not repeat is a comment
)

// parseExample returns the parts of an example in order. It parses only what the examples use of
// TOML: one key per line, and comments on lines of their own.
func parseExample(text string) []examplePart {
	var parts []examplePart
	var p examplePart
	var lines []string
	endPart := func() {
		p.text = strings.Join(lines, "\n")
		if p.text != "" || p.keys != nil {
			parts = append(parts, p)
		}
		p, lines = examplePart{}, nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if table := exampleTable.FindStringSubmatch(line); table != nil {
			endPart()
			parts = append(parts, examplePart{table: table[1]})
		} else if key := exampleLine.FindStringSubmatch(line); key != nil {
			p.keys = append(p.keys, exampleKey{key[1], key[2]})
		} else if comment, ok := strings.CutPrefix(line, "#"); ok {
			if p.keys != nil {
				endPart()
			}
			lines = append(lines, strings.TrimPrefix(comment, " "))
		} else {
			endPart()
		}
	}
	endPart()
	return parts
}
