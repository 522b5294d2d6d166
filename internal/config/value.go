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

// Duration is a length of time, never negative, written "30s", "1h30m", "7d" or "2w".
type Duration time.Duration

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns d for people, in days and without units that are zero: "30d", "1d12h", "1h30m".
// [Duration.UnmarshalText] parses it to the same duration.
func (d Duration) String() string {
	if d <= 0 {
		return time.Duration(d).String()
	}
	const day = Duration(24 * time.Hour)
	text := ""
	if days := d / day; days > 0 {
		text = strconv.FormatInt(int64(days), 10) + "d"
	}
	d %= day
	if d == 0 {
		return text
	}
	rest := time.Duration(d).String()
	if d%Duration(time.Minute) == 0 {
		rest = strings.TrimSuffix(rest, "0s")
	}
	if d%Duration(time.Hour) == 0 {
		rest = strings.TrimSuffix(rest, "0m")
	}
	return text + rest
}

// MarshalText returns the format that [Duration.UnmarshalText] parses.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses the format of time.ParseDuration, optionally with weeks and days in front:
// "2w", "7d", "1d12h".
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	read, err := parseDuration(s)
	if err != nil {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return fmt.Errorf(`%s has no unit: write "30s" for thirty seconds`, quote(s))
		}
		return fmt.Errorf(`%s is not a valid duration: write a number with a unit, such as "30s", "1h30m" or "7d"`, quote(s))
	}
	if read < 0 {
		return fmt.Errorf("%s is negative: a duration is 0 or more", quote(s))
	}
	*d = Duration(read)
	return nil
}

// parseDuration parses weeks of 7 days, days of 24 hours, and then what time.ParseDuration parses.
func parseDuration(s string) (time.Duration, error) {
	if positive, negative := strings.CutPrefix(s, "-"); negative && !strings.HasPrefix(positive, "-") {
		read, err := parseDuration(positive)
		return -read, err
	}
	var read time.Duration
	rest := s
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, after, found := strings.Cut(rest, unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return 0, err
		}
		if time.Duration(n) > math.MaxInt64/unit.length {
			return 0, strconv.ErrRange
		}
		if read, err = addDurations(read, time.Duration(n)*unit.length); err != nil || after == "" {
			return read, err
		}
		rest = after
	}
	more, err := time.ParseDuration(rest)
	if err != nil {
		return 0, err
	}
	return addDurations(read, more)
}

// addDurations returns the sum of two durations, which must not be negative.
func addDurations(a, b time.Duration) (time.Duration, error) {
	if b < 0 || a > math.MaxInt64-b {
		return 0, strconv.ErrRange
	}
	return a + b, nil
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
