package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// BareSize is a size that a file gives without a unit. It counts as bytes, which is seldom meant.
// Only a check takes it for an error: such files always loaded, and a daemon logs a warning.
type BareSize struct {
	Key  string
	Size Bytes

	path string
	line int
	unit string // of the default
}

// minLikelySize is the smallest number of bytes that people write out. A smaller number more likely
// lacks a larger unit.
const minLikelySize = 64 << 10

// Error says how the size is interpreted, and how to write it.
func (b *BareSize) Error() string {
	exact, _ := b.Size.MarshalText()
	advice := fmt.Sprintf("write %q", exact)
	if b.Size < minLikelySize {
		advice = fmt.Sprintf("write the unit, such as \"%d%s\"; %q if bytes are meant", b.Size, b.unit, exact)
	}
	return fmt.Sprintf("%s:%d: %s: %d has no unit, and is taken as bytes: %s", b.path, b.line, b.Key, b.Size, advice)
}

// sizeBefore returns the default of a field that is a size.
func sizeBefore(field reflect.Value) Bytes {
	if field.Type() != reflect.TypeFor[Bytes]() {
		return 0
	}
	return Bytes(field.Int())
}

// noteBare records a size that the file gives without a unit. Zero needs none.
func (d *decoder) noteBare(value toml.Primitive, field reflect.Value, key toml.Key, before Bytes) {
	if field.Type() != reflect.TypeFor[Bytes]() || field.Int() == 0 {
		return
	}
	var text string
	if err := d.md.PrimitiveDecode(value, &text); err == nil && !isNumber(strings.TrimSpace(text)) {
		return
	}
	d.bare = append(d.bare, &BareSize{Key: key.String(), Size: Bytes(field.Int()), path: d.path, line: d.lineOf(key), unit: unitOf(before)})
}

// unitOf returns the unit of a size, or GiB for 0, because a key that is off by default bounds disk
// usage.
func unitOf(b Bytes) string {
	if b == 0 {
		return "GiB"
	}
	text, _ := b.MarshalText()
	return strings.TrimLeft(string(text), "0123456789")
}

// joinBareSizes returns the sizes without a unit, in the order of the file.
func (d *decoder) joinBareSizes() error {
	slices.SortFunc(d.bare, func(a, b *BareSize) int { return a.line - b.line })
	var errs []error
	for _, b := range d.bare {
		errs = append(errs, b)
	}
	return errors.Join(errs...)
}

// TypedBytes is a size on a command line. It is [Bytes], but refuses a small number without a unit,
// because no old file depends on it.
type TypedBytes Bytes

// MarshalText returns the format that [TypedBytes.UnmarshalText] parses.
func (b TypedBytes) MarshalText() ([]byte, error) { return Bytes(b).MarshalText() }

// UnmarshalText parses a number with a unit of bytes, 0, or a number of at least 64 KiB.
func (b *TypedBytes) UnmarshalText(text []byte) error {
	var read Bytes
	if err := read.UnmarshalText(text); err != nil {
		return err
	}
	if n := strings.TrimSpace(string(text)); isNumber(n) && read > 0 && read < minLikelySize {
		return fmt.Errorf(`%[1]s has no unit: write "%[2]sMiB" or "%[2]sGiB", or "%[2]sB" if bytes are meant`, quote(n), n)
	}
	*b = TypedBytes(read)
	return nil
}
