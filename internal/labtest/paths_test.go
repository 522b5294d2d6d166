package labtest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// Paths in the configurations that do not lead where the operator thinks.

// TestLinkedFoldersAreNotThree: folders are compared by device and inode, not by path.
func TestLinkedFoldersAreNotThree(t *testing.T) {
	t.Parallel()
	for what, link := range map[string]struct{ from, to string }{
		"shipped is episodes":          {"shipped", "episodes"},
		"outbox is episodes":           {"outbox", "episodes"},
		"shipped is outbox":            {"shipped", "outbox"},
		"shipped is below episodes":    {"shipped", "episodes/below"},
		"episodes are below shipped":   {"episodes", "shipped/below"},
		"the outbox is in the shipped": {"outbox", "shipped/below"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, h := newLab(t)
			h.Episode("run-1")
			if link.from == "episodes" {
				h.Forget("run-1")
				fixture.Must(t, os.RemoveAll(h.Episodes()))
			}
			fixture.Must(t, os.MkdirAll(h.Path("data", link.to), 0o755))
			fixture.Must(t, os.Symlink(h.Path("data", link.to), h.Path("data", link.from)))
			fixture.Must(t, os.MkdirAll(h.Outbox(), 0o755))
			fixture.Must(t, os.MkdirAll(h.Shipped(), 0o755))
			for name, said := range map[string]string{
				"--once": h.Run("--once").MustExit(t, 2).Stderr,
				"check":  h.Run("check").MustExit(t, 2).Stderr,
			} {
				mustContain(t, name, said, "must be three folders, none within another")
				mustContain(t, name, said, h.Path("data", link.from))
			}
		})
	}
}

// TestPathsForAShellAreRefused, in both configurations.
func TestPathsForAShellAreRefused(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	l.Stop()
	h.Set("episodes_dir", `"~/episodes"`)
	l.Set("data_dir", `"$HOME/data"`)
	for what, r := range map[string]labtest.Result{
		"daemon":           h.Run(),
		"--once":           h.Run("--once"),
		"check":            h.Run("check"),
		"receiver":         l.Receiver("--config", l.Path("receiver.toml")),
		"check (receiver)": l.Receiver("check", "--config", l.Path("receiver.toml")),
	} {
		r.MustExit(t, 2)
		mustContain(t, what, r.Stderr, "only a shell expands")
		mustContain(t, what, r.Stderr, "write the whole path")
	}
	for _, made := range []string{h.Path("~"), l.Path("$HOME")} {
		if _, err := os.Lstat(made); err == nil {
			t.Errorf("%s was made", made)
		}
	}
}

// TestCreatedFoldersAreLogged: a mistyped path is created as a folder.
func TestCreatedFoldersAreLogged(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	mustContain(t, "the receiver", l.Process().Output(), "created folder path="+l.Path("data")+"\n")
	l.Restart()
	if said := l.Process().Output(); strings.Contains(said, "created folder") {
		t.Errorf("of one that was there:\n%s", said)
	}
	h.Set("episodes_dir", fmt.Sprintf("%q", h.Path("dtaa", "episodes")))
	said := h.Once().Must(t, 0, labtest.Tally{}).Stderr
	for _, made := range []string{h.Path("dtaa"), h.Path("dtaa", "episodes"), h.Outbox(), h.Shipped()} {
		mustContain(t, "--once", said, "created folder path="+made+"\n")
	}
	if n := strings.Count(said, "created folder"); n != 4 {
		t.Errorf("it tells of %d folders:\n%s", n, said)
	}
	fixture.Must(t, os.Mkdir(h.Path("~"), 0o755))
	h.Set("episodes_dir", `"~/episodes"`)
	mustContain(t, "--once", h.Once().Must(t, 0, labtest.Tally{}).Stderr, "path taken literally")
	mustContain(t, "check", h.Run("check").MustExit(t, 0).Stderr, "is taken literally")
}
