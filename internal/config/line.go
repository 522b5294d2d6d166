package config

import (
	"errors"
	"strings"

	"github.com/BurntSushi/toml"
)

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
