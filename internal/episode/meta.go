package episode

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// MaxMeta bounds the size of a meta.json, which an attacker may have written.
const MaxMeta = 1 << 20

// Meta is the part of meta.json that goes into the index.
type Meta struct {
	// Commit is the version of the experiment's code: 40 lower-case hex digits, or empty if
	// unknown.
	Commit string
}

var commitPattern = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

// MetaError says why a meta.json cannot be parsed.
type MetaError struct{ Err error }

func (e *MetaError) Error() string { return MetaFile + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *MetaError) Unwrap() error { return e.Err }

// ReadMeta parses a meta.json. It accepts what json.loads of Python accepts, because experiments
// write it: NaN and Infinity, a byte order mark, UTF-16 and UTF-32. It ignores other members, and a
// commit that is not 40 hex digits. It returns a [*MetaError] for invalid JSON.
func ReadMeta(r io.Reader) (Meta, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxMeta+1))
	if err != nil {
		return Meta{}, err
	}
	if len(b) > MaxMeta {
		return Meta{}, &MetaError{fmt.Errorf("is larger than %d bytes", MaxMeta)}
	}
	// Maps, because encoding/json matches COMMIT with a field named commit.
	var doc, version map[string]json.RawMessage
	if err := json.Unmarshal(standardJSON(b), &doc); err != nil {
		return Meta{}, &MetaError{err}
	}
	// These may be of any type: the experiment owns them.
	var text string
	if json.Unmarshal(doc["code_version"], &version) != nil || json.Unmarshal(version["commit"], &text) != nil || !commitPattern.MatchString(text) {
		return Meta{}, nil
	}
	return Meta{Commit: strings.ToLower(text)}, nil
}
