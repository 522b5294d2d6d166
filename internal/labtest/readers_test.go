package labtest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/labtest"
)

// codeBlock is a piece of code of docs/index.md.
type codeBlock struct {
	language, title, code string
}

// readSnippets returns the code blocks of docs/index.md, by title: the comment in their first line.
func readSnippets(t *testing.T) map[string]codeBlock {
	t.Helper()
	page, err := os.ReadFile("../../docs/index.md")
	fixture.Must(t, err)
	found := map[string]codeBlock{}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllSubmatch(page, -1) {
		s := codeBlock{language: string(m[1]), code: string(m[2])}
		if s.language == "json" {
			continue // an example row: see TestIndexSchemaTakesRowsAndNothingElse
		}
		first, _, _ := strings.Cut(s.code, "\n")
		_, s.title, _ = strings.Cut(first, " ")
		found[s.title] = s
	}
	return found
}

// readersIndex has the rows of readersFixture as readers must see them.
type readersIndex struct {
	dir  string
	last map[episode.Key]index.Row // the last row of each key
}

// readersFixture writes an index with what readers must handle: names like dates and numbers,
// backfilled and repaired rows, equal times and times that go back, a second recording kept
// beside the first, and a torn tail. The first repaired row comes after more rows than readers
// examine to guess types.
func readersFixture(t *testing.T) readersIndex {
	t.Helper()
	at := time.Date(2026, 11, 23, 7, 59, 13, 0, time.UTC)
	var rows []index.Row
	add := func(r index.Row) { rows = append(rows, r) }
	for n := range 25_000 {
		add(index.Row{ReceivedAt: at.Add(time.Duration(n/10) * time.Second), Key: episode.Key{Host: "lab-01", Name: episode.Name(fmt.Sprintf("2026-11-%05d", n))}, Size: int64(n), Commit: strings.Repeat("0", 40)})
	}
	for n, name := range []episode.Name{"2026-11-01", "007", "1e5", "true", "run-7", "run-7.conflict-1234abcd"} {
		add(index.Row{ReceivedAt: at.Add(-time.Hour), Key: episode.Key{Host: "lab-02", Name: name}, Size: int64(n), Backfilled: true, Skipped: n})
	}
	for n, back := range []time.Duration{0, time.Second, 48 * time.Hour} { // the same time, and before
		add(index.Row{ReceivedAt: at.Add(-back), Key: episode.Key{Host: "lab-01", Name: episode.Name(fmt.Sprintf("2026-11-%05d", n))}, Size: 1 << 40, Repaired: true})
	}
	return writeIndex(t, rows...)
}

// writeIndex writes rows and a torn tail.
func writeIndex(t *testing.T, rows ...index.Row) readersIndex {
	t.Helper()
	x := readersIndex{dir: t.TempDir(), last: map[episode.Key]index.Row{}}
	var file []byte
	for _, r := range rows {
		r.SHA256 = sha256.Sum256(fmt.Append(nil, len(file)))
		file = r.Append(file)
		x.last[r.Key] = r
	}
	file = append(file, `{"commit": "6baa9455e3e70682c2094cac629f6fbed82c07cd", "episode_id": "torn", "host_id": "lab-0`...)
	fixture.Must(t, os.WriteFile(filepath.Join(x.dir, "index.jsonl"), file, 0o644))
	return x
}

// compare compares rows as a reader prints them, one JSON object per line, with the last
// rows of the index.
func (x readersIndex) compare(t *testing.T, out []byte) {
	t.Helper()
	got := map[episode.Key]bool{}
	for line := range bytes.Lines(out) {
		var r struct {
			Host     episode.Name `json:"host_id"`
			Episode  episode.Name `json:"episode_id"`
			SHA256   string       `json:"sha256"`
			Size     int64        `json:"size_bytes,string"`
			Repaired bool         `json:"repaired"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		key := episode.Key{Host: r.Host, Name: r.Episode}
		want, known := x.last[key]
		if !known || got[key] || r.SHA256 != want.SHA256.String() || r.Size != want.Size || r.Repaired != want.Repaired {
			t.Fatalf("it read %s, want %+v (again: %v)", line, want, got[key])
		}
		got[key] = true
	}
	if len(got) != len(x.last) {
		t.Errorf("it read %d keys, want %d", len(got), len(x.last))
	}
}

// requireReader returns a program, or skips the test. CI must have it.
func requireReader(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	if cmd.Err != nil {
		skipWithout(t, cmd.Err.Error())
	}
	return cmd
}

func skipWithout(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// requirePython returns Debian's Python with the modules, or skips the test.
func requirePython(t *testing.T, code string, modules ...string) *exec.Cmd {
	t.Helper()
	for _, m := range modules {
		if out, err := requireReader(t, "/usr/bin/python3", "-c", "import "+m).CombinedOutput(); err != nil {
			skipWithout(t, "python3-"+m+": "+string(out))
		}
	}
	return exec.Command("/usr/bin/python3", "-c", code)
}

// requireNode returns Node.js with the modules that `make readers` installs, or skips the test.
func requireNode(t *testing.T, code string) *exec.Cmd {
	t.Helper()
	modules := os.Getenv("CIS490_READERS")
	if modules == "" {
		t.Skip("DuckDB and Polars are tried by `make readers`")
	}
	cmd := requireReader(t, "node", "-e", code)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	return cmd
}

// runReader runs cmd in dir.
func runReader(t *testing.T, cmd *exec.Cmd, dir string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	return out
}

// TestReadersSnippetsAreAllRun: each new snippet of the page needs a test here.
func TestReadersSnippetsAreAllRun(t *testing.T) {
	for title := range readSnippets(t) {
		if !readersTests[title] {
			t.Errorf("docs/index.md: no test runs the snippet %q", title)
		}
	}
	if got := len(readSnippets(t)); got != len(readersTests) {
		t.Errorf("docs/index.md has %d snippets with a title of their own, want %d", got, len(readersTests))
	}
}

const (
	jqEpisodes    = "jq: the episodes of each host"
	jqFollow      = "jq: follow it; a row may come twice"
	pythonRows    = "Python: the last row of each key"
	pandasRows    = "pandas: the last row of each key"
	polarsRows    = "Polars (in Python the option is infer_schema_length=None)"
	duckdbRows    = "DuckDB: a torn tail is a row of NULLs, which is left out"
	tarOneMember  = "one member; reads no further than it must"
	tarAll        = "all of it: the exit code is not 0 if the archive is cut or altered"
	sumsOfCopy    = "a copy of the store: the sha256 of each file that is there"
	pythonMembers = "Python: the regular files of an archive"
)

var readersTests = map[string]bool{
	jqEpisodes: true, jqFollow: true, pythonRows: true, pandasRows: true, polarsRows: true,
	duckdbRows: true, tarOneMember: true, tarAll: true, sumsOfCopy: true, pythonMembers: true,
}

func TestReadersTakeTheLastRowOfEachKey(t *testing.T) {
	t.Parallel()
	indexes := []readersIndex{readersFixture(t)}
	for _, names := range [][]episode.Name{{"2026-11-01", "2026-11-02"}, {"007", "1e5"}, {"true", "false"}} {
		indexes = append(indexes, writeIndex(t, index.Row{Key: episode.Key{Host: "1", Name: names[0]}}, index.Row{Key: episode.Key{Host: "1", Name: names[1]}, Repaired: true}))
	}
	for title, run := range map[string]func(*testing.T, string) *exec.Cmd{
		pythonRows: func(t *testing.T, code string) *exec.Cmd {
			return requirePython(t, code+`
for row in rows.values():
    print(json.dumps(row | {"size_bytes": str(row["size_bytes"])}))
`)
		},
		pandasRows: func(t *testing.T, code string) *exec.Cmd {
			return requirePython(t, code+`
rows["size_bytes"] = rows["size_bytes"].astype(str)
rows["repaired"] = rows["repaired"] == True
print(rows[["host_id", "episode_id", "sha256", "size_bytes", "repaired"]].to_json(orient="records", lines=True), end="")
`, "pandas")
		},
		polarsRows: func(t *testing.T, code string) *exec.Cmd {
			return requireNode(t, code+`
const out = rows.toRecords().map((r) => JSON.stringify({ ...r, size_bytes: String(r.size_bytes), repaired: r.repaired === true }));
fs.writeSync(1, out.join("\n") + "\n");
`)
		},
		duckdbRows: func(t *testing.T, code string) *exec.Cmd {
			return requireNode(t, `
const { DuckDBInstance } = require("@duckdb/node-api");
(async () => {
  const db = await (await DuckDBInstance.create(":memory:")).connect();
  await db.run(`+"`"+code+"`"+`);
  const read = await db.runAndReadAll("SELECT host_id, episode_id, sha256, size_bytes::VARCHAR AS size_bytes, coalesce(repaired, false) AS repaired FROM episodes");
  require("fs").writeSync(1, read.getRowObjects().map((r) => JSON.stringify(r)).join("\n") + "\n");
})();
`)
		},
	} {
		t.Run(title, func(t *testing.T) {
			for _, x := range indexes {
				x.compare(t, runReader(t, run(t, readSnippets(t)[title].code), x.dir))
			}
		})
	}
	t.Run(jqEpisodes, func(t *testing.T) {
		got := string(runReader(t, requireReader(t, "sh", "-c", readSnippets(t)[jqEpisodes].code), indexes[0].dir))
		if want := "{\"host\":\"lab-01\",\"episodes\":25000}\n{\"host\":\"lab-02\",\"episodes\":6}\n"; got != want {
			t.Errorf("it printed %s, want %s", got, want)
		}
	})
}

// TestReadersFollowOverATornTail: jq must not stop at a torn tail after power loss.
func TestReadersFollowOverATornTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "index.jsonl")
	row := func(n int) []byte {
		return index.Row{ReceivedAt: time.Unix(int64(n), 0), Key: episode.Key{Host: "lab-01", Name: episode.Name(fmt.Sprint("run-", n))}, SHA256: sha256.Sum256(nil)}.Append(nil)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	fixture.Must(t, err)
	defer file.Close()
	put := func(b []byte) {
		t.Helper()
		if _, err := file.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	put(row(1))
	cmd := requireReader(t, "sh", "-c", readSnippets(t)[jqFollow].code)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	fixture.Must(t, err)
	fixture.Must(t, cmd.Start())
	defer cmd.Wait()
	defer syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // tail would wait for ever
	in := json.NewDecoder(out)
	await := func(name string) {
		t.Helper()
		for {
			var r struct {
				Episode string `json:"episode_id"`
			}
			if err := in.Decode(&r); err != nil {
				t.Fatalf("it ended before %s: %v", name, err)
			}
			if r.Episode == name {
				return
			}
		}
	}
	await("run-1")
	put(row(2)[:50])
	put([]byte("\n")) // as a reader that began in the middle of a line sees it
	put(row(3))
	await("run-3")
}

// readersArchive ships an episode with real programs and returns the store's directory.
func readersArchive(t *testing.T) (dir, archive string) {
	t.Helper()
	l, h := newLab(t)
	episode := h.Draft("run-7")
	noise := make([]byte, 50_000)
	rand.NewChaCha8([32]byte{7}).Read(noise)
	fixture.WriteFile(t, filepath.Join(episode, "capture.bin"), string(noise))
	fixture.WriteFile(t, filepath.Join(episode, "zeros"), strings.Repeat("\x00", 30_000))
	h.Finish("run-7")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	return l.Path("data"), l.Archive("lab-01", "run-7")
}

func TestReadersOfArchivesNoticeEachCutAndFlip(t *testing.T) {
	t.Parallel()
	_, archive := readersArchive(t)
	whole, err := os.ReadFile(archive)
	fixture.Must(t, err)
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(7, 7))
	damaged := map[string][]byte{"more": append(bytes.Clone(whole), 'x'), "twice": append(bytes.Clone(whole), whole...)}
	const last, others = 40, 144
	for n := range last + others {
		cut, at := len(whole)-1-n, len(whole)-1-n
		if n >= last {
			cut, at = random.IntN(len(whole)), random.IntN(len(whole))
		}
		damaged[fmt.Sprint("cut-", cut)] = whole[:cut]
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << random.IntN(8)
		damaged[fmt.Sprint("flip-", at)] = flipped
	}
	for name, b := range damaged {
		fixture.WriteFile(t, filepath.Join(dir, name), string(b))
	}
	fixture.WriteFile(t, filepath.Join(dir, "whole"), string(whole))

	// A flip that changes nothing of the content (an unused bit) does not count.
	code := readSnippets(t)[pythonMembers].code + `
import os
want = list(members("whole"))
assert ["run-7/meta.json", "run-7/capture.bin"] == [n for n, _ in want if "meta" in n or "capture" in n], want
for name in sorted(os.listdir(".")):
    try:
        if list(members(name)) != want or name.split("-")[0] in ("cut", "more", "twice"):
            print("taken for whole:", name)
    except (EOFError, zstandard.ZstdError, tarfile.TarError):
        pass
print("done")
`
	if out := string(runReader(t, requirePython(t, code, "zstandard"), dir)); out != "done\n" {
		t.Errorf("members(): %s", out)
	}

	t.Run("tar", func(t *testing.T) {
		if os.Getenv("CIS490_READERS") == "" { // set by make readers
			for i, name := range slices.Sorted(maps.Keys(damaged)) {
				if i%16 != 0 {
					delete(damaged, name)
				}
			}
		}
		for _, line := range []string{readSnippets(t)[tarAll].code, "bsdtar -xf episodes/lab-01/run-7.tar.zst"} {
			program := strings.Fields(line[strings.LastIndex(strings.TrimSpace(line), "\n")+1:])[0]
			requireReader(t, program)
			for name := range damaged {
				into := t.TempDir()
				fixture.Must(t, os.MkdirAll(filepath.Join(into, "episodes/lab-01"), 0o755))
				fixture.Must(t, os.Link(filepath.Join(dir, name), filepath.Join(into, "episodes/lab-01/run-7.tar.zst")))
				cmd := exec.Command("sh", "-c", line)
				cmd.Dir = into
				if err := cmd.Run(); err == nil && (strings.HasPrefix(name, "cut-") || !sameTree(t, archive, into)) {
					t.Errorf("%s: taken for whole: %s", program, name)
				}
			}
		}
	})
}

// sameTree reports whether the directory dir has what the archive has.
func sameTree(t *testing.T, archive, dir string) bool {
	t.Helper()
	want := labtest.ReadTree(t, filepath.Join(labtest.Unpack(t, archive), "run-7"))
	return labtest.ReadTree(t, filepath.Join(dir, "run-7")).String() == want.String()
}

func TestReadersFindOneMemberAndCheckACopy(t *testing.T) {
	t.Parallel()
	dir, archive := readersArchive(t)
	var meta map[string]any
	out := runReader(t, requireReader(t, "sh", "-c", readSnippets(t)[tarOneMember].code), dir)
	if err := json.Unmarshal(out, &meta); err != nil {
		t.Errorf("it printed %q: %v", out, err)
	}
	check := func() ([]byte, error) {
		cmd := requireReader(t, "sh", "-c", readSnippets(t)[sumsOfCopy].code)
		cmd.Dir = dir
		return cmd.CombinedOutput()
	}
	if out, err := check(); err != nil || len(out) > 0 {
		t.Errorf("a good copy: %s, %v", out, err)
	}
	file, err := os.OpenFile(archive, os.O_WRONLY|os.O_APPEND, 0)
	fixture.Must(t, err)
	_, err = io.WriteString(file, "x")
	fixture.Must(t, err)
	fixture.Must(t, file.Close())
	if out, err := check(); err == nil || !strings.Contains(string(out), "run-7") {
		t.Errorf("a bad copy: %s, %v", out, err)
	}
}

// TestReadersOfTheREADMEAreRight: with a torn row, and with a truncated archive.
func TestReadersOfTheREADMEAreRight(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	fixture.Must(t, err)
	block := regexp.MustCompile("(?s)## Read the results\n```\n(.*?)\n```").FindSubmatch(readme)
	if block == nil {
		t.Fatal("README.md has no such block")
	}
	dir, archive := readersArchive(t)
	script := strings.NewReplacer("/var/lib/cis490", dir, "ep-1", "run-7", "/tmp", t.TempDir()).Replace(string(block[1]))
	rows, unpack, two := strings.Cut(script, "\n")
	if !two {
		t.Fatalf("not two lines: %q", script)
	}
	file, err := os.OpenFile(filepath.Join(dir, "index.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	fixture.Must(t, err)
	_, err = io.WriteString(file, `{"episode_id": "tor`)
	fixture.Must(t, errors.Join(err, file.Close()))
	if got := string(runReader(t, requireReader(t, "sh", "-c", rows), ".")); !strings.HasPrefix(got, "lab-01\trun-7\t") || strings.Count(got, "\n") != 1 {
		t.Errorf("it printed %q", got)
	}
	runReader(t, requireReader(t, "sh", "-c", unpack), ".")
	info, err := os.Stat(archive)
	fixture.Must(t, err)
	fixture.Must(t, os.Truncate(archive, info.Size()-2))
	if err := requireReader(t, "sh", "-c", unpack).Run(); err == nil {
		t.Error("a cut archive is unpacked without an error")
	}
}

// TestIndexSchemaTakesRowsAndNothingElse: with a widely used validator.
func TestIndexSchemaTakesRowsAndNothingElse(t *testing.T) {
	page, err := os.ReadFile("../../docs/index.md")
	fixture.Must(t, err)
	example := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindSubmatch(page)[1]
	good := `{"episode_id": "run-7", "host_id": "lab-01", "received_at_wall": "2026-11-23T07:59:13.000001+00:00", "schema_version": 1, "sha256": "` + strings.Repeat("a", 64) + `", "size_bytes": 1}`
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	rows := map[string]map[string]string{
		"good": {
			"the page's": string(example), "ours": good, "the original's": with(".000001", ""),
			"backfilled":  with(`{`, `{"backfilled": true, "skipped": 3, `),
			"repaired":    with(`{`, `{"repaired": true, "commit": "`+strings.Repeat("0", 40)+`", `),
			"a newer key": with(`{`, `{"colour": "red", `),
		},
		"bad": {
			"a newline after the name": with("run-7", `run-7\n`), "a newline after the host": with("lab-01", `lab-01\n`),
			"a newline after the sum": with(`a", "size`, `a\n", "size`), "a newline after the time": with("+00:00", `+00:00\n`),
			"Arabic digits in the time": with("2026", "٢٠٢٦"), "month 99": with("2026-11", "2026-99"), "hour 24": with("T07", "T24"),
			"another zone": with("+00:00", "+01:00"), "milliseconds": with(".000001", ".001"), "no zone": with("+00:00", ""),
			"a path": with("run-7", "../run-7"), "no sum": with(`"sha256"`, `"sha255"`), "size as text": with(`: 1}`, `: "1"}`),
			"repaired is false": with(`{`, `{"repaired": false, `), "a short commit": with(`{`, `{"commit": "0", `),
		},
	}
	in, err := json.Marshal(rows)
	fixture.Must(t, err)
	cmd := requirePython(t, `
import json, jsonschema, sys
schema = json.load(open("../../docs/index.schema.json"))
jsonschema.Draft202012Validator.check_schema(schema)
for kind, rows in json.load(sys.stdin).items():
    for name, row in rows.items():
        if jsonschema.Draft202012Validator(schema).is_valid(json.loads(row)) != (kind == "good"):
            print(kind, name)
`, "jsonschema")
	cmd.Stdin = bytes.NewReader(in)
	if out := runReader(t, cmd, "."); len(out) > 0 {
		t.Errorf("wrongly judged:\n%s", out)
	}
}

// TestTruncatedIndexIsSaidAndBackfilled: logrotate with copytruncate truncates it while the
// receiver runs.
func TestTruncatedIndexIsSaidAndBackfilled(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	send := func(name string) {
		t.Helper()
		if status, told := putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/"+name, []byte("archive of "+name)); status != 201 {
			t.Fatalf("%s: got %d %s, want status 201", name, status, told)
		}
	}
	send("run-1")
	fixture.Must(t, os.Truncate(l.Path("data/index.jsonl"), 0))
	send("run-2")
	mustContain(t, "the log", l.Process().WaitLine(t, "index was truncated"), "ERROR", "receiver index backfill")
	if got := len(l.Rows(t)); got != 1 {
		t.Errorf("there are %d rows, want that of run-2", got)
	}
}
