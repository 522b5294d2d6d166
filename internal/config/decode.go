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
)

// maxReported bounds how many faults of one file are told; a file that has
// more is not ours.
const maxReported = 20

// decoder is one file on its way into a struct. It goes down the tables by
// itself and leaves the values to the decoder, because the decoder alone stops
// at the first wrong value and takes keys of any case.
type decoder struct {
	path    string
	folder  string // of the file
	doc     string
	md      toml.MetaData
	root    map[string]toml.Primitive
	refused map[string]string // key -> what is wrong with its value
	unknown map[string]bool   // topmost keys without a field
	bare    []*BareSize       // sizes without a unit, in no order
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
			d.unknown[key.String()] = true
			continue
		}
		d.decodeValue(value, v.FieldByIndex(f.Index), key)
	}
}

func (d *decoder) decodeValue(value toml.Primitive, field reflect.Value, key toml.Key) {
	found, t := d.md.Type(key...), field.Type()
	mismatch := fmt.Sprintf("wants %s, found %s", describeType(t), tomlType(found))
	if isTable(t) {
		var values map[string]toml.Primitive
		if err := d.md.PrimitiveDecode(value, &values); err != nil || values == nil {
			d.refused[key.String()] = mismatch
			return
		}
		d.decodeTable(values, field, key)
		return
	}
	if !accepts(t, found) {
		d.refused[key.String()] = mismatch
		return
	}
	if field.CanUint() {
		// The decoder would make a huge number of a negative one.
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

// accepts reports whether a TOML value of the type found may stand for a t.
// The decoder passes any simple value to a type that reads text, as if a host
// could be named true.
func accepts(t reflect.Type, found string) bool {
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
	case "Hash", "": // a table that only dotted keys make has no type
		return "a table"
	}
	return "a " + strings.ToLower(name)
}

// joinFaults returns all that is wrong with the file, in its order, or nil.
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
		full, refused := key.String(), d.knownPrefix(key, d.refused)
		switch {
		case refused != "" && !told[refused]:
			told[refused] = true
			errs = append(errs, d.newFault(d.lineOf(key), printable.Clip(refused, maxShown)+": "+d.refused[refused]))
		case refused != "" || told[full]:
		case d.isUnknown(key) || undecoded[full]:
			told[full] = true
			if i+1 == len(keys) || !hasPrefix(keys[i+1], key) { // else its own keys tell more
				errs = append(errs, d.newFault(d.lineOf(key), "unknown key "+describeUnknownKey(full, known)))
			}
		}
	}
	if len(errs) > maxReported {
		errs[maxReported] = fmt.Errorf("%s: and more of the kind", d.path)
	}
	return errors.Join(errs...)
}

// knownPrefix returns the part of key, from its root, that is in set, or "".
func (d *decoder) knownPrefix(key toml.Key, set map[string]string) string {
	for n := range len(key) {
		if s := key[:n+1].String(); set[s] != "" {
			return s
		}
	}
	return ""
}

func (d *decoder) isUnknown(key toml.Key) bool {
	for n := range len(key) {
		if d.unknown[key[:n+1].String()] {
			return true
		}
	}
	return false
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

// nearestKey returns the key of known that differs least from key, or "" if none
// is near enough to have been meant: below the tables that the two share, two
// letters or a third of them may be wrong, but not all.
func nearestKey(key string, known []string) string {
	distance := map[string]int{}
	for _, k := range known {
		if strings.HasPrefix(key, k+".") {
			continue // its own table
		}
		wrong, right := trimShared(strings.ToLower(key), k)
		if n := editDistance(wrong, right); n <= max(2, len(right)/3) && n < len(right) {
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

// trimShared cuts the leading tables that two keys have in common.
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

// editDistance counts the bytes to insert, delete or replace to make b of a, which
// costs len(a)*len(b): longer keys than a person types count as all different.
func editDistance(a, b string) int {
	if len(a) > maxShown {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
