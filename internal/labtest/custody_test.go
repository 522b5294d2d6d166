package labtest_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// The invariants of verification on both ends: the receiver scrubs its store, a host asks, and
// a copy is deleted only if the receiver has verified its own.

// flipByte changes a byte of a stored archive, as a failing disk does.
func flipByte(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	fixture.Must(t, err)
	b[len(b)/2] ^= 1
	fixture.Must(t, os.WriteFile(path, b, 0o640))
}

func TestStoreIsRepairedFromTheHostsCopy(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Episode("run-2")
	h.Episode("run-3")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	h.Run("verify").MustExit(t, 0)
	flipByte(t, l.Archive(h.Name, "run-1"))
	fixture.Must(t, os.Remove(l.Archive(h.Name, "run-2")))
	scrub := l.Receiver("--config", l.Path("receiver.toml"), "scrub", "--rate", "0")
	scrub.MustExit(t, 1)
	mustContain(t, "the scrub", scrub.Stdout, "damaged\tlab-01/run-1")
	mustContain(t, "the scrub", scrub.Stdout, "missing\tlab-01/run-2")
	verify := h.Run("verify", "--heal")
	verify.MustExit(t, 1)
	mustContain(t, "verify", verify.Stdout, "verified=1 stored=0 missing=1 damaged=1 undecodable=0 divergent=0 unknown=0 healing=2")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	h.Run("verify").MustExit(t, 0)
	quarantined, err := filepath.Glob(l.Path("data", "quarantine", "lab-01", "*"))
	if err != nil || len(quarantined) != 1 || !strings.Contains(quarantined[0], "run-1~") {
		t.Errorf("in quarantine: %q, %v", quarantined, err)
	}
	repaired := 0
	for _, row := range l.Rows(t) {
		if row.Repaired {
			repaired++
		}
	}
	if repaired != 2 {
		t.Errorf("%d rows say that they repair one, want 2", repaired)
	}
	l.Settled(t)
}

// The receipt travels with the episode through a real shipper, and nothing else
// gets into the shipped folder.
func TestPruneDeletesOnlyWhatWasReadBack(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Episode("run-2")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	h.Run("prune", "--max-age", "1ns").MustExit(t, 0)
	if !h.IsShipped("run-1") || !h.IsShipped("run-2") {
		t.Fatal("deleted what nobody has read back")
	}
	l.Check(t)
	h.Run("verify").MustExit(t, 0)
	flipByte(t, l.Archive(h.Name, "run-1"))
	h.Run("verify").MustExit(t, 1) // finds it, and the receiver quarantines it
	pruneUntil(t, h, "deleted=1")
	if !h.IsShipped("run-1") || h.IsShipped("run-2") {
		t.Errorf("run-1 shipped: %v, want it; run-2: %v, want it gone", h.IsShipped("run-1"), h.IsShipped("run-2"))
	}
	entries, err := os.ReadDir(h.Shipped())
	if err != nil || len(entries) != 1 {
		t.Errorf("the shipped folder has %v, %v", entries, err)
	}
}

// pruneUntil prunes until the output contains says: what changed less than 3 s ago is kept.
func pruneUntil(t *testing.T, h *labtest.Host, says string) string {
	t.Helper()
	out := ""
	labtest.Eventually(t, "a pruning says "+says, func() bool {
		out = h.Run("prune", "--max-age", "1ns").MustExit(t, 0).Stdout
		return strings.Contains(out, says)
	})
	return out
}

// A recorder had a file open when the episode was shipped, and an analyst wrote to
// another one. What they wrote exists nowhere else.
func TestPruneKeepsWhatWasWrittenAfterShipping(t *testing.T) {
	t.Parallel()
	_, h := newLab(t)
	names := []string{"w1", "w2", "w3"}
	var recorder *os.File
	for _, name := range names {
		h.Episode(name)
	}
	recorder, err := os.OpenFile(h.Episodes("w1", "meta.json"), os.O_APPEND|os.O_WRONLY, 0)
	fixture.Must(t, err)
	defer recorder.Close()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	if _, err := recorder.WriteString(" "); err != nil {
		t.Fatal(err)
	}
	fixture.WriteFile(t, h.Shipped("w2", "analysis.txt"), "a week of work")
	h.Forget("w1") // it is no longer what was made
	h.Forget("w2")

	verify := h.Run("verify")
	verify.MustExit(t, 1)
	mustContain(t, "verify", verify.Stdout, "changed      w1: it is not what the receiver has; meta.json changed last")
	mustContain(t, "verify", verify.Stdout, "changed      w2: it is not what the receiver has")
	mustContain(t, "verify", verify.Stdout, "verified=1 stored=0")
	mustContain(t, "verify", verify.Stdout, "changed=2")
	mustContain(t, "status", h.Run("status").MustExit(t, 0).Stdout, "3 in the shipped directory, 2 changed since (noted ")

	out := pruneUntil(t, h, "deleted=1 ")
	mustContain(t, "prune", out, "kept          w1")
	mustContain(t, "prune", out, "kept=2")
	h.Forget("w3")
	if b := fixture.ReadFile(t, h.Shipped("w2", "analysis.txt")); b != "a week of work" {
		t.Errorf("the analysis says %q", b)
	}
	if !strings.HasSuffix(fixture.ReadFile(t, h.Shipped("w1", "meta.json")), " ") {
		t.Error("what the recorder wrote is gone")
	}
	// As verify advises: both copies, the former and the present one.
	h.Run("resend", "w2").MustExit(t, 0)
	h.Once().MustExit(t, 3)
	h.Run("retry", "--beside", "w2").MustExit(t, 0)
	h.Once().MustExit(t, 0)
}

// After the first comparison, verify relies on the metadata of the file system, and --deep
// reads the files again.
func TestVerifyRemembersWhatItCompared(t *testing.T) {
	t.Parallel()
	_, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	quiet := time.Now().Add(2 * time.Second)
	labtest.Eventually(t, "no file has changed for 2 s", func() bool { return time.Now().After(quiet) })
	reads := func(args ...string) bool { // files are opened through their descriptors
		tr := labtest.NewTrace(t)
		h.TracedRun(tr, args...).MustExit(t, 0)
		return len(labtest.Find(tr.Calls(t), "openat", `"/proc/self/fd/`)) > 0
	}
	if !reads("verify") {
		t.Error("the first verify reads no file, and the fingerprint was too young")
	}
	if reads("verify") {
		t.Error("the second verify reads a file, and the fingerprint is as it was")
	}
	if !reads("verify", "--deep") {
		t.Error("verify --deep reads no file")
	}
}

// A host that has packed wrong bytes still states their sha256, and the episode is retired. Any
// verification finds it, and the episode stays on its host, which can deliver it correctly.
func TestAnArchiveThatDoesNotDecodeIsFoundAndKept(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Stop()
	h.Once().MustExit(t, 4) // packed, and not sent
	entry := h.Outbox("run-1.tar.zst")
	flipByte(t, entry)
	seal := make([]byte, 256)
	n, err := unix.Getxattr(entry, "user.cis490.seal", seal)
	if err != nil {
		t.Skipf("the file system of the tests has no attributes: %v", err)
	}
	sum := sha256.Sum256([]byte(fixture.ReadFile(t, entry)))
	copy(seal, sum[:])
	fixture.Must(t, unix.Setxattr(entry, "user.cis490.seal", seal[:n], 0))
	l.Start()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})

	scrub := l.Receiver("--config", l.Path("receiver.toml"), "scrub", "--rate", "0")
	scrub.MustExit(t, 1)
	mustContain(t, "the scrub", scrub.Stdout, "undecodable\tlab-01/run-1")
	verify := h.Run("verify", "--heal")
	verify.MustExit(t, 1)
	mustContain(t, "verify", verify.Stdout, "undecodable  run-1: the receiver has what was sent")
	h.Run("prune", "--max-age", "1ns").MustExit(t, 0)
	if !h.IsShipped("run-1") || !fixture.Exists(l.Archive("lab-01", "run-1")) {
		t.Fatal("it is not on both ends any more")
	}

	// As docs/operations.md says.
	fixture.Must(t, os.MkdirAll(l.Path("data", "quarantine", "lab-01"), 0o750))
	fixture.Must(t, os.Rename(l.Archive("lab-01", "run-1"), l.Path("data", "quarantine", "lab-01", "run-1~undecodable")))
	h.Run("verify", "--heal").MustExit(t, 1)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	h.Run("verify").MustExit(t, 0)
	if rows := l.Rows(t); len(rows) != 2 || !rows[1].Repaired {
		t.Errorf("the index has %+v", rows)
	}
	l.Settled(t)
}

func TestConflictIsKeptUnderASecondName(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	first := l.RowOf(t, h.Name, "run-1")
	h.Episode("run-1", labtest.File{Name: "meta.json", Body: `{"a":1}`})
	h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Conflicts: 1})
	held := h.Run("held", "--full")
	held.MustExit(t, 3)
	mustContain(t, "held", held.Stdout, first.SHA256)
	h.Run("retry", "--beside", "run-1").MustExit(t, 0)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if again := l.RowOf(t, h.Name, "run-1"); again != first {
		t.Errorf("the first row is %+v now, and was %+v", again, first)
	}
	beside := 0
	for _, row := range l.Rows(t) {
		if strings.HasPrefix(row.Episode, "run-1.conflict-") {
			beside++
		}
	}
	if beside != 1 {
		t.Errorf("%d rows of the other copy, want 1", beside)
	}
	l.Receiver("--config", l.Path("receiver.toml"), "index", "verify", "--deep").MustExit(t, 0)
}

// Another process may move back what a shipper retires.
func TestResentEpisodeIsKnownAgain(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	h.Run("resend", "run-1").MustExit(t, 0)
	if h.IsShipped("run-1") {
		t.Error("it is still in the shipped folder")
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1})
	h.Run("verify", "--quick").MustExit(t, 0)
	l.Settled(t)
}

func TestStatusTellsOfTheStore(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	status := l.Receiver("--config", l.Path("receiver.toml"), "status", "--json")
	status.MustExit(t, 0)
	mustContain(t, "the status", status.Stdout, `"quarantined":0`, `(receiver)"`, `"oldest_unread_seconds":null`)
}

// The daemon scrubs: it looks at its position when it starts.
func TestDaemonScrubs(t *testing.T) {
	t.Parallel()
	l, _ := newLab(t, labtest.Unstarted())
	fixture.Must(t, os.Mkdir(l.Path("data"), 0o750))
	fixture.WriteFile(t, l.Path("data", "scrub.json"), "not JSON")
	l.Start().WaitLine(t, "scrub begins again")
}
