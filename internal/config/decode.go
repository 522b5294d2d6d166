package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"cis490/internal/printable"
	"cis490/internal/suggestion"
)

// maxReported bounds how many faults of a file are reported.
const maxReported = 20

// decoder decodes one file into a struct. It descends the tables itself and leaves only the values
// to the TOML decoder, which would stop at the first wrong value and accept keys of any case.
type decoder struct {
	path    string
	folder  string // text of the file
	doc     string
	md      toml.MetaData
	root    map[string]toml.Primitive
	refused map[string]string // what is wrong with the value of a key
	unknown map[string]string // the same of topmost keys without a field
	bare    []*BareSize       // sizes without a unit, not sorted
}

func (d *decoder) decode(v reflect.Value) error {
	var err error
	if d.md, err = toml.Decode(d.doc, &d.root); err != nil {
		if p, ok := errors.AsType[toml.ParseError](err); ok {
			return d.newFault(p.Position.Line, p.Message)
		}
		return fmt.Errorf("%s: %w", d.path, err)
	}
	d.decodeTable(d.root, v, nil)
	return d.joinFaults(knownKeys(v.Type(), nil))
}

func (d *decoder) decodeTable(values map[string]toml.Primitive, v reflect.Value, at toml.Key) {
	known := fieldsByKey(v.Type())
	for name, value := range values {
		key := childKey(at, name)
		f, ok := known[name]
		if !ok {
			d.unknown[key.String()] = "unknown key"
			continue
		}
		d.decodeValue(value, v.FieldByIndex(f.Index), key)
	}
}

func (d *decoder) decodeValue(value toml.Primitive, field reflect.Value, key toml.Key) {
	found, t := d.md.Type(key...), field.Type()
	mismatch := fmt.Sprintf("requires %s, found %s", describeType(t), tomlType(found))
	if isTable(t) {
		var values map[string]toml.Primitive
		if err := d.md.PrimitiveDecode(value, &values); err != nil || values == nil {
			d.refused[key.String()] = mismatch
			return
		}
		d.decodeTable(values, field, key)
		return
	}
	if !acceptsType(t, found) {
		d.refused[key.String()] = mismatch
		return
	}
	if field.CanUint() {
		// The TOML decoder would turn a negative number into a huge one.
		var n int64
		if err := d.md.PrimitiveDecode(value, &n); err == nil && n < 0 {
			d.refused[key.String()] = "must not be negative"
			return
		}
	}
	before := sizeBefore(field)
	err := d.md.PrimitiveDecode(value, field.Addr().Interface())
	if p, ok := errors.AsType[toml.ParseError](err); ok {
		mismatch = p.Message
	}
	if err != nil {
		d.refused[key.String()] = mismatch
		return
	}
	d.noteBare(value, field, key, before)
	eachPath(field, func(v reflect.Value) {
		p := Path(v.String())
		if wrong := explainLiteral(p, d.folder); wrong != "" {
			d.refused[key.String()] = wrong
		}
	})
}

// acceptsType reports whether a TOML value of the given type may be decoded into a t. The TOML
// decoder passes any simple value to a type with UnmarshalText, as if a host could be named true.
func acceptsType(t reflect.Type, found string) bool {
	switch {
	case t == reflect.TypeFor[Duration]():
		return found == "String" || found == "Integer" || found == "Float" // a number gets a hint
	case t == reflect.TypeFor[Bytes]():
		return found == "String" || found == "Integer"
	case reflect.PointerTo(t).Implements(textUnmarshalerType):
		return found == "String"
	}
	return true
}

func describeType(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a duration such as "30s"`
	case t == reflect.TypeFor[Bytes]():
		return `a size such as "1MiB"`
	case t.Kind() == reflect.String, reflect.PointerTo(t).Implements(textUnmarshalerType):
		return "a string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Struct, reflect.Map:
		return "a table"
	case reflect.Slice, reflect.Array:
		return "an array, each element " + describeType(t.Elem())
	case reflect.Pointer:
		return describeType(t.Elem())
	}
	return "an integer"
}

func tomlType(name string) string {
	switch name {
	case "Integer":
		return "an integer"
	case "Array":
		return "an array"
	case "ArrayHash":
		return "an array of tables"
	case "Hash", "": // a table from dotted keys only has no type
		return "a table"
	}
	return "a " + strings.ToLower(name)
}

// joinFaults returns all faults of the file in its order, or nil.
func (d *decoder) joinFaults(known []string) error {
	keys := d.md.Keys()
	var errs []error
	told := map[string]bool{}
	undecoded := map[string]bool{}
	for _, key := range d.md.Undecoded() {
		undecoded[key.String()] = true
	}
	for i, key := range keys {
		if len(errs) > maxReported {
			break
		}
		full, refused := key.String(), prefixIn(d.refused, key)
		switch {
		case refused != "" && !told[refused]:
			told[refused] = true
			errs = append(errs, d.newFault(d.lineOf(key), printable.Clip(refused, maxShown)+": "+d.refused[refused]))
		case refused != "" || told[full]:
		case prefixIn(d.unknown, key) != "" || undecoded[full]:
			told[full] = true
			if i+1 == len(keys) || !hasPrefix(keys[i+1], key) { // otherwise its own keys say more
				errs = append(errs, d.newFault(d.lineOf(key), "unknown key "+describeUnknownKey(full, known)))
			}
		}
	}
	if len(errs) > maxReported {
		errs[maxReported] = fmt.Errorf("%s: and more of the kind", d.path)
	}
	return errors.Join(errs...)
}

// prefixIn returns the leading part of key that is in set, or "".
func prefixIn(set map[string]string, key toml.Key) string {
	for n := range len(key) {
		if s := key[:n+1].String(); set[s] != "" {
			return s
		}
	}
	return ""
}

func (d *decoder) newFault(line int, what string) error {
	if line <= 0 {
		return fmt.Errorf("%s: %s", d.path, printable.Text(what))
	}
	return fmt.Errorf("%s:%d: %s", d.path, line, printable.Text(what))
}

// childKey returns the key of name in the table at.
func childKey(at toml.Key, name string) toml.Key { return append(slices.Clip(at), name) }

func hasPrefix(key, with toml.Key) bool {
	return len(key) > len(with) && slices.Equal(key[:len(with)], with)
}

// describeUnknownKey returns key quoted, with the known key that was likely meant.
func describeUnknownKey(key string, known []string) string {
	shown := `"` + printable.Clip(key, maxShown) + `"`
	if near := nearestKey(key, known); near != "" {
		return fmt.Sprintf("%s; did you mean %q?", shown, near)
	}
	return shown
}

// nearestKey returns the known key that differs least from key, or "" if none is likely meant.
// Below the tables that both share, two letters or a third of them may differ, but not all.
func nearestKey(key string, known []string) string {
	distance := map[string]int{}
	for _, k := range known {
		if strings.HasPrefix(key, k+".") {
			continue // its own table
		}
		wrong, right := trimShared(strings.ToLower(key), k)
		if n := suggestion.Distance(wrong, right); n <= max(2, len(right)/3) && n < len(right) {
			distance[k] = n
		}
	}
	if len(distance) == 0 {
		return ""
	}
	return slices.MinFunc(slices.Collect(maps.Keys(distance)), func(a, b string) int {
		return cmp.Or(cmp.Compare(distance[a], distance[b]), strings.Compare(a, b))
	})
}

// trimShared removes the leading tables that two keys share.
func trimShared(a, b string) (string, string) {
	for {
		tableA, belowA, okA := strings.Cut(a, ".")
		tableB, belowB, okB := strings.Cut(b, ".")
		if !okA || !okB || tableA != tableB {
			return a, b
		}
		a, b = belowA, belowB
	}
}

var errProbe = errors.New("probe")

// probe refuses to be decoded, so that the TOML decoder returns its position.
type probe struct{}

func (*probe) UnmarshalTOML(any) error { return errProbe }

// lineOf returns the line of key in the file, or 0. The TOML decoder returns the position of a
// value only with an error, so this causes one. A scan for the key would be a second parser.
func (d *decoder) lineOf(key toml.Key) int { return d.findLine(d.root, key) }

func (d *decoder) findLine(values map[string]toml.Primitive, key toml.Key) int {
	value, ok := values[key[0]]
	if !ok {
		return 0
	}
	if len(key) == 1 {
		p, ok := errors.AsType[toml.ParseError](d.md.PrimitiveDecode(value, &probe{}))
		if !ok || p.Position.Line == 0 {
			return 0
		}
		// The decoder's own line is that of the end of the value.
		return 1 + strings.Count(d.doc[:min(p.Position.Start, len(d.doc))], "\n")
	}
	var inner map[string]toml.Primitive
	if err := d.md.PrimitiveDecode(value, &inner); err == nil && inner != nil {
		return d.findLine(inner, key[1:])
	}
	var list []map[string]toml.Primitive
	if err := d.md.PrimitiveDecode(value, &list); err != nil {
		return 0
	}
	for _, inner := range list {
		if n := d.findLine(inner, key[1:]); n != 0 {
			return n
		}
	}
	return 0
}
