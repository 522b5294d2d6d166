package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"cis490/internal/fixture"
)

// banned are words and shapes that confused readers, and what to write instead. No text
// may have them: neither docs nor comments nor messages. The glossary has the words to use.
var banned = map[string]string{
	`laws?`:                          "invariant",
	`house`:                          "repository, or receiver",
	`mend(s|ed|ing)?`:                "fix, repair or recover",
	`rot(s|ted|ten|ting)?`:           "corrupt",
	`anew`:                           "again",
	`ours|theirs`:                    "cis490, local, or receiver",
	`unheard`:                        "cached",
	`who finds none|who has none`:    "name the subject",
	`head start`:                     "streaming upload",
	`set aside|sets aside`:           "quarantine",
	`under ?way`:                     "in flight",
	`stands here|stand here`:         "is listed",
	`(go(es)?|went) on with`:         "continue",
	`that there (is|are)`:            "leave it out",
	`so many|for so long`:            "name the number or the time",
	`wants an?`:                      "requires",
	`is no (valid )?(duration|size)`: "is not a valid ...",
	`(archives?|episodes?|folders?|rows?|lines?|locks?|files?|uploads?|requests?) an? (episode|host|key|second|minute|hour|day)`: "per",
}

// bannedInDocs are words that mean something else in code: a box in a name, a user's home.
var bannedInDocs = map[string]string{
	`rooms?`: "package, or space",
	`papers`: "credentials",
	`home`:   "delivered, or received",
	`box`:    "sandbox",
}

// bannedInCode are shapes that comments and log messages had more than twice. Some of them
// are plain English where a sentence has a subject that readers know, as in docs.
var bannedInCode = map[string]string{
	`(brings?|comes?|came) home`:                          "delivered, or received",
	`nobody|somebody|anybody`:                             "name the user, process or caller",
	`he|him|his`:                                          "name the process or the person",
	`(for|to|of|by|as|than) who|who (finds|comes)`:        "a process that, a user who",
	`what (came|comes|become|becomes|became) of`:          "what happened to, or the result of",
	`(is|are) to become of`:                               "what must happen to",
	`stands? (in|at|on|there|beside|before|behind|alone)`: "is",
	`lies? (in|at|on|there|beside|below|outside)`:         "is",
	`go on|goes on|went on|going on`:                      "continue",
	`but for`:                                             "except",
	`at the (most|least)`:                                 "at most, at least",
	`all that (is|are|was|were|can|may|must|has|have|it)`: "everything that",
	`on (its|their) way`:                                  "in flight",
	`as if nothing`:                                       "unchanged",
	`(takes?|took|taken) away`:                            "remove, or retire",
	`takes? (it |them )?in`:                               "receive, or store",
	`another \w+ than`:                                    "a different ... than, or other than",
	`that is no [a-kn-z]\w+`:                              "is not a",
	`wants (the|it|that|each|every|no|nothing|any|all)`:   "checks that, or requires",
	`has not got|have not got|for want of`:                "lacks",
	`a person|persons`:                                    "an operator",
	`of before|the one of`:                                "name the time or the thing",
	`says? of|said of|told of`:                            "reports, states, describes",
	`its own matter|(is|are) good (for|at)`:               "of no concern to it; valid",
	`a(n|s|) honest`:                                      "ordinary",
}

// TestWordsStayPlain covers README, AGENTS.md, docs/*.md without the decisions, the
// example configurations and the help of both programs. It ignores code.
func TestWordsStayPlain(t *testing.T) {
	texts := helpTexts(t)
	for _, pattern := range []string{"../README.md", "../AGENTS.md", "../docs/*.md", "../etc/*.example"} {
		for _, path := range glob(t, pattern) {
			texts[path] = withoutCode(readFile(t, path))
		}
	}
	find := newFinder(banned, bannedInDocs)
	for path, text := range texts {
		find.check(t, path, text)
	}
}

// TestCommentsStayPlain covers the comments of all Go files, scripts and units.
func TestCommentsStayPlain(t *testing.T) {
	find, inUnits := newFinder(banned, bannedInCode), newFinder(banned)
	for _, f := range goFiles(t) {
		for _, group := range f.ast.Comments {
			find.check(t, f.position(group), withoutNames(group.Text()))
		}
	}
	for path, text := range scripts(t) {
		for n, line := range strings.Split(text, "\n") {
			if comment, ok := strings.CutPrefix(strings.TrimLeft(line, "\t @"), "#"); ok && !strings.HasPrefix(comment, "!") {
				where := fmt.Sprintf("%s:%d", path, n+1)
				if strings.HasPrefix(path, "../etc/") {
					inUnits.check(t, where, withoutNames(comment))
				} else {
					find.check(t, where, withoutNames(comment))
				}
			}
		}
	}
}

// TestLogMessagesStayPlain: each is a constant of at most six words, so that operators can
// search for it. What varies, and advice, are attributes.
func TestLogMessagesStayPlain(t *testing.T) {
	find := newFinder(banned, bannedInCode)
	count := 0
	for _, f := range goFiles(t) {
		if f.test || strings.HasPrefix(f.path, "scripts/") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			message := logMessage(n)
			if message == nil {
				return true
			}
			count++
			text, _ := textOf(message)
			_, literal := message.(*ast.BasicLit)
			switch words := strings.Fields(text); {
			case !literal:
				t.Errorf("%s: the message of a log line is not a constant", f.position(n))
			case len(words) > 6:
				t.Errorf("%s: %q: %d words: write at most six, and the rest as attributes", f.position(n), text, len(words))
			}
			find.check(t, f.position(n), text)
			return true
		})
	}
	if count < 100 {
		t.Fatalf("found %d log messages only", count)
	}
}

// logMessage returns the message if n is a call of a method of slog.Logger, or nil. A logger
// is known by its name: log, logger, or a field or method called so.
func logMessage(n ast.Node) ast.Expr {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return nil
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isLogger(method.X) {
		return nil
	}
	at, ok := map[string]int{
		"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "Log": 2, "LogAttrs": 2,
		"DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1,
	}[method.Sel.Name]
	if !ok || len(call.Args) <= at {
		return nil
	}
	return call.Args[at]
}

func isLogger(x ast.Expr) bool {
	name := ""
	switch x := x.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	case *ast.CallExpr: // With
		f, ok := x.Fun.(*ast.SelectorExpr)
		return ok && (f.Sel.Name == "With" && isLogger(f.X) || isLogger(f))
	}
	return strings.EqualFold(name, "log") || strings.EqualFold(name, "logger")
}

// goFiles returns all Go files except this one, which names the words.
func goFiles(t *testing.T) []*file {
	t.Helper()
	var files []*file
	for _, p := range project(t) {
		files = append(files, p.files...)
	}
	for _, name := range glob(t, "*.go") {
		f, err := parse(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "words_test.go" {
			files = append(files, f)
		}
	}
	return files
}

func (f *file) position(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.set.Position(n.Pos()).Line)
}

// scripts returns the shell scripts, the Makefile and the units.
func scripts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{"../Makefile": readFile(t, "../Makefile")}
	shell := regexp.MustCompile(`^#!.*sh\b|^# shellcheck shell=`)
	for _, pattern := range []string{"../scripts/*", "../scripts/*/*", "../.ci/*", "../etc/*"} {
		for _, path := range glob(t, pattern) {
			if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
				continue
			}
			text := readFile(t, path)
			if shell.MatchString(text) || strings.HasPrefix(path, "../etc/") {
				texts[path] = text
			}
		}
	}
	if len(texts) < 30 {
		t.Fatalf("found %d scripts and units only", len(texts))
	}
	return texts
}

// finder finds words and shapes in a text.
type finder []struct {
	shape  *regexp.Regexp
	better string
}

func newFinder(lists ...map[string]string) finder {
	var f finder
	for _, list := range lists {
		for word, better := range list {
			f = append(f, struct {
				shape  *regexp.Regexp
				better string
			}{regexp.MustCompile(`(?i)\b(` + word + `)\b`), better})
		}
	}
	return f
}

func (f finder) check(t *testing.T, where, text string) {
	t.Helper()
	text = strings.Join(strings.Fields(text), " ")
	for _, w := range f {
		for _, found := range w.shape.FindAllString(text, -1) {
			t.Errorf("%s: %q: write %s", where, found, w.better)
		}
	}
}

// withoutNames removes what a comment quotes, and names of tests, files, flags and variables.
func withoutNames(text string) string {
	return names.ReplaceAllString(text, "x")
}

var names = regexp.MustCompile("`[^`]*`|\"[^\"]*\"|'[^' ]+ [^']*'|\\bTest\\w+|\\S*[/_$=]\\S*|\\w+\\.\\w\\S*|--?[a-z]\\S*")

// helpTexts returns the help of each file of commands: descriptions and flags.
func helpTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, path := range glob(t, "../cmd/*/*.go") {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		fixture.Must(t, err)
		var help []string
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				key, ok := n.Key.(*ast.Ident)
				if text, literal := textOf(n.Value); ok && literal && (key.Name == "Short" || key.Name == "Long" || key.Name == "Example") {
					help = append(help, text)
				}
			case *ast.CallExpr:
				call, ok := n.Fun.(*ast.SelectorExpr)
				if ok && len(n.Args) > 2 && strings.Contains(call.Sel.Name, "Var") {
					text, _ := textOf(n.Args[len(n.Args)-1])
					help = append(help, text)
				}
			}
			return true
		})
		if len(help) > 0 && !strings.HasSuffix(path, "_test.go") {
			texts[path] = strings.Join(help, "\n")
		}
	}
	if len(texts) < 5 {
		t.Fatalf("found the help of %d files only", len(texts))
	}
	return texts
}

// TestMarkdownWraps: at 100 columns, outside of tables, code, links and generated output.
func TestMarkdownWraps(t *testing.T) {
	for _, pattern := range []string{"../README.md", "../AGENTS.md", "../docs/*.md", "../docs/decisions/*.md"} {
		for _, path := range glob(t, pattern) {
			text := generated.ReplaceAllStringFunc(codeBlocks.ReplaceAllStringFunc(readFile(t, path), blank), blank)
			for n, line := range strings.Split(text, "\n") {
				words := strings.Fields(codeOrLink.ReplaceAllString(line, "x"))
				if utf8.RuneCountInString(line) > 100 && !strings.HasPrefix(line, "|") && len(words) > 2 {
					t.Errorf("%s:%d: %d columns", path, n+1, utf8.RuneCountInString(line))
				}
			}
		}
	}
}

var (
	codeBlocks = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	generated  = regexp.MustCompile(`(?s)<!-- begin: .*?<!-- end -->`)
	codeOrLink = regexp.MustCompile("(?s)`[^`]*`|\\[[^]]*\\]\\([^)]*\\)")
	codeSpan   = regexp.MustCompile("(?s)`[^`]*`|\\]\\([^)]*\\)")
)

// blank keeps only the newlines of a text.
func blank(text string) string { return strings.Repeat("\n", strings.Count(text, "\n")) }

func withoutCode(text string) string {
	return codeSpan.ReplaceAllString(codeBlocks.ReplaceAllString(text, ""), "`")
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: found %q, %v", pattern, paths, err)
	}
	return paths
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	fixture.Must(t, err)
	return string(text)
}
