package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// busy is a section of rows as (system, round, wall, foreign).
func busy(rows ...row) section { return section{Rows: rows} }

func TestRatioIsThatWithinARound(t *testing.T) {
	// The machine was three times slower in the second round: for both.
	s := busy(row{System: "a", Round: 1, Wall: 1}, row{System: "b", Round: 1, Wall: 2}, row{System: "a", Round: 2, Wall: 3}, row{System: "b", Round: 2, Wall: 6})
	if got := s.ratio("b", "a", wall); got != 2 {
		t.Errorf("ratio = %g, want 2", got)
	}
}

func TestSpoiledRowsAreLeftOutOrMarked(t *testing.T) {
	clean, spoiled := row{System: "a", Wall: 1}, row{System: "a", Wall: 9, Foreign: 1}
	for _, c := range []struct {
		name   string
		rows   section
		median float64
		marked bool
	}{
		{"two clean ones remain", busy(clean, spoiled, clean), 1, false},
		{"one remains", busy(clean, spoiled, spoiled), 9, true},
		{"none is spoiled", busy(clean), 1, false},
	} {
		if _, marked := c.rows.of("a"); marked != c.marked || c.rows.median("a", wall) != c.median {
			t.Errorf("%s: median %g, marked %v; want %g, %v", c.name, c.rows.median("a", wall), marked, c.median, c.marked)
		}
	}
}

func TestPageKeepsWhatAPersonWrote(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	text := "# Mine\n<!-- begin: x -->\nold\n<!-- end -->\nmine\n<!-- begin: y -->\nother\n<!-- end -->\n"
	fixture.Must(t, os.WriteFile(page, []byte(text), 0o644))
	fixture.Must(t, splice(page, "x", []byte("new\n\n")))
	got, err := os.ReadFile(page)
	want := "# Mine\n<!-- begin: x -->\nnew\n<!-- end -->\nmine\n<!-- begin: y -->\nother\n<!-- end -->\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if err := splice(page, "z", nil); err == nil {
		t.Error("a page without the marks was written to")
	}
}

func TestChartIsXML(t *testing.T) {
	c := chart{"a < b", "x", "y", []series{{name: "one & two", points: [][2]float64{{1, 0.003}, {1e7, 80}}}, {name: "guide", dashed: true}}}
	picture, err := c.svg()
	fixture.Must(t, err)
	d := xml.NewDecoder(bytes.NewReader(picture))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		fixture.Must(t, err)
	}
}

func TestWorkIsTheSameBytesEachTime(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		fixture.Must(t, (work{"S", 3, 8, 40 << 10}).generate(dir))
	}
	if out, err := exec.Command("diff", "-r", a, b).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	size, err := stored(filepath.Join(a, "ep-S-00000"))
	if err != nil || size < 40_000 || size > 42_000 {
		t.Errorf("an episode of 40 KiB has %d bytes, %v", size, err)
	}
}

// A body under another name than its archive's costs a receiver a search for
// meta.json that a real one does not.
func TestLoadArchivesHoldTheirNames(t *testing.T) {
	src := t.TempDir()
	w := work{"load", 1, 8, 46_000}
	fixture.Must(t, w.episode(filepath.Join(src, w.id(0)), 0))
	var l loader
	fixture.Must(t, l.pack(src, 3, 17_000))
	for i, b := range l.bodies {
		all, err := io.ReadAll(b.reader())
		if err != nil || len(all) != 17_000 {
			t.Fatalf("body %d has %d bytes, %v", i, len(all), err)
		}
		if d, _, err := digest.Of(bytes.NewReader(all)); err != nil || d != b.digest {
			t.Errorf("body %d says %s and has %s, %v", i, b.digest, d, err)
		}
		meta, err := archive.ReadMeta(bytes.NewReader(all), episode.Name(b.name))
		if err != nil || meta.Commit == "" {
			t.Errorf("body %d: commit %q, %v", i, meta.Commit, err)
		}
	}
}

// What stands for the disk must bring all home.
func TestCustodyIsTheWholeWay(t *testing.T) {
	dir := t.TempDir()
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	fixture.Must(t, (work{"S", 5, 2, 0}).generate(at("src")))
	for _, d := range []string{"data", "outbox", "shipped"} {
		fixture.Must(t, os.Mkdir(at(d), 0o755))
	}
	c := &chain{body: []byte("archive")}
	fixture.Must(t, errors.Join(c.receiver(at("data")), c.host(at("src"), at("shipped"), at("outbox"))))
	names, err := c.names(0)
	if err == nil {
		err = timeEach(io.Discard, 2, len(names), func(_, i int) error { return c.one(names[i], host) })
	}
	fixture.Must(t, err)
	rows, err := os.ReadFile(at("data", "index.jsonl"))
	if n := bytes.Count(rows, []byte("\n")); err != nil || n != 5 {
		t.Errorf("%d rows, %v", n, err)
	}
	for d, want := range map[string]int{"src/ep*": 0, "outbox/*.zst": 0, "shipped/*": 5, "data/episodes/*/*": 5, "data/staging/*/*": 0} {
		if got, err := filepath.Glob(at(d)); err != nil || len(got) != want {
			t.Errorf("%s has %q, %v; want %d", d, got, err, want)
		}
	}
}

// A server's children are its own, those that have ended too: rsync's daemon
// does its work in them.
func TestTimeOfEndedChildrenCounts(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo; read line")
	in, err := cmd.StdinPipe()
	fixture.Must(t, err)
	out, err := cmd.StdoutPipe()
	fixture.Must(t, err)
	fixture.Must(t, cmd.Start())
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	got := treeCPU(cmd.Process.Pid)
	fixture.Must(t, errors.Join(in.Close(), ignoreExit(cmd.Wait())))
	want := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if diff := (want - got).Abs(); diff > 3*tick || got < 2*tick {
		t.Errorf("got %v, the kernel says %v in the end", got, want)
	}
}

// ignoreExit drops the exit code of a process: ours ends with read's.
func ignoreExit(err error) error {
	if _, ended := errors.AsType[*exec.ExitError](err); ended {
		return nil
	}
	return err
}
