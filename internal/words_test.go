package internal_test

import (
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

// banned are words and shapes that confused readers, and what to write instead. The
// glossary has the words to use.
var banned = map[string]string{
	`rooms?`:                         "package, or space",
	`laws?`:                          "invariant",
	`papers`:                         "credentials",
	`house`:                          "repository, or receiver",
	`home`:                           "delivered, or received",
	`box`:                            "sandbox",
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
	`go on with|goes on with`:        "continue",
	`that there (is|are)`:            "leave it out",
	`so many|for so long`:            "name the number or the time",
	`wants an?`:                      "requires",
	`is no (valid )?(duration|size)`: "is not a valid ...",
	`(archives?|episodes?|folders?|rows?|lines?|locks?|files?|uploads?|requests?) an? (episode|host|key|second|minute|hour|day)`: "per",
}

// notYetPlain are files that TestWordsStayPlain does not read, and why.
var notYetPlain = map[string]string{
	"../docs/glossary.md":          "names the words to avoid",
	"../etc/lab-host.toml.example": "to be rewritten",
	"../etc/receiver.toml.example": "to be rewritten",
	"../cmd/receiver/hosts.go":     "to be rewritten",
	"../cmd/receiver/index.go":     "to be rewritten",
	"../cmd/receiver/main.go":      "to be rewritten",
	"../cmd/receiver/scrub.go":     "to be rewritten",
	"../cmd/shipper/prune.go":      "to be rewritten",
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
	for path, text := range texts {
		if notYetPlain[path] != "" {
			continue
		}
		for word, better := range banned {
			for _, found := range regexp.MustCompile(`(?i)\b(`+word+`)\b`).FindAllString(text, -1) {
				t.Errorf("%s: %q: write %s", path, found, better)
			}
		}
	}
}

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

// TestMarkdownWraps: at 100 columns, outside of tables, code, links and what a program wrote.
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
