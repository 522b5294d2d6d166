package episode

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

// standardJSON turns what Python's json.loads accepts into JSON of RFC 8259 in UTF-8: null for NaN,
// Infinity and -Infinity, and no byte order mark. It makes no other text valid JSON.
func standardJSON(b []byte) []byte {
	return replaceConstants(toUTF8(b))
}

// pythonConstants are what Python's json.dumps writes for floats that JSON does not have. None is a
// prefix of another.
var pythonConstants = [][]byte{[]byte("NaN"), []byte("-Infinity"), []byte("Infinity")}

// replaceConstants replaces the constants outside of strings by null.
func replaceConstants(b []byte) []byte {
	if !bytes.Contains(b, pythonConstants[0]) && !bytes.Contains(b, pythonConstants[2]) {
		return b
	}
	out := make([]byte, 0, len(b)+len(b)/3) // null is at most one byte longer than NaN
	for inString := false; len(b) > 0; {
		n := 1
		switch {
		case inString && b[0] == '\\' && len(b) > 1:
			n = 2
		case b[0] == '"':
			inString = !inString
		case !inString:
			if c := leadingConstant(b); c > 0 {
				out, b = append(out, "null"...), b[c:]
				continue
			}
		}
		out, b = append(out, b[:n]...), b[n:]
	}
	return out
}

// leadingConstant returns the length of the constant at the start of b, or 0.
func leadingConstant(b []byte) int {
	for _, c := range pythonConstants {
		if bytes.HasPrefix(b, c) {
			return len(c)
		}
	}
	return 0
}

// toUTF8 converts text to UTF-8 from the encoding that Python's json.detect_encoding finds: by the
// byte order mark, or by the zeros among the first four bytes.
func toUTF8(b []byte) []byte {
	zero := func(i int) bool { return i < len(b) && b[i] == 0 }
	switch {
	case bytes.HasPrefix(b, []byte{0, 0, 0xfe, 0xff}):
		return fromUTF32(b[4:], binary.BigEndian)
	case bytes.HasPrefix(b, []byte{0xff, 0xfe, 0, 0}):
		return fromUTF32(b[4:], binary.LittleEndian)
	case bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return fromUTF16(b[2:], binary.BigEndian)
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}):
		return fromUTF16(b[2:], binary.LittleEndian)
	case bytes.HasPrefix(b, []byte{0xef, 0xbb, 0xbf}):
		return b[3:]
	case len(b) >= 4 && zero(0) && zero(1):
		return fromUTF32(b, binary.BigEndian)
	case len(b) >= 2 && zero(0):
		return fromUTF16(b, binary.BigEndian)
	case len(b) >= 4 && zero(1) && zero(2) && zero(3):
		return fromUTF32(b, binary.LittleEndian)
	case len(b) >= 2 && zero(1):
		return fromUTF16(b, binary.LittleEndian)
	}
	return b
}

func fromUTF16(b []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

func fromUTF32(b []byte, order binary.ByteOrder) []byte {
	runes := make([]rune, len(b)/4)
	for i := range runes {
		runes[i] = rune(order.Uint32(b[4*i:]))
	}
	return []byte(string(runes))
}
