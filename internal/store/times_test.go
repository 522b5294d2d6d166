package store_test

import (
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// A file without the attribute has its own time, which may be anything. A row or an inventory
// that cannot represent it would affect every episode in it.
func TestAnyTimeOfAFileCanBeShown(t *testing.T) {
	data := fixture.MountTmpfs(t, "size=1m")
	l := openLab(t, data)
	k := key("h", "e")
	l.writeFile(l.storedPath(k), "x")
	for sec, want := range map[int64]string{
		253402300800:  "9999-12-31T23:59:59.999999+00:00",
		math.MaxInt64: "9999-12-31T23:59:59.999999+00:00",
		-62135596801:  "0001-01-01T00:00:00.000000+00:00",
		math.MinInt64: "0001-01-01T00:00:00.000000+00:00",
		-11676096000:  "1600-01-01T00:00:00.000000+00:00",
	} {
		at := unix.Timespec{Sec: sec}
		fixture.Must(t, unix.UtimesNanoAt(unix.AT_FDCWD, l.storedPath(k), []unix.Timespec{at, at}, 0))
		o, err := l.Stat(k)
		fixture.Must(t, err)
		got := episode.FormatWall(o.ReceivedAt)
		if _, err := episode.ParseWall(got); err != nil || got != want {
			t.Errorf("a file of the second %d arrived at %s, want %s; %v", sec, got, want, err)
		}
	}
}
