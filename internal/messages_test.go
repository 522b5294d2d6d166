package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// TestOperationsQuotesMessagesThatExist: an operator who searches these pages for a message must
// find it, so each message in their tables must be one of a program.
func TestOperationsQuotesMessagesThatExist(t *testing.T) {
	said := strings.Join(append(messages(t), saidByOthers...), "\n")
	count := 0
	for _, page := range []string{"../docs/install.md", "../docs/operations.md"} {
		quoted := append(quotedIn(strings.Join(messageCells(t, page), "\n")), sentences(t, page)...)
		for _, text := range quoted {
			if !isSaid(said, text) {
				t.Errorf("%s quotes `%s`, which no program says", page, text)
			}
		}
		count += len(quoted)
	}
	if count < 40 {
		t.Errorf("found %d quoted messages only", count)
	}
}

// saidByOthers are messages of the kernel, of systemd and of the scripts.
var saidByOthers = []string{"permission denied", "active (running)", "the receiver runs"}

// quotedIn returns the texts between backquotes.
func quotedIn(text string) []string {
	var all []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
		all = append(all, strings.Join(strings.Fields(m[1]), " "))
	}
	return all
}

// sentences returns what a page quotes outside of its blocks that reads as a message: at least
// three words of letters, and not a command.
func sentences(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	fixture.Must(t, err)
	prose := regexp.MustCompile("(?ms)^ *```.*?```").ReplaceAllString(string(text), "")
	sentence := regexp.MustCompile(`^(\.\.\. )?[A-Za-z,' ()]+(: [A-Za-z.,' ()]+)?( \.\.\.)?$`)
	command := regexp.MustCompile(`^(shipper|receiver|systemctl|journalctl|apt-get|adduser|chown|chmod|rsync|mv|cp|btrfs|umount|install|scripts|make) `)
	var all []string
	for _, quote := range quotedIn(prose) {
		if strings.Count(quote, " ") >= 2 && sentence.MatchString(quote) && (!command.MatchString(quote) || strings.HasPrefix(quote, "receiver does")) {
			all = append(all, quote)
		}
	}
	return all
}

// TestEveryPartOfAMessageIsLookedFor tests the test itself.
func TestEveryPartOfAMessageIsLookedFor(t *testing.T) {
	said := "nothing of host % can be stored: %\nthe store was kept"
	for text, want := range map[string]bool{
		"nothing of host NAME can be stored": true,
		"... can be stored: ...":             true,
		"nothing of host NAME is stored":     false,
		"the store can be stored":            false,
	} {
		if got := isSaid(said, text); got != want {
			t.Errorf("%q: got %t", text, got)
		}
	}
}

// isSaid reports whether said has a text. In a line of said, % is any value. In the text, dots
// or a word in capitals are. What follows a colon may be another line's.
func isSaid(said, text string) bool {
	for part := range strings.SplitSeq(text, ": ") {
		words := regexp.MustCompile(` ?\.\.\. ?|\b[A-Z]{2,}\b`).Split(part, -1)
		for i, w := range words {
			words[i] = regexp.QuoteMeta(w)
		}
		if !regexp.MustCompile(strings.Join(words, `.*`)).MatchString(said) {
			return false
		}
	}
	return true
}

// messageCells returns the cells of a page's tables that quote messages: those in the
// first column where its head says so.
func messageCells(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	fixture.Must(t, err)
	var cells []string
	column := -1
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") {
			column = -1
			continue
		}
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if column < 0 {
			head := strings.TrimSpace(row[0])
			column = 1
			if slices.Contains([]string{"message", "cause", "reason", "line"}, head) {
				column = 0
			}
			continue
		}
		if column == 0 && !strings.HasPrefix(line, "|---") {
			cells = append(cells, row[0])
		}
	}
	return cells
}

var verb = regexp.MustCompile(`%[-+# 0]*[\d.*]*(\[\d+\])?[a-zA-Z]`)

// messages returns the text of the programs: all string literals outside of tests. Concatenated
// ones are joined, with % for each value.
func messages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{"../cmd", "../internal"} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/labtest/") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				x, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				text, ok := textOf(x)
				if ok {
					all = append(all, strings.Join(strings.Fields(verb.ReplaceAllString(text, "%")), " "))
				}
				return !ok
			})
			return nil
		})
		fixture.Must(t, err)
	}
	if len(all) < 1000 {
		t.Fatalf("found %d texts only", len(all))
	}
	return all
}

// textOf returns the text of a literal, or of a sum that contains one.
func textOf(x ast.Expr) (string, bool) {
	switch x := x.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(x.Value)
		return text, err == nil && x.Kind == token.STRING
	case *ast.BinaryExpr:
		left, lok := textOf(x.X)
		right, rok := textOf(x.Y)
		if x.Op != token.ADD || !lok && !rok {
			return "", false
		}
		if !lok {
			left = "%v"
		}
		if !rok {
			right = "%v"
		}
		return left + right, true
	}
	return "", false
}
