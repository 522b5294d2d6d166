package episode

import "time"

// wallLayout is the format of Python's datetime.isoformat for a time in UTC, always with
// microseconds.
const wallLayout = "2006-01-02T15:04:05.000000-07:00"

// FormatWall formats a time as in rows and receipts: 2026-11-23T07:17:41.000001+00:00.
func FormatWall(t time.Time) string { return t.UTC().Format(wallLayout) }

// ParseWall parses a time of [FormatWall], or of Python's isoformat, which omits zero microseconds.
func ParseWall(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UTC(), err
}
