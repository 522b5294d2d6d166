package episode

import "time"

// wallLayout is what Python's datetime.isoformat writes of a time in UTC, always
// with microseconds.
const wallLayout = "2006-01-02T15:04:05.000000-07:00"

// FormatWall writes a time as rows and receipts show it:
// 2026-11-23T07:17:41.000001+00:00.
func FormatWall(t time.Time) string { return t.UTC().Format(wallLayout) }

// ParseWall reads a time that [FormatWall] or Python's isoformat wrote, which
// leaves out microseconds that are zero.
func ParseWall(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UTC(), err
}
