package index_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"cis490/internal/indextest"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

// sampleRows returns rows with every optional member, and with edge cases of the others.
func sampleRows() []index.Row {
	full := indextest.Row(7)
	full.Commit = strings.Repeat("0af9", 10)
	full.Backfilled, full.Repaired, full.Skipped = true, true, 12
	edges := indextest.Row(1)
	edges.Key.Host, edges.Key.Name = "A", episode.Name("z"+strings.Repeat("._-Z", 31)+"9.9")
	edges.Size = 1<<63 - 1
	edges.ReceivedAt = time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC)
	foreign := indextest.Row(2)
	foreign.ReceivedAt = time.Date(2026, 1, 2, 3, 4, 5, 999999999, time.FixedZone("", 5400))
	skipped := indextest.Row(3)
	skipped.Skipped = 1
	return []index.Row{indextest.Row(0), full, edges, foreign, skipped}
}

func TestRowIsWhatPythonWrites(t *testing.T) {
	python := fixture.RequireTool(t, "python3")
	ours := indextest.EncodeRows(sampleRows()...)
	c := exec.Command(python, "-c", `import json, sys
for line in sys.stdin: print(json.dumps(json.loads(line), sort_keys=True))`)
	c.Stdin = bytes.NewReader(ours)
	theirs, err := c.Output()
	fixture.Must(t, err)
	if !bytes.Equal(ours, theirs) {
		t.Errorf("ours:\n%s\nPython's:\n%s", ours, theirs)
	}
}

func TestRowHasTheOriginalsMembers(t *testing.T) {
	full := sampleRows()[1]
	const want = `{"backfilled": true, "commit": "0af90af90af90af90af90af90af90af90af90af9", "episode_id": "ep-0000007", "host_id": "lab-01", "received_at_wall": "2026-01-02T15:04:05.130456+00:00", "repaired": true, "schema_version": 1, "sha256": "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451", "size_bytes": 7, "skipped": 12}` + "\n"
	if got := string(full.Append(nil)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestRowTimeHasSixDigits(t *testing.T) {
	r := indextest.Row(0)
	r.ReceivedAt = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	if got := string(r.Append(nil)); !strings.Contains(got, `"2026-01-02T15:04:05.000000+00:00"`) {
		t.Error(got)
	}
}

func TestRowSurvivesWritingAndReading(t *testing.T) {
	for _, r := range sampleRows() {
		got, err := index.ParseRow(r.Append(nil))
		fixture.Must(t, err)
		r.ReceivedAt = r.ReceivedAt.UTC().Truncate(time.Microsecond)
		if got != r {
			t.Errorf("got  %+v\nwant %+v", got, r)
		}
	}
}

// rowWith returns a row in compact JSON with changes; a nil removes a member.
func rowWith(changes map[string]any) []byte {
	m := map[string]any{}
	json.Unmarshal(indextest.Row(5).Append(nil), &m)
	for k, v := range changes {
		m[k] = v
		if v == nil {
			delete(m, k)
		}
	}
	b, _ := json.Marshal(m)
	return b
}

func TestParseRowTakesOtherWritersRows(t *testing.T) {
	for name, line := range map[string][]byte{
		"compact":           rowWith(nil),
		"unknown member":    rowWith(map[string]any{"uncompressed_bytes": 5, "x": []int{1}}),
		"no schema version": rowWith(map[string]any{"schema_version": nil}),
		"spacing":           bytes.ReplaceAll(rowWith(nil), []byte(","), []byte("\t ,  ")),
		"escapes":           bytes.Replace(rowWith(nil), []byte("ep-"), []byte(`\u0065p-`), 1),
		"CRLF":              append(rowWith(nil), '\r', '\n'),
	} {
		r, err := index.ParseRow(line)
		if err != nil || r != indextest.Row(5) {
			t.Errorf("%s: %v, got %+v", name, err, r)
		}
	}
	full := rowWith(map[string]any{"received_at_wall": "2026-01-02T15:04:05+00:00"}) // Python's at a full second
	if r, err := index.ParseRow(full); err != nil || !r.ReceivedAt.Equal(indextest.Arrival.Truncate(time.Second)) {
		t.Errorf("full second: %v, %v", r.ReceivedAt, err)
	}
}

func TestParseRowRefuses(t *testing.T) {
	digits := strings.Repeat("0", 64)
	for name, line := range map[string][]byte{
		"nothing":           nil,
		"an array":          []byte("[]"),
		"null":              []byte("null"),
		"half a row":        indextest.Row(1).Append(nil)[:100],
		"two rows":          append(bytes.TrimSpace(indextest.Row(1).Append(nil)), indextest.Row(2).Append(nil)...),
		"a NUL":             append(rowWith(nil), 0),
		"no host":           rowWith(map[string]any{"host_id": nil}),
		"a null host":       []byte(`{"host_id": null}`),
		"another case":      bytes.Replace(rowWith(nil), []byte("host_id"), []byte("HOST_ID"), 1),
		"a bad host":        rowWith(map[string]any{"host_id": ".."}),
		"a bad episode":     rowWith(map[string]any{"episode_id": "a/b"}),
		"no digest":         rowWith(map[string]any{"sha256": nil}),
		"upper case digest": rowWith(map[string]any{"sha256": strings.Repeat("A", 64)}),
		"a zero digest":     rowWith(map[string]any{"sha256": digits}),
		"a bad time":        rowWith(map[string]any{"received_at_wall": "yesterday"}),
		"no time zone":      rowWith(map[string]any{"received_at_wall": "2026-01-02T15:04:05.000000"}),
		"a negative size":   rowWith(map[string]any{"size_bytes": -1}),
		"a broken size":     rowWith(map[string]any{"size_bytes": 1.5}),
		"a size as text":    rowWith(map[string]any{"size_bytes": "5"}),
		"a size with plus":  bytes.Replace(indextest.Row(5).Append(nil), []byte("_bytes\": "), []byte("_bytes\": +"), 1),
		"a size with zeros": bytes.Replace(indextest.Row(5).Append(nil), []byte("_bytes\": "), []byte("_bytes\": 00"), 1),
		"a later schema":    rowWith(map[string]any{"schema_version": 2}),
		"a bad commit":      rowWith(map[string]any{"commit": "evil"}),
		"a text as bool":    rowWith(map[string]any{"backfilled": "true"}),
		"negative skipped":  rowWith(map[string]any{"skipped": -1}),
	} {
		if r, err := index.ParseRow(line); err == nil {
			t.Errorf("%s: read %+v", name, r)
		}
	}
}

func TestRowErrorsArePrintable(t *testing.T) {
	for _, line := range []string{"\x1b[2J", `{"host_id": "\u001b\u202e"}`, `{"host_id":"a","episode_id":"b","received_at_wall":"\u009b"}`} {
		_, err := index.ParseRow([]byte(line))
		if err == nil {
			t.Fatalf("%q was read", line)
		}
		for _, r := range err.Error() {
			if r < ' ' || r > '~' {
				t.Errorf("%q gives %q", line, err)
			}
		}
	}
}

func TestRowsNameABadLineAndContinue(t *testing.T) {
	long := append(bytes.Repeat([]byte("x"), 16*(64<<10+1)), indextest.Row(9).Append(nil)...) // ends with a row after full buffers
	in := bytes.Join([][]byte{indextest.Row(0).Append(nil), []byte("bad\n"), indextest.Row(1).Append(nil), long, []byte("\n"), indextest.Row(2).Append(nil), []byte(`{"on its wa`)}, nil)
	var got []string
	for r, err := range index.ReadRows(iotest.HalfReader(bytes.NewReader(in))) {
		if bad, ok := errors.AsType[*index.LineError](err); ok {
			got = append(got, fmt.Sprint("bad ", bad.Line))
			continue
		}
		fixture.Must(t, err)
		got = append(got, string(r.Key.Name))
	}
	want := "ep-0000000 bad 2 ep-0000001 bad 4 bad 5 ep-0000002"
	if strings.Join(got, " ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

func TestRowsEndOnlyAtANewline(t *testing.T) {
	in := rowWith(map[string]any{"note": "VT\v NEL\u0085 LS\u2028 FS\u001c CR\r"})
	in = append(bytes.ReplaceAll(in, []byte(`\u2028`), []byte("\u2028")), '\n')
	n := 0
	for r, err := range index.ReadRows(bytes.NewReader(in)) {
		fixture.Must(t, err)
		n++
		if r != indextest.Row(5) {
			t.Errorf("got %+v", r)
		}
	}
	if n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func TestRowsEndWithTheReadersError(t *testing.T) {
	broken := errors.New("broken")
	var last error
	for _, err := range index.ReadRows(iotest.ErrReader(broken)) {
		last = err
	}
	if !errors.Is(last, broken) {
		t.Errorf("got %v, want %v", last, broken)
	}
}

func FuzzParseRow(f *testing.F) {
	for _, r := range sampleRows() {
		f.Add(r.Append(nil))
	}
	f.Add(rowWith(nil))
	f.Add([]byte(`{"host_id":null}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := index.ParseRow(line)
		if err != nil {
			return
		}
		again, err := index.ParseRow(r.Append(nil))
		r.ReceivedAt = r.ReceivedAt.Truncate(time.Microsecond)
		if err != nil || again != r {
			t.Errorf("%q: %v\ngot  %+v\nwant %+v", line, err, again, r)
		}
	})
}

func ExampleReadRows() {
	file := strings.NewReader(`{"episode_id": "ep-1", "host_id": "lab-01", "received_at_wall": "2026-01-02T15:04:05.000000+00:00", "schema_version": 1, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "size_bytes": 4096}
not a row
`)
	for row, err := range index.ReadRows(file) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(row.Key, row.Size)
	}
	// Output:
	// lab-01/ep-1 4096
	// line 2: is not a JSON object: "invalid character 'o' in literal null (expecting 'u')"
}
