// Package config reads a program's TOML file strictly into a struct that has the defaults. It finds
// every mistake that the syntax and the struct's types can show before the program changes
// anything, and returns them all, each with its line and the expected value. [Duration], [Bytes]
// and [Path] are types that TOML lacks.
//
// Invariant: a file is either understood to the last key or refused. Whether a value makes sense (a
// port in use, a missing directory) is for the struct's Validate, which reports with
// [InvalidValue].
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// MaxFile bounds the size of a file that [Load] reads.
const MaxFile = 1 << 20

// Load reads the TOML file at path into the struct that into points to. Keys that are not in the
// file keep their values. A field's key is its toml tag, or its name in lower case. Any other key
// is an error, which names the nearest known key. Each [Path] in the struct, also a default, is
// made absolute from the file's directory.
//
// The error wraps fs.ErrNotExist if the file is missing. After an error the struct must not be
// used. A path with a ~ or $ that a shell would expand is refused, unless it exists as written: see
// [LiteralPaths].
func Load(path string, into any) error {
	_, err := LoadSizes(path, into)
	return err
}

// LoadSizes is [Load]. It also returns the sizes that the file gives without a unit: nil, or a
// [*BareSize] for each, joined.
func LoadSizes(path string, into any) (bare, err error) {
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("find the folder of %s: %w", path, err)
	}
	doc, err := readFile(path)
	if err != nil {
		return nil, err
	}
	v := reflect.ValueOf(into).Elem()
	d := decoder{path: path, folder: folder, doc: doc, refused: map[string]string{}, unknown: map[string]string{}}
	if err := d.decode(v); err != nil {
		return nil, err
	}
	resolvePaths(v, folder)
	return d.joinBareSizes(), nil
}

// InvalidValue returns the error of a Validate for the value of a key. With the file's path in
// front it reads like an error of [Load]: "PATH: KEY: what is wrong and what to write".
func InvalidValue(key, format string, args ...any) error {
	return fmt.Errorf("%s: %w", key, fmt.Errorf(format, args...))
}

// LoadValid loads a file over the defaults in c, and validates the result.
func LoadValid[T interface{ Validate() error }](path string, c T) (T, error) {
	if err := Load(path, &c); err != nil {
		return c, err
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func readFile(path string) (string, error) {
	if path == "" {
		return "", errors.New("no configuration file is named: give its path with --config")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: copy the example there, or name another file with --config", err)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > MaxFile {
		return "", fmt.Errorf("%s: larger than %s: not a configuration file", path, Bytes(MaxFile))
	}
	// The TOML decoder drops a byte order mark, which would shift its offsets.
	return string(bytes.TrimPrefix(b, []byte("\ufeff"))), nil
}

var textUnmarshalerType = reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()

// isTable reports whether t is written as a table with known keys.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textUnmarshalerType)
}

// fieldsByKey returns the fields of the struct type t by their keys.
func fieldsByKey(t reflect.Type) map[string]reflect.StructField {
	found := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if !f.IsExported() || name == "-" || (f.Anonymous && name == "" && isTable(f.Type)) {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		found[name] = f
	}
	return found
}

// knownKeys returns the full names of all keys of the struct type t, below prefix.
func knownKeys(t reflect.Type, prefix toml.Key) []string {
	var keys []string
	for name, f := range fieldsByKey(t) {
		key := childKey(prefix, name)
		keys = append(keys, key.String())
		inner := f.Type
		if inner.Kind() == reflect.Slice { // an array of tables
			inner = inner.Elem()
		}
		if isTable(inner) {
			keys = append(keys, knownKeys(inner, key)...)
		}
	}
	return keys
}

// resolvePaths makes each relative [Path] in v absolute from folder.
func resolvePaths(v reflect.Value, folder string) {
	eachPath(v, func(v reflect.Value) {
		if p := v.String(); v.CanSet() && p != "" && !filepath.IsAbs(p) {
			v.SetString(filepath.Join(folder, p))
		}
	})
}
