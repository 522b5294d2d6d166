package mutation_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// typeChecker type-checks mutants, in milliseconds each: the other packages come from
// the build cache.
type typeChecker struct {
	root     string
	fset     *token.FileSet
	importer types.Importer
	files    map[string][]string // import path to the Go files of this system
}

func newTypeChecker(t *testing.T, root string) *typeChecker {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}\t{{join .GoFiles \" \"}}", "./internal/...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	fixture.Must(t, err)
	c := &typeChecker{root: root, fset: token.NewFileSet(), files: make(map[string][]string)}
	exports := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		exports[columns[0]], c.files[columns[0]] = columns[1], strings.Fields(columns[2])
	}
	c.importer = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	return c
}

// check returns the first error of compiling the packages that a mutant edits.
func (c *typeChecker) check(m mutant) error {
	checked := make(map[string]bool)
	for _, e := range m.edits {
		dir := filepath.Dir(e.file)
		if checked[dir] {
			continue
		}
		checked[dir] = true
		path := "cis490/internal/" + dir
		var files []*ast.File
		for _, name := range c.files[path] {
			f, err := c.parse(filepath.Join(dir, name), m.edits)
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		config := types.Config{Importer: c.importer}
		if _, err := config.Check(path, c.fset, files, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *typeChecker) parse(file string, edits []edit) (*ast.File, error) {
	b, err := os.ReadFile(filepath.Join(c.root, "internal", file))
	if err != nil {
		return nil, err
	}
	text := string(b)
	for _, e := range edits {
		if e.file == file {
			text = strings.Replace(text, e.old, e.text, 1)
		}
	}
	return parser.ParseFile(c.fset, file, text, parser.SkipObjectResolution)
}
