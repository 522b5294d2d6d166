// Package episode defines episodes and their names.
//
// An episode is one run of a malware experiment: a directory that a lab host fills with telemetry
// and finishes with an empty [Marker]. Its name, its files and their bytes come from malware.
//
// Invariant: no package builds a path, a header or a log line from a name that [ParseName] has not
// checked.
package episode

import (
	"fmt"

	"cis490/internal/printable"
)

// Files of an episode that the programs know.
const (
	Marker   = "done.marker" // present once the episode is finished
	MetaFile = "meta.json"   // parsed by [ReadMeta]
)

// MaxName is the maximum length of a [Name] in bytes. It leaves space in a file name (255 bytes)
// for the suffixes of outbox and store.
const MaxName = 128

// Name is the name of a host or an episode. A Name from [ParseName] is one path segment of letters,
// digits, dots, dashes and underscores that begins with a letter or a digit. It is never empty,
// "..", or hidden, and needs no escapes in a URL.
type Name string

// ParseName returns s as a [Name]. Its error shows s in printable ASCII.
func ParseName(s string) (Name, error) {
	if isName(s) {
		return Name(s), nil
	}
	return "", fmt.Errorf("%s is not a valid name: it needs 1 to %d of A-Z a-z 0-9 . _ - and begins with a letter or a digit",
		printable.Quote(s, MaxName), MaxName)
}

// isName is not a regular expression: compiling one with a bound of 128 was one of the two slowest parts
// of each command's start.
func isName(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for i, c := range []byte(s) {
		isAlphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !isAlphanumeric && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// UnmarshalText parses a name in a configuration file.
func (n *Name) UnmarshalText(text []byte) error {
	parsed, err := ParseName(string(text))
	if err != nil {
		return err
	}
	*n = parsed
	return nil
}

// Key identifies an episode on the receiver. Two hosts may use the same name.
type Key struct {
	Host Name
	Name Name
}

func (k Key) String() string { return string(k.Host) + "/" + string(k.Name) }
