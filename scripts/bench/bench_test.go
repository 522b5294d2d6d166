package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
)

// busy is a section of rows as (system, round, wall, foreign).
func busy(rows ...row) section { return section{Rows: rows} }

func TestRatioIsThatWithinARound(t *testing.T) {
	// The machine was three times slower in the second round, for both.
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

func TestPageKeepsWhatWasWrittenByHand(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	text := "# Mine\n<!-- begin: x -->\nold\n<!-- end -->\nmine\n<!-- begin: y -->\nother\n<!-- end -->\n"
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := splice(page, "x", []byte("new\n\n")); err != nil {
		t.Fatal(err)
	}
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
	d := xml.NewDecoder(bytes.NewReader(c.svg()))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWorkIsTheSameBytesEachTime(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := (work{"S", 3, 8, 40 << 10}).generate(dir); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("diff", "-r", a, b).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	size, err := stored(filepath.Join(a, "ep-S-00000"))
	if err != nil || size < 40_000 || size > 42_000 {
		t.Errorf("an episode of 40 KiB has %d bytes, %v", size, err)
	}
}

// A body under a name that differs from its archive's makes a receiver search for meta.json,
// which a real one does not cost.
func TestLoadArchivesHoldTheirNames(t *testing.T) {
	src := t.TempDir()
	w := work{"load", 1, 8, 46_000}
	if err := w.episode(filepath.Join(src, w.id(0)), 0); err != nil {
		t.Fatal(err)
	}
	var l loader
	if err := l.pack(src, 3, 17_000); err != nil {
		t.Fatal(err)
	}
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

// The file system that replaces the disk must return everything unchanged.
func TestCustodyIsTheWholeWay(t *testing.T) {
	dir := t.TempDir()
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	if err := (work{"S", 5, 2, 0}).generate(at("src")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"data", "outbox", "shipped"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := &chain{body: []byte("archive"), took: make([]samples, 2)}
	if err := errors.Join(c.receiver(at("data")), c.host(at("src"), at("shipped"), at("outbox"))); err != nil {
		t.Fatal(err)
	}
	names, err := c.names(0)
	if err == nil {
		err = c.all(names)
	}
	if err != nil {
		t.Fatal(err)
	}
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

// The engine's log has what receivers cost it, whatever they count themselves.
func TestCallsAreCountedByKind(t *testing.T) {
	log := filepath.Join(t.TempDir(), "requests.log")
	line := func(call string) string {
		return "- lab [30/November/2026:23:54:29 +0000] 127.0.0.1 bench MUO410OK1J9HCL9Q " + call + " 200 - 0 0 0 0 - minio - x SigV4\n"
	}
	first := "log starts 2026-11-30 23:54:25.803929968 +0000 UTC m=+0.053855801\n" + line("s3_GetObject store.json /lab/store.json") + line("s3_HeadBucket - /lab")
	if err := os.WriteFile(log, []byte(first), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := readCalls(log)
	if err != nil {
		t.Fatal(err)
	}
	all := first + line("s3_PutObject commits/h/e/1.json /lab/commits/h/e/1.json") + line("s3_GetObject store.json /lab/store.json") +
		line("s3_PutObject commits/h/f/1.json /lab/commits/h/f/1.json") + line("s3_ListObjectsV2 - /lab?list-type=2&prefix=log%2F&x=y") +
		line("s3_UploadPart episodes/h/e/x /lab/episodes/h/e/x?partNumber=1&uploadId=u")
	if err := os.WriteFile(log, []byte(all), 0o644); err != nil {
		t.Fatal(err)
	}
	after, err := readCalls(log)
	if err != nil {
		t.Fatal(err)
	}
	got := after.since(before)
	want := calls{"PutObject commits": 2, "GetObject store.json": 1, "ListObjectsV2 log": 1, "UploadPart episodes": 1}
	if !maps.Equal(got, want) || got.sum() != 5 || got.most()[0] != "PutObject commits" {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Each receiver gets the same number of connections, and some of each host.
func TestConnectionsAreSpreadOverReceivers(t *testing.T) {
	for _, n := range fleetSizes {
		for _, conns := range []int{8, 64} {
			l := loader{urls: make([]string, n)}
			for i := range l.urls {
				l.urls[i] = fmt.Sprint(i)
			}
			of, hosts := map[string]int{}, map[string]bool{}
			for i := range conns {
				of[l.urlOf(i)]++
				hosts[l.urlOf(i)+" "+hostOf(i)] = true
			}
			for _, url := range l.urls {
				if of[url] != conns/n {
					t.Errorf("%d connections over %d receivers: receiver %s got %d, want %d", conns, n, url, of[url], conns/n)
				}
			}
			if want := min(conns, n*loadHosts); len(hosts) != want {
				t.Errorf("%d connections over %d receivers: got %d pairs of receiver and host, want %d", conns, n, len(hosts), want)
			}
		}
	}
}

// A server's children count as its own, including those that have ended: rsync's daemon does
// its work in them.
func TestTimeOfEndedChildrenCounts(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo; read line")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	got := treeCPU(cmd.Process.Pid)
	if err := errors.Join(in.Close(), ignoreExit(cmd.Wait())); err != nil {
		t.Fatal(err)
	}
	want := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if diff := (want - got).Abs(); diff > 3*tick || got < 2*tick {
		t.Errorf("got %v, the kernel says %v in the end", got, want)
	}
}

// ignoreExit drops the exit code of a process, which here is that of the shell's read.
func ignoreExit(err error) error {
	if _, ended := errors.AsType[*exec.ExitError](err); ended {
		return nil
	}
	return err
}
