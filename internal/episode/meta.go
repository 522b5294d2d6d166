package episode

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// MaxMeta bounds what [ReadMeta] reads of a file that an attacker may have made.
const MaxMeta = 1 << 20

// Meta is the part of meta.json that the index shows.
type Meta struct {
	// Commit is the version of the experiment's code: 40 lower-case hex
	// digits, or empty if the file does not say.
	Commit string
}

var commitPattern = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

// A MetaError says why a meta.json cannot be read.
type MetaError struct{ Err error }

func (e *MetaError) Error() string { return MetaFile + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *MetaError) Unwrap() error { return e.Err }

// ReadMeta reads a meta.json. It reads what json.loads of Python reads of the file's
// bytes, as experiments write it: NaN and Infinity, a byte order mark, UTF-16 and UTF-32.
// A commit in another form than 40 hex digits is no commit; other members are ignored.
// What is no such JSON is a [*MetaError].
func ReadMeta(r io.Reader) (Meta, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxMeta+1))
	if err != nil {
		return Meta{}, err
	}
	if len(b) > MaxMeta {
		return Meta{}, &MetaError{fmt.Errorf("is larger than %d bytes", MaxMeta)}
	}
	// Maps, because encoding/json takes COMMIT for a field named commit.
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
