package labtest_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// copiers copy the directory $1 to $2 like programs that do not know about the marker: it is
// copied first, or among the first. Each is a program for sh.
var copiers = map[string]string{
	"tar":   `tar -C "$(dirname "$1")" --sort=name -cf - "$(basename "$1")" | tar -C "$(dirname "$2")" -xf -`,
	"cp":    `mkdir "$2" && cd "$1" && for f in *; do cp -r "$f" "$2/"; done`,
	"cp -a": `mkdir "$2" && cd "$1" && for f in *; do cp -a "$f" "$2/"; done`,
	"rsync": `rsync -a "$1/" "$2/"`,
}

// TestCopiesThatBeginWithTheMarkerAreNotTorn: the whole episode is delivered, in whatever order
// a program copies it while the shipper runs.
func TestCopiesThatBeginWithTheMarkerAreNotTorn(t *testing.T) {
	t.Parallel()
	const settle, rounds = 300 * time.Millisecond, 4
	l, h := newLab(t)
	h.Set("settle", fmt.Sprintf("%q", settle.String()))
	h.Daemon()
	var names []string
	for copier, script := range copiers {
		if _, err := exec.LookPath(strings.Fields(copier)[0]); err != nil {
			if os.Getenv("CI") != "" {
				t.Error(err)
			}
			t.Logf("left out: %v", err)
			continue
		}
		for i := range rounds {
			name := fmt.Sprintf("%s-%d", strings.ReplaceAll(copier, " ", ""), i)
			src := finishedElsewhere(t, name)
			names = append(names, name)
			out, err := exec.Command("sh", "-ec", script, "sh", src, h.Episodes(name)).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", copier, err, out)
			}
			h.Note(name, src)
		}
	}
	name := "slowly"
	src := finishedElsewhere(t, name)
	copySlowly(t, src, h.Episodes(name), settle/3)
	h.Note(name, src)
	names = append(names, name)
	h.WaitShipped(names...)
	for _, name := range names {
		if gap := longestGap(t, h.Shipped(name)); gap >= settle {
			t.Skipf("this machine took %v for a step of the copy of %s", gap, name)
		}
	}
	l.Settled(t)
}

// finishedElsewhere makes a finished episode that is large enough to be seen half copied.
func finishedElsewhere(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, f := range []labtest.File{
		{Name: "done.marker"},
		{Name: "meta.json", Body: `{"code_version":{"commit":"` + labtest.Commit + `"}}`},
		{Name: "net/flows.csv", Body: strings.Repeat("1,10.0.0.1,10.0.0.2\n", 5000)},
		{Name: "telemetry.jsonl", Body: strings.Repeat(`{"call":"openat","name":"`+name+"\"}\n", 20_000)},
	} {
		path := filepath.Join(dir, f.Name)
		fixture.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		fixture.Must(t, os.WriteFile(path, []byte(f.Body), 0o644))
	}
	return dir
}

// copySlowly copies in sorted order, and pauses between any two pieces.
func copySlowly(t *testing.T, from, to string, pause time.Duration) {
	t.Helper()
	pace := time.NewTicker(pause)
	defer pace.Stop()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if e.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o755)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		defer f.Close()
		for pieces := bytes.NewBuffer(b); pieces.Len() > 0; {
			<-pace.C
			if _, err := f.Write(pieces.Next(200_000)); err != nil {
				return err
			}
		}
		return nil
	})
	fixture.Must(t, err)
}

// longestGap returns the longest time without a change below a directory, between its first and
// its last change, by the ctimes.
func longestGap(t *testing.T, dir string) time.Duration {
	t.Helper()
	var all []time.Time
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && path != dir {
			err = unix.Lstat(path, &st)
			all = append(all, time.Unix(st.Ctim.Unix()))
		}
		return err
	})
	fixture.Must(t, err)
	slices.SortFunc(all, time.Time.Compare)
	longest := time.Duration(0)
	for i := range len(all) - 1 {
		longest = max(longest, all[i+1].Sub(all[i]))
	}
	return longest
}

// TestEpisodeThatNeverSettlesDelaysNoOther: malware may continue to write.
func TestEpisodeThatNeverSettlesDelaysNoOther(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Set("settle", `"500ms"`)
	d := h.Daemon()
	dir := h.Draft("a-restless")
	fixture.WriteFile(t, filepath.Join(dir, "done.marker"), "")
	restless, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-restless:
				return
			default:
				if err := os.WriteFile(filepath.Join(dir, "telemetry.jsonl"), []byte(time.Now().String()), 0o644); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	names := []string{"b-good", "c-good", "d-good"}
	for _, name := range names {
		h.Episode(name)
	}
	h.WaitShipped(names...)
	if status := h.Run("status", "--json").MustExit(t, 0).Stdout; !strings.Contains(status, `"waiting":1,"sealed":0,"settling":1`) {
		t.Errorf("status says %s", status)
	}
	if h.IsShipped("a-restless") || strings.Contains(d.Output(), "a-restless") {
		t.Errorf("it was packed, or it is in the log:\n%s", d.Output())
	}
	close(restless)
	<-ended
	h.Note("a-restless", dir)
	h.WaitShipped("a-restless")
	d.Stop(t)
	l.Settled(t)
}

// TestAPassShipsWhatWasFinishedJustNow: with the default settling time, and without one.
func TestAPassShipsWhatWasFinishedJustNow(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	for i, settle := range []string{"1s", "0s"} {
		h.Set("settle", fmt.Sprintf("%q", settle))
		name := fmt.Sprintf("run-%d", i)
		h.Episode(name)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	l.Settled(t)
}
