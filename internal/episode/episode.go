// Package episode says what an episode is and how it is named.
//
// An episode is one run of a malware experiment: a directory that a lab host
// fills with telemetry and closes with an empty [Marker]. Its name, its files
// and their bytes come from malware. The law of this package: no other package
// makes a path, a header or a log line of a name that has not been through
// [ParseName].
package episode

import (
	"fmt"
	"regexp"

	"cis490/internal/printable"
)

// Files of an episode that have a meaning to us.
const (
	Marker   = "done.marker" // its presence says that the episode is finished
	MetaFile = "meta.json"   // what [ReadMeta] reads
)

// MaxName is the length of the longest [Name] in bytes. It leaves room in a
// file name (255 bytes) for every suffix that the outbox and the store append.
const MaxName = 128

// A Name names a host or an episode. A Name made by [ParseName] is one path
// segment of letters, digits, dots, dashes and underscores that begins with a
// letter or a digit: never empty, never "..", never hidden, and the same when
// it is escaped for a URL.
type Name string

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// ParseName returns s as a [Name], or an error that shows s in printable ASCII.
func ParseName(s string) (Name, error) {
	if namePattern.MatchString(s) {
		return Name(s), nil
	}
	return "", fmt.Errorf("%s is no name: it needs 1 to %d of A-Z a-z 0-9 . _ - and begins with a letter or a digit",
		printable.Quote(s, MaxName), MaxName)
}

// UnmarshalText makes a [Name] of a configuration value.
func (n *Name) UnmarshalText(text []byte) error {
	parsed, err := ParseName(string(text))
	if err != nil {
		return err
	}
	*n = parsed
	return nil
}

// A Key is what an episode is known by from the receiver on: two hosts may use
// the same name.
type Key struct {
	Host Name
	Name Name
}

func (k Key) String() string { return string(k.Host) + "/" + string(k.Name) }
