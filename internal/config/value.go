package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"cis490/internal/printable"
)

// Duration is a length of time, never negative, written "30s", "1h30m" or "7d".
type Duration time.Duration

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns the format that [Duration.UnmarshalText] parses.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses the format of time.ParseDuration, optionally with days in front: "7d",
// "1d12h".
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	read, err := parseDuration(s)
	if err != nil {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return fmt.Errorf(`%s has no unit: write "30s" for thirty seconds`, quote(s))
		}
		return fmt.Errorf(`%s is not a valid duration: write a number with a unit, such as "30s" or "1h30m"`, quote(s))
	}
	if read < 0 {
		return fmt.Errorf("%s is negative: a duration is 0 or more", quote(s))
	}
	*d = Duration(read)
	return nil
}

// parseDuration parses days of 24 hours, and then what time.ParseDuration parses.
func parseDuration(s string) (time.Duration, error) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		return time.ParseDuration(s)
	}
	if positive, negative := strings.CutPrefix(s, "-"); negative {
		read, err := parseDuration(positive)
		return -read, err
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, err
	}
	read := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return read, nil
	}
	more, err := time.ParseDuration(rest)
	if err == nil && (more < 0 || read > math.MaxInt64-more) {
		err = strconv.ErrRange
	}
	return read + more, err
}

// Bytes is a size, never negative, written "1MiB" (1024-based), "500MB"
// (1000-based) or, in single bytes, "1024".
type Bytes int64

// String returns b for people, rounded: "1.5 GiB".
func (b Bytes) String() string {
	if b < 0 {
		return strconv.FormatInt(int64(b), 10) + " B"
	}
	return humanize.IBytes(uint64(b))
}

// MarshalText returns b in the largest 1024-based unit that divides it. [Bytes.UnmarshalText]
// parses it to the same size.
func (b Bytes) MarshalText() ([]byte, error) {
	n, unit := int64(b), "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, larger
	}
	return fmt.Appendf(nil, "%d%s", n, unit), nil
}

// UnmarshalText parses a number with a unit of bytes, or a whole number.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if strings.ContainsRune(s, ',') {
		// humanize ignores a comma: "1,5GiB" would be fifteen.
		return fmt.Errorf("%s has a comma: write a fraction with a dot", quote(s))
	}
	if strings.HasPrefix(s, "-") {
		return fmt.Errorf("%s is negative: a size is 0 or more", quote(s))
	}
	n, err := humanize.ParseBytes(s)
	if err == nil && strings.ContainsRune(s, '.') && isNumber(s) {
		return fmt.Errorf(`%s has no unit: write "1.5MiB"`, quote(s))
	}
	if err != nil && !strings.HasPrefix(err.Error(), "too large") {
		return fmt.Errorf(`%s is not a valid size: write a number with a unit, such as "1MiB" or "500MB"`, quote(s))
	}
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%s is too large: the largest size is %s", quote(s), Bytes(math.MaxInt64))
	}
	*b = Bytes(n)
	return nil
}

func isNumber(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r != '.' && !unicode.IsDigit(r) }) < 0
}

// Path is a file or directory. [Load] makes a relative one absolute from the directory of the
// configuration file. "" stays "" and means none.
type Path string

// maxShown bounds how much of a file an error repeats.
const maxShown = 100

// quote returns s for an error.
func quote(s string) string { return printable.Quote(s, maxShown) }
