package labtest

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
)

// Fate is what must happen to an episode.
type Fate string

// Fates. A held or named episode stays where it was made.
const (
	Ships  Fate = "ships"
	IsHeld Fate = "is held"  // for an operator to decide
	Named  Fate = "is named" // in the log of each scan: its name is not a valid id
)

// Evil is a kind of episode that only malware or a faulty monitor leaves behind.
type Evil struct {
	Kind string
	Fate Fate
	make func(h *Host, name string)
}

// Evils are all kinds. Those that lead to files outside of the episode lead to [Secret].
var Evils = []Evil{
	{"names", Ships, evilNames},
	{"links", Ships, evilLinks},
	{"specials", Ships, evilSpecials},
	{"times", Ships, evilTimes},
	{"empty-meta", IsHeld, func(h *Host, name string) {
		h.Episode(name, File{"meta.json", ""})
	}},
	{"deep", IsHeld, func(h *Host, name string) {
		h.Episode(name, File{strings.Repeat("d/", 70) + "f", "x"})
	}},
	{"long-path", IsHeld, func(h *Host, name string) {
		h.Episode(name, File{strings.Repeat(strings.Repeat("p", 250)+"/", 5) + "f", "x"})
	}},
	{"sparse", IsHeld, func(h *Host, name string) {
		h.Draft(name)
		fixture.Must(h.t, os.Truncate(h.Episodes(name, "empty.log"), 100<<30))
		fixture.WriteFile(h.t, h.Episodes(name, "done.marker"), "") // a lab does not answer for 100 GiB
	}},
	{"new\nline \x1b[31m\xff", Named, func(h *Host, name string) { h.Episode(name) }},
	{strings.Repeat("long", 40), Named, func(h *Host, name string) { h.Episode(name) }},
}

// Secret is the content of a file outside of all episodes, to which evil ones lead. No archive
// may hold it.
const Secret = "SECRET that no archive may hold\n"

// Make makes an evil episode and returns its name, which begins with prefix.
func (e Evil) Make(h *Host, prefix string) string {
	h.t.Helper()
	name := prefix + "-" + e.Kind
	e.make(h, name)
	return name
}

// secretPath returns the path of the file outside.
func (h *Host) secretPath() string {
	h.t.Helper()
	path := h.Path("data", "secret")
	if _, err := os.Lstat(path); err != nil {
		fixture.WriteFile(h.t, path, Secret)
	}
	return path
}

func evilNames(h *Host, name string) {
	h.Draft(name)
	for _, s := range []string{
		"new\nline", "latin-\xe9.csv", "\xff\xfe", "\x1b[2J\x1b]0;title\a", "\u202egnp.exe", "tab\t ", "back\\slash", "-rf", "=",
		"12 path=x", "CON", strings.Repeat("n", 255), "meta.json ", ".. ", "...",
	} {
		fixture.WriteFile(h.t, h.Episodes(name, "odd", s), "content of "+s)
	}
	h.Finish(name)
}

func evilLinks(h *Host, name string) {
	h.Draft(name)
	for from, to := range map[string]string{
		"absolute": h.secretPath(), "up": "../../secret", "folder": "..", "itself": "itself", "dangling": "nowhere\n", "root": "/", "proc": "/proc/self/environ",
	} {
		fixture.Must(h.t, os.Symlink(to, h.Episodes(name, from)))
	}
	fixture.Must(h.t, os.Remove(h.Episodes(name, "meta.json")))
	fixture.Must(h.t, os.Symlink(h.secretPath(), h.Episodes(name, "meta.json")))
	h.Finish(name)
}

func evilSpecials(h *Host, name string) {
	h.Draft(name)
	modes := map[string]uint32{"qemu.sock": unix.S_IFSOCK, "pipe\x1b[2J\n": unix.S_IFIFO}
	if os.Geteuid() == 0 {
		modes["zero"] = unix.S_IFCHR
	}
	for file, mode := range modes {
		fixture.Must(h.t, unix.Mknod(h.Episodes(name, file), mode|0o644, int(unix.Mkdev(1, 5))))
	}
	h.Finish(name)
}

// evilTimes sets extreme times, as far as the file system keeps them.
func evilTimes(h *Host, name string) {
	h.Episode(name)
	for i, path := range []string{"meta.json", "telemetry.jsonl", "net/flows.csv", "empty.log", "net", "done.marker", ""} {
		at := unix.Timespec{Sec: []int64{-62135596800, 253402300800, -1 << 62, 1 << 62}[i%4], Nsec: 999_999_999}
		fixture.Must(h.t, unix.UtimesNanoAt(unix.AT_FDCWD, h.Episodes(name, path), []unix.Timespec{at, at}, 0))
	}
}

// Discard removes an episode that is held or named, as an operator may after examining it.
func (h *Host) Discard(name string) {
	h.t.Helper()
	h.Forget(name)
	fixture.Must(h.t, os.RemoveAll(h.Episodes(name)))
}
