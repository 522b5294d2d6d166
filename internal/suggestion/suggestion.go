// Package suggestion finds what a user likely meant by a name that does not exist.
//
// Invariant: the time is bounded, whatever the length of the name, which may be from an untrusted file.
package suggestion

import (
	"cmp"
	"slices"
	"strings"
)

// maxLength is the maximum length of a name, in bytes. A longer one counts as entirely different.
const maxLength = 128

// maxNames is the maximum number of suggestions.
const maxNames = 3

// Of returns the known names that were likely meant by word, the nearest first. They may differ from
// it in case and in one letter in four, and short names in one letter: lab-02 is not a misspelled
// lab-10.
func Of(word string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	for _, name := range known {
		if n := Distance(strings.ToLower(word), strings.ToLower(name)); name != word && n <= max(1, len(name)/4) && n < len(name) {
			near = append(near, candidate{name, n})
		}
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	near = slices.CompactFunc(near, func(a, b candidate) bool { return a.name == b.name })
	names := make([]string, 0, maxNames)
	for _, c := range near[:min(len(near), maxNames)] {
		names = append(names, c.name)
	}
	return names
}

// Question returns "did you mean A, B or C?" with the names that were likely meant by word, or "".
func Question(word string, known []string) string {
	names := Of(word, known)
	switch n := len(names); n {
	case 0:
		return ""
	case 1:
		return "did you mean " + names[0] + "?"
	default:
		return "did you mean " + strings.Join(names[:n-1], ", ") + " or " + names[n-1] + "?"
	}
}

// Distance returns how many bytes to insert, delete or replace to turn a into b. A very long name
// counts as entirely different.
func Distance(a, b string) int {
	if len(a) > maxLength || len(b) > maxLength {
		return max(len(a), len(b))
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
