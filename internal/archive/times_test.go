package archive_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/fixture"
)

// instants are times that malware sets. Nanoseconds since 1970 overflow outside the
// years 1677 to 2262.
var instants = []unix.Timespec{
	{Sec: -62135596800},          // 0001-01-01, the zero time of Go
	{Sec: -62135596800, Nsec: 1}, // and next to it
	{Sec: -62135596801, Nsec: 999999999},
	{Sec: -62135596800 + 86400*200},
	{Sec: -11676096000, Nsec: 123456789}, // 1600
	{Sec: -9223372037, Nsec: 145224191},  // the last time before nanoseconds overflow
	{Sec: -2147483648, Nsec: 1},          // 1901: the first on ext4
	{Sec: -1, Nsec: 999999999},
	{Sec: -1},
	{Sec: 0},
	{Sec: 8589934592, Nsec: 5},          // 2242: too large for a tar header
	{Sec: 9223372036, Nsec: 854775808},  // 2262
	{Sec: 15032385535, Nsec: 999999999}, // 2446: the last on ext4
	{Sec: 253402300800, Nsec: 7},        // 10000
	{Sec: math.MaxInt64 >> 8, Nsec: 999999990},
	{Sec: math.MaxInt64},
	{Sec: math.MinInt64},
	{Sec: math.MinInt64 + 1, Nsec: 1},
}

// fileSystems are directories on the file system of temporary files and on one that can store
// any time.
func fileSystems(t *testing.T) map[string]string {
	t.Helper()
	shm, err := os.MkdirTemp("/dev/shm", "archive-*")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Log("without a file system in memory: ", err)
		return map[string]string{"temporary": t.TempDir()}
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	return map[string]string{"temporary": t.TempDir(), "memory": shm}
}

// setTime sets the mtime of a path, which may be a link, and returns what the file system
// stored.
func setTime(t *testing.T, path string, at unix.Timespec) time.Time {
	t.Helper()
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatalf("set the time of %s to %v: %v", path, at, err)
	}
	info, err := os.Lstat(path)
	fixture.Must(t, err)
	return info.ModTime()
}

// TestTimesArePackedAsTheyAre, however far from the present, for every type of entry.
func TestTimesArePackedAsTheyAre(t *testing.T) {
	for kind, dir := range fileSystems(t) {
		for _, at := range instants {
			t.Run(fmt.Sprintf("%s/%d.%09d", kind, at.Sec, at.Nsec), func(t *testing.T) {
				l := &lab{TB: t, parent: filepath.Join(dir, fmt.Sprint(at.Sec, at.Nsec))}
				l.episode = filepath.Join(l.parent, string(name))
				fixture.Must(l, os.MkdirAll(l.episode, 0o755))
				l.write("meta.json", "{}")
				l.write("done.marker", "")
				l.write("dir/telemetry.jsonl", "x")
				fixture.Must(l, os.Symlink("telemetry.jsonl", l.path("dir/link")))
				want := make(map[string]time.Time)
				for _, path := range []string{"meta.json", "done.marker", "dir/telemetry.jsonl", "dir/link"} {
					want[string(name)+"/"+path] = setTime(t, l.path(path), at)
				}
				want[string(name)+"/dir/"] = setTime(t, l.path("dir"), at)
				want[string(name)+"/"] = setTime(t, l.episode, at)
				if kind == "memory" && (want[string(name)+"/"].Unix() != at.Sec || want[string(name)+"/"].Nanosecond() != int(at.Nsec)) {
					t.Fatalf("the file system keeps %v of %v", want[string(name)+"/"], at)
				}
				packed, _ := l.pack()
				for m, err := range archive.Read(bytes.NewReader(packed)) {
					fixture.Must(l, err)
					w := want[m.Name]
					if m.ModTime.Unix() != w.Unix() || m.ModTime.Nanosecond() != w.Nanosecond() {
						t.Errorf("%s was packed with %d.%09d, want %d.%09d", m.Name,
							m.ModTime.Unix(), m.ModTime.Nanosecond(), w.Unix(), w.Nanosecond())
					}
					delete(want, m.Name)
				}
				if len(want) > 0 {
					t.Errorf("not packed: %v", want)
				}
				_, err := archive.Compare(t.Context(), bytes.NewReader(packed), l.tree(archive.Limits{}))
				fixture.Must(l, err)
				wantTarTimes(t, l, packed)
			})
		}
	}
}

// wantTarTimes checks that GNU tar restores the same times from an archive.
func wantTarTimes(t *testing.T, l *lab, packed []byte) {
	t.Helper()
	out := filepath.Join(l.parent, "out") // on the same file system
	fixture.Must(l, os.Mkdir(out, 0o755))
	runTool(t, []byte(runTool(t, packed, "zstd", "-d", "-c")), "tar", "-x", "-p", "-C", out)
	for _, path := range []string{"meta.json", "done.marker", "dir/telemetry.jsonl", "dir/link", "dir", ""} {
		want, err := os.Lstat(l.path(path))
		fixture.Must(l, err)
		got, err := os.Lstat(filepath.Join(out, string(name), path))
		fixture.Must(l, err)
		if g, w := got.ModTime(), want.ModTime(); g.Unix() != w.Unix() || g.Nanosecond() != w.Nanosecond() {
			t.Errorf("tar made %d.%09d of %q, want %d.%09d", g.Unix(), g.Nanosecond(), path, w.Unix(), w.Nanosecond())
		}
	}
}

// TestTheTarIsThatOfTheStandardWriter to the byte, except for the one time that it cannot
// write.
func TestTheTarIsThatOfTheStandardWriter(t *testing.T) {
	packed, _ := newOddLab(t).pack()
	plain := runTool(t, packed, "zstd", "-d", "-c")
	var again bytes.Buffer
	tr, tw := tar.NewReader(strings.NewReader(plain)), tar.NewWriter(&again)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = tw.WriteHeader(h)
		}
		if err == nil {
			_, err = io.Copy(tw, tr)
		}
		fixture.Must(t, err)
	}
	fixture.Must(t, tw.Close())
	if again.String() != plain {
		t.Error("another stream than archive/tar writes of the same entries")
	}
}

// TestANameCannotPassForATime in the header that is corrected.
func TestANameCannotPassForATime(t *testing.T) {
	for kind, dir := range fileSystems(t) {
		l := &lab{TB: t, parent: dir, episode: filepath.Join(dir, string(name))}
		fixture.Must(l, os.Mkdir(l.episode, 0o755))
		for _, base := range []string{"22 mtime=-62135596799\n\u00fc", "\u00fc\n22 mtime=-62135596799\n", "\u00fc\n22 mtime=-62135596799\n22 mtime=-62135596799\n"} {
			l.write(base, base)
			fixture.Must(l, os.Symlink(base, l.path("link "+base)))
			for _, path := range []string{base, "link " + base} {
				setTime(t, l.path(path), unix.Timespec{Sec: -62135596800})
			}
		}
		packed, _ := l.pack()
		for m, err := range archive.Read(bytes.NewReader(packed)) {
			fixture.Must(l, err)
			info, err := os.Lstat(filepath.Join(dir, m.Name))
			fixture.Must(l, err)
			if !m.ModTime.Equal(info.ModTime()) {
				t.Errorf("%s: %q was packed with %v, want %v", kind, m.Name, m.ModTime, info.ModTime())
			}
			if target, err := os.Readlink(filepath.Join(dir, m.Name)); err == nil && m.Link != target {
				t.Errorf("%s: %q was packed as a link to %q, want %q", kind, m.Name, m.Link, target)
			}
		}
	}
}
