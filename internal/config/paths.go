package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// shellExpansion returns the beginning of a path up to its first name that a shell would expand
// ("~/x" or "$HOME/x"), or "". Here such names are literal.
func shellExpansion(path string) string {
	for at := 0; at < len(path); {
		end := at + strings.IndexByte(path[at:]+"/", '/')
		name := path[at:end]
		if at == 0 && strings.HasPrefix(name, "~") || hasVariable(name) {
			return path[:end]
		}
		at = end + 1
	}
	return ""
}

func hasVariable(name string) bool {
	for i := range len(name) - 1 {
		next := name[i+1]
		letter := next == '_' || next == '{' || next >= 'a' && next <= 'z' || next >= 'A' && next <= 'Z'
		if name[i] == '$' && letter {
			return true
		}
	}
	return false
}

// explainLiteral returns what is wrong with a path in a file of the given directory, or "".
func explainLiteral(p Path, folder string) string {
	part := shellExpansion(string(p))
	if part == "" {
		return ""
	}
	at := part
	if !filepath.IsAbs(at) {
		at = filepath.Join(folder, at)
	}
	if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("%s has a ~ or $ that only a shell expands, and there is no %s: write the whole path", quote(string(p)), quote(at))
}

// LiteralPaths returns the paths in a loaded struct that have a name with a ~ or $, which a shell
// would expand. They exist as written, or [Load] would have refused them, but others may have been
// meant.
func LiteralPaths(in any) []Path {
	var found []Path
	eachPath(reflect.ValueOf(in), func(v reflect.Value) {
		p := Path(v.String())
		for name := range strings.SplitSeq(string(p), "/") {
			if strings.HasPrefix(name, "~") || hasVariable(name) {
				found = append(found, p)
				return
			}
		}
	})
	return found
}

// eachPath calls do for each [Path] in v.
func eachPath(v reflect.Value, do func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			eachPath(v.Field(i), do)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			eachPath(v.Index(i), do)
		}
	case reflect.Pointer:
		eachPath(v.Elem(), do)
	case reflect.String:
		if v.Type() == reflect.TypeFor[Path]() {
			do(v)
		}
	}
}
