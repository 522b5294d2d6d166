package labtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// What counts as an episode, what is packed, and what is held.

func TestSymlinkToADirectoryIsNoEpisode(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	elsewhere := l.Path("elsewhere")
	h.Episode("real")
	fixture.Must(t, os.Rename(h.Episodes("real"), elsewhere))
	h.Forget("real")
	fixture.Must(t, os.Symlink(elsewhere, h.Episodes("linked")))
	// Nor is a marker that is not a regular file.
	h.Draft("marked")
	fixture.Must(t, os.Symlink("/etc/passwd", h.Episodes("marked", "done.marker")))
	h.Once().Must(t, 0, labtest.Tally{})
	if !fixture.Exists(filepath.Join(elsewhere, "done.marker")) {
		t.Error("what the link leads to was touched")
	}
	l.Settled(t)
}

func TestBadNamesAreReportedAndOthersContinue(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	bad := []string{".hidden", "-rf", "a b", "new\nline", "\x1b[31mred", "ünicode", strings.Repeat("x", 129), "a~2"}
	for _, name := range bad {
		h.Episode(name)
	}
	h.Episode("good")
	want := labtest.Tally{Scanned: len(bad) + 1, Shipped: 1, Held: len(bad)}
	p := h.Once().Must(t, 3, want)
	for _, r := range p.Stderr {
		if r != '\n' && (r < ' ' || r > '~') {
			t.Fatalf("the log holds %q: %s", r, p.Stderr)
		}
	}
	l.Check(t)
	h.Once().Must(t, 3, labtest.Tally{Scanned: len(bad), Held: len(bad)}) // again at each scan
	var status struct{ Unshippable []string }
	out := h.Run("status", "--json").MustExit(t, 3).Stdout
	if err := json.Unmarshal([]byte(out), &status); err != nil || len(status.Unshippable) != len(bad) {
		t.Errorf("status names %d bad names, want %d (%v): %s", len(status.Unshippable), len(bad), err, out)
	}
}

func TestSpecialsAreSkippedAndCounted(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Draft("run-1")
	for name, mode := range map[string]uint32{"qemu.sock": unix.S_IFSOCK, "pipe": unix.S_IFIFO, "net/monitor": unix.S_IFSOCK} {
		fixture.Must(t, unix.Mknod(h.Episodes("run-1", name), mode|0o644, 0))
	}
	h.Finish("run-1")
	p := h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	mustContain(t, "the log", p.Stderr, "qemu.sock", "pipe", "net/monitor")
	if row := l.RowOf(t, "lab-01", "run-1"); row.Skipped != 3 {
		t.Errorf("the row says skipped %d, want 3", row.Skipped)
	}
	l.Settled(t)
}

func TestHardLinkToAnothersFileIsSkipped(t *testing.T) {
	t.Parallel()
	fixture.RequireRoot(t)
	l, h := newLab(t)
	h.Draft("run-1")
	fixture.WriteFile(t, l.Path("secret"), "secret")
	fixture.Must(t, os.Link(l.Path("secret"), h.Episodes("run-1", "mine")))
	fixture.Must(t, os.Lchown(h.Episodes("run-1"), 4711, 4711))
	h.Finish("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if row := l.RowOf(t, "lab-01", "run-1"); row.Skipped != 1 {
		t.Errorf("the row says skipped %d, want 1", row.Skipped)
	}
	unpacked := labtest.Unpack(t, l.Archive("lab-01", "run-1"))
	if fixture.Exists(filepath.Join(unpacked, "run-1", "mine")) {
		t.Error("somebody else's file was packed")
	}
}

func TestEpisodesThatCannotBePackedAreHeldAndOthersShip(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Set("limits.episode_bytes", `"10MiB"`)
	h.Set("limits.episode_entries", "100")
	h.Draft("a-empty-meta", labtest.File{Name: "meta.json"})
	h.Finish("a-empty-meta")
	h.Draft("b-sparse")
	fixture.Must(t, os.Truncate(h.Episodes("b-sparse", "empty.log"), 1<<40))
	fixture.WriteFile(t, h.Episodes("b-sparse", "done.marker"), "") // the lab does not check a terabyte
	var many []labtest.File
	for i := range 101 {
		many = append(many, labtest.File{Name: fmt.Sprintf("f%d", i)})
	}
	h.Episode("c-many", many...)
	h.Episode("d-good")
	h.Episode("e-no-meta", labtest.File{Name: "telemetry.jsonl", Body: "{}\n"})
	h.Once().Must(t, 3, labtest.Tally{Scanned: 5, Shipped: 2, Held: 3})
	l.Check(t)
	for name, about := range map[string]string{"a-empty-meta": "meta.json is empty", "b-sparse": "empty.log", "c-many": "entries"} {
		reason, cause := readHold(t, h, name)
		if reason != "unfit" {
			t.Errorf("%s is held for the reason %q, want unfit", name, reason)
		}
		mustContain(t, "the hold of "+name, cause, about)
	}
	out := h.Run("status").MustExit(t, 3).Stdout // in another process: holds are on disk
	mustContain(t, "status", out, "a-empty-meta", "b-sparse", "c-many")

	// The remedy: fix the cause, and release the episode.
	h.Forget("a-empty-meta")
	fixture.WriteFile(t, h.Episodes("a-empty-meta", "meta.json"), "{}")
	h.Note("a-empty-meta", h.Episodes("a-empty-meta"))
	h.Run("retry", "a-empty-meta").MustExit(t, 0)
	h.Once().Must(t, 3, labtest.Tally{Scanned: 3, Shipped: 1, Held: 2})
	// Or rename it: a hold without an episode is dropped.
	fixture.Must(t, os.Rename(h.Episodes("b-sparse"), h.Path("data", "b-sparse")))
	h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Held: 1})
	if fixture.Exists(h.Outbox("b-sparse.held")) {
		t.Error("the hold of an episode that is gone stays")
	}
	l.Settled(t)
}

func TestNamesThatLookLikeOurOwnFilesShip(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	names := []string{
		"a", "a.tar.zst", "a.tar.zst.partial", "a.tar.zst.tar.zst", "a.held", "a.seal", "a.accepted",
		"a..b", "0", "done.marker", "meta.json", strings.Repeat("x", 128),
	}
	for _, name := range names {
		h.Episode(name)
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: len(names), Shipped: len(names)})
	l.Settled(t)
}

func TestEpisodeThatIsStillWrittenIsNotSealed(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	makeLargeEpisode(t, h, "run-1", 24<<20) // so that packing takes longer than a writer may sleep
	f, err := os.OpenFile(h.Episodes("run-1", "blob"), os.O_APPEND|os.O_WRONLY, 0)
	fixture.Must(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				f.WriteString("more")
			}
		}
	}()
	p := h.Once()
	close(stop)
	<-stopped
	f.Close()
	if p.Code == 0 || p.Tally != (labtest.Tally{Scanned: 1, Transient: 1}) {
		t.Errorf("exit code %d, %+v", p.Code, p.Tally)
	}
	wantNoHolds(t, h)
	h.Forget("run-1")
	h.Note("run-1", h.Episodes("run-1"))
	l.Check(t)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}
