package cli

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

// Manual is what the manual pages of a program have besides its commands.
type Manual struct {
	Config string    // the name of the page about the configuration, such as "receiver.toml"
	Files  []ManFile // that the commands work with, where a package has them
}

// ManFile is a file or directory with what is in it.
type ManFile struct{ Path, Text string }

// manWriter writes a page in the macros of man(7).
type manWriter struct {
	strings.Builder
	manual  Manual
	program string
}

// writePages writes the pages of a command and those below it to a directory.
func (m Manual) writePages(c *cobra.Command, dir string) error {
	for _, sub := range documented(c) {
		if err := m.writePages(sub, dir); err != nil {
			return err
		}
	}
	w := manWriter{manual: m, program: c.Root().Name()}
	if err := w.begin(pageName(c), "1", c.Short); err != nil {
		return err
	}
	w.describe(c)
	w.listCommands(c)
	w.section("FILES")
	for _, f := range m.Files {
		w.item("\\fI"+roff(f.Path)+"\\fR", f.Text)
	}
	w.listExitCodes(c)
	w.section("EXAMPLES")
	w.literal(cmp.Or(c.Example, "  "+c.CommandPath()))
	w.listRelated(c)
	return os.WriteFile(filepath.Join(dir, pageName(c)+".1"), []byte(w.String()), 0o644)
}

// documented returns the commands below c that have a page, sorted by name. The scripts for
// completion, which packages install, need none.
func documented(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(sub *cobra.Command) bool {
		return !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() || sub.Name() == "completion"
	})
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// begin writes title and name. SOURCE_DATE_EPOCH, if it is set, is the date, for reproducible
// builds.
func (w *manWriter) begin(name, section, short string) error {
	date := time.Now()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		date = time.Unix(seconds, 0)
	}
	fmt.Fprintf(w, ".TH \"%s\" \"%s\" \"%s\" \"%s\" \"CIS490\"\n.nh\n.ad l\n",
		roff(strings.ToUpper(name)), section, date.UTC().Format("Jan 2006"), roff(w.program+" "+Version()))
	w.section("NAME")
	w.line(roff(name) + ` \- ` + roff(short))
	return nil
}

func (w *manWriter) section(title string) { fmt.Fprintf(w, ".SH %s\n", title) }

// line writes a line of text that is already escaped.
func (w *manWriter) line(text string) {
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	w.WriteString(text + "\n")
}

// item writes an item of a list, whose tag is already escaped.
func (w *manWriter) item(tag, text string) {
	w.WriteString(".TP\n")
	w.line(tag)
	w.line(roff(text))
}

// literal writes lines as they are.
func (w *manWriter) literal(text string) {
	w.WriteString(".EX\n")
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		w.line(roff(line))
	}
	w.WriteString(".EE\n")
}

// paragraphs writes a text whose paragraphs are separated by empty lines. Words in backquotes are
// commands.
func (w *manWriter) paragraphs(text, between string) {
	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			w.WriteString(between + "\n")
		}
		w.line(codeInText.ReplaceAllString(roff(strings.Join(strings.Fields(p), " ")), `\fB$1\fR`))
	}
}

var codeInText = regexp.MustCompile(`\\\(ga(.*?)\\\(ga`)

// roff escapes what has a meaning in roff, or that it would show as another character.
func roff(text string) string { return roffEscapes.Replace(text) }

var roffEscapes = strings.NewReplacer(`\`, `\e`, `-`, `\-`, "`", `\(ga`, `'`, `\(aq`, `"`, `\(dq`, `^`, `\(ha`, `~`, `\(ti`)

// describe writes synopsis, description and options.
func (w *manWriter) describe(c *cobra.Command) {
	w.section("SYNOPSIS")
	rest := strings.TrimPrefix(c.UseLine(), c.CommandPath())
	w.line("\\fB" + roff(c.CommandPath()) + "\\fR" + roff(rest))
	w.section("DESCRIPTION")
	text := exitCodes.ReplaceAllString(cmp.Or(c.Long, c.Short), "")
	w.paragraphs(text, ".PP")
	c.InitDefaultHelpFlag()
	w.listFlags("OPTIONS", c.NonInheritedFlags())
	w.listFlags("OPTIONS OF ALL COMMANDS", c.InheritedFlags())
}

func (w *manWriter) listFlags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	w.section(title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		tag := "\\fB" + roff("--"+f.Name) + "\\fR"
		if f.Shorthand != "" {
			tag = "\\fB" + roff("-"+f.Shorthand) + "\\fR, " + tag
		}
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			tag += " \\fI" + roff(value) + "\\fR"
		}
		if !slices.Contains([]string{"", "false", "0", "0s", "0B", "[]"}, f.DefValue) {
			usage += " (default: " + f.DefValue + ")"
		}
		w.item(tag, usage)
	})
}

func (w *manWriter) listCommands(c *cobra.Command) {
	if commands := documented(c); len(commands) > 0 {
		w.section("COMMANDS")
		for _, sub := range commands {
			w.item("\\fB"+roff(pageName(sub))+"\\fR(1)", sub.Short)
		}
	}
}

// exitCodes is the paragraph of a help text about exit codes.
var exitCodes = regexp.MustCompile(`(?s)(?:^|\n\n)Exit codes: (.*?)\.(?:\n\n|$)`)

// exitCode is a code at the beginning of its text.
var exitCode = regexp.MustCompile(`(?:^|,) *(\d+) `)

// codesOf returns the exit codes in the help of a command, with their meaning.
func codesOf(c *cobra.Command) map[int]string {
	codes := map[int]string{}
	found := exitCodes.FindStringSubmatch(c.Long)
	if found == nil {
		return codes
	}
	text := strings.Join(strings.Fields(found[1]), " ")
	at := exitCode.FindAllStringSubmatchIndex(text, -1)
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

// listExitCodes writes the exit codes of the program, some of which a command explains.
func (w *manWriter) listExitCodes(c *cobra.Command) {
	w.section("EXIT STATUS")
	codes := codesOf(c.Root())
	for code, text := range codesOf(c) {
		codes[code] = text
	}
	numbers := make([]int, 0, len(codes))
	for code := range codes {
		numbers = append(numbers, code)
	}
	slices.Sort(numbers)
	for _, code := range numbers {
		w.item("\\fB"+strconv.Itoa(code)+"\\fR", codes[code])
	}
	if c.Flags().Lookup("check") != nil {
		w.WriteString(".PP\n")
		w.line(roff("With --check: 0 fine, 1 warning, 2 critical, 3 unknown."))
	}
}

func (w *manWriter) listRelated(c *cobra.Command) {
	w.section("SEE ALSO")
	var pages []string
	if c.HasParent() {
		pages = append(pages, manLink(pageName(c.Parent()), "1"))
	}
	for _, sub := range documented(c) {
		pages = append(pages, manLink(pageName(sub), "1"))
	}
	if w.manual.Config != "" {
		pages = append(pages, manLink(w.manual.Config, "5"))
	}
	w.line(strings.Join(pages, ",\n"))
}

// manLink returns the name of a page, which is not hyphenated.
func manLink(name, section string) string { return "\\fB\\%" + roff(name) + "\\fR(" + section + ")" }
