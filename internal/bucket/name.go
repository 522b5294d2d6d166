package bucket

import (
	"fmt"
	"strings"

	"cis490/internal/printable"
)

// maxName is the maximum length of a name. With the prefix, S3 allows 1024 bytes.
const maxName = 512

// maxElement is the maximum length of a name between two slashes, since engines that keep objects as
// files have no more.
const maxElement = 255

// maxShown bounds how much of a name an error repeats.
const maxShown = 100

// CheckName returns an error if name may not be the name of an object. Valid names need no escaping
// in URLs, and are valid as relative paths: engines disagree about others.
func CheckName(name string) error {
	if len(name) > maxName {
		return nameError(name, fmt.Sprintf("it has more than %d bytes", maxName))
	}
	for element := range strings.SplitSeq(name, "/") {
		switch {
		case element == "" || element == "." || element == "..":
			return nameError(name, "an element is empty or only dots")
		case len(element) > maxElement:
			return nameError(name, fmt.Sprintf("an element has more than %d bytes", maxElement))
		}
	}
	return checkCharacters(name)
}

// checkPrefix returns an error if no name begins with prefix.
func checkPrefix(prefix string) error {
	if len(prefix) > maxName {
		return nameError(prefix, fmt.Sprintf("it has more than %d bytes", maxName))
	}
	return checkCharacters(prefix)
}

func checkCharacters(name string) error {
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/._-~", c) >= 0) {
			return nameError(name, "it has a character other than A-Z a-z 0-9 . _ - ~ /")
		}
	}
	return nil
}

func nameError(name, why string) error {
	return fmt.Errorf("%s is not a valid name of an object: %s", printable.Quote(name, maxShown), why)
}
