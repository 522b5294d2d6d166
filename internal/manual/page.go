package manual

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manWriter writes a page in the macros of man(7).
type manWriter struct {
	strings.Builder
	manual  Manual
	program string
}

// writePages writes the pages of a command and those below it to a directory.
func (m Manual) writePages(c *cobra.Command, dir string) error {
	for _, sub := range documentedCommands(c) {
		if err := m.writePages(sub, dir); err != nil {
			return err
		}
	}
	w := manWriter{manual: m, program: c.Root().Name()}
	if err := w.writeHeader(pageName(c), "1", c.Short); err != nil {
		return err
	}
	w.writeDescription(c)
	w.listCommands(c)
	w.startSection("FILES")
	for _, f := range m.Files {
		w.writeItem("\\fI"+escapeRoff(f.Path)+"\\fR", f.Text)
	}
	w.listExitCodes(c)
	w.startSection("EXAMPLES")
	w.writeLiteral(cmp.Or(c.Example, "  "+c.CommandPath()))
	w.listRelated(c)
	return os.WriteFile(filepath.Join(dir, pageName(c)+".1"), []byte(w.String()), 0o644)
}

// documentedCommands returns the commands below c that have a page, sorted by name. The completion
// command needs none, because packages install the scripts that it prints.
func documentedCommands(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(sub *cobra.Command) bool {
		return !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() || sub.Name() == "completion"
	})
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// writeHeader writes the title and the section NAME. If SOURCE_DATE_EPOCH is set, it is the date, for
// reproducible builds.
func (w *manWriter) writeHeader(name, section, short string) error {
	date := time.Now()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		date = time.Unix(seconds, 0)
	}
	fmt.Fprintf(w, ".TH \"%s\" \"%s\" \"%s\" \"%s\" \"CIS490\"\n.nh\n.ad l\n",
		escapeRoff(strings.ToUpper(name)), section, date.UTC().Format("Jan 2006"), escapeRoff(w.program+" "+w.manual.Version))
	w.startSection("NAME")
	w.writeLine(escapeRoff(name) + ` \- ` + escapeRoff(short))
	return nil
}

func (w *manWriter) startSection(title string) { fmt.Fprintf(w, ".SH %s\n", title) }

// writeLine writes a line of text that is already escaped.
func (w *manWriter) writeLine(text string) {
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	w.WriteString(text + "\n")
}

// writeItem writes an item of a list. The tag must be escaped already.
func (w *manWriter) writeItem(tag, text string) {
	w.WriteString(".TP\n")
	w.writeLine(tag)
	w.writeLine(escapeRoff(text))
}

// writeLiteral writes text without filling its lines.
func (w *manWriter) writeLiteral(text string) {
	w.WriteString(".EX\n")
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		w.writeLine(escapeRoff(line))
	}
	w.WriteString(".EE\n")
}

// writeParagraphs writes a text whose paragraphs are separated by empty lines. Words in backquotes
// are commands.
func (w *manWriter) writeParagraphs(text, between string) {
	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			w.WriteString(between + "\n")
		}
		w.writeLine(codeInText.ReplaceAllString(escapeRoff(strings.Join(strings.Fields(p), " ")), `\fB$1\fR`))
	}
}

var codeInText = regexp.MustCompile(`\\\(ga(.*?)\\\(ga`)

// escapeRoff escapes the characters that roff interprets or replaces.
func escapeRoff(text string) string { return roffEscapes.Replace(text) }

var roffEscapes = strings.NewReplacer(`\`, `\e`, `-`, `\-`, "`", `\(ga`, `'`, `\(aq`, `"`, `\(dq`, `^`, `\(ha`, `~`, `\(ti`)

// writeDescription writes the synopsis, the description and the options.
func (w *manWriter) writeDescription(c *cobra.Command) {
	w.startSection("SYNOPSIS")
	rest := strings.TrimPrefix(c.UseLine(), c.CommandPath())
	w.writeLine("\\fB" + escapeRoff(c.CommandPath()) + "\\fR" + escapeRoff(rest))
	w.startSection("DESCRIPTION")
	text := exitCodesPattern.ReplaceAllString(cmp.Or(c.Long, c.Short), "")
	w.writeParagraphs(text, ".PP")
	c.InitDefaultHelpFlag()
	w.listFlags("OPTIONS", c.NonInheritedFlags())
	w.listFlags("OPTIONS OF ALL COMMANDS", c.InheritedFlags())
}

func (w *manWriter) listFlags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	w.startSection(title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		tag := "\\fB" + escapeRoff("--"+f.Name) + "\\fR"
		if f.Shorthand != "" {
			tag = "\\fB" + escapeRoff("-"+f.Shorthand) + "\\fR, " + tag
		}
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			tag += " \\fI" + escapeRoff(value) + "\\fR"
		}
		if !slices.Contains([]string{"", "false", "0", "0s", "0B", "[]"}, f.DefValue) {
			usage += " (default: " + f.DefValue + ")"
		}
		w.writeItem(tag, usage)
	})
}

func (w *manWriter) listCommands(c *cobra.Command) {
	if commands := documentedCommands(c); len(commands) > 0 {
		w.startSection("COMMANDS")
		for _, sub := range commands {
			w.writeItem("\\fB"+escapeRoff(pageName(sub))+"\\fR(1)", sub.Short)
		}
	}
}

// exitCodesPattern matches the paragraph of a help text about exit codes.
var exitCodesPattern = regexp.MustCompile(`(?s)(?:^|\n\n)Exit codes: (.*?)\.(?:\n\n|$)`)

// exitCodePattern matches a code at the beginning of its explanation.
var exitCodePattern = regexp.MustCompile(`(?:^|,) *(\d+) `)

// parseExitCodes returns the exit codes in the help of a command, with their meaning.
func parseExitCodes(c *cobra.Command) map[int]string {
	codes := map[int]string{}
	found := exitCodesPattern.FindStringSubmatch(c.Long)
	if found == nil {
		return codes
	}
	text := strings.Join(strings.Fields(found[1]), " ")
	at := exitCodePattern.FindAllStringSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		if code, err := strconv.Atoi(text[m[2]:m[3]]); err == nil {
			codes[code] = text[m[1]:end]
		}
	}
	return codes
}

// listExitCodes writes the exit codes of the program. If the help of the command explains a code, that
// explanation replaces the program's.
func (w *manWriter) listExitCodes(c *cobra.Command) {
	w.startSection("EXIT STATUS")
	codes := parseExitCodes(c.Root())
	for code, text := range parseExitCodes(c) {
		codes[code] = text
	}
	numbers := make([]int, 0, len(codes))
	for code := range codes {
		numbers = append(numbers, code)
	}
	slices.Sort(numbers)
	for _, code := range numbers {
		w.writeItem("\\fB"+strconv.Itoa(code)+"\\fR", codes[code])
	}
	if c.Flags().Lookup("check") != nil {
		w.WriteString(".PP\n")
		w.writeLine(escapeRoff("With --check: 0 fine, 1 warning, 2 critical, 3 unknown."))
	}
}

func (w *manWriter) listRelated(c *cobra.Command) {
	w.startSection("SEE ALSO")
	var pages []string
	if c.HasParent() {
		pages = append(pages, manLink(pageName(c.Parent()), "1"))
	}
	for _, sub := range documentedCommands(c) {
		pages = append(pages, manLink(pageName(sub), "1"))
	}
	if w.manual.Config != "" {
		pages = append(pages, manLink(w.manual.Config, "5"))
	}
	w.writeLine(strings.Join(pages, ",\n"))
}

// manLink returns a reference to a page. It must not be hyphenated.
func manLink(name, section string) string {
	return "\\fB\\%" + escapeRoff(name) + "\\fR(" + section + ")"
}
