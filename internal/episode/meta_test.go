package episode_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf16"

	"cis490/internal/fixture"

	"cis490/internal/episode"
)

// inUTF16 and inUTF32 encode ASCII.
func inUTF16(s string, order binary.AppendByteOrder) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

func inUTF32(s string, order binary.AppendByteOrder) string {
	var b []byte
	for _, r := range s {
		b = order.AppendUint32(b, uint32(r))
	}
	return string(b)
}

// pythonMetas are files in which Python's json.loads finds a commit, or none.
var pythonMetas = map[string]struct {
	file string
	bad  bool
}{
	"NaN":               {file: `{"score": NaN, "code_version": {"commit": "` + someCommit + `"}}`},
	"Infinity":          {file: `{"code_version": {"commit": "` + someCommit + `"}, "a": [Infinity, -Infinity,NaN]}`},
	"in the same":       {file: `{"code_version": {"loss": NaN, "commit": "` + someCommit + `"}}`},
	"in a string":       {file: `{"note": "NaN \" Infinity", "x": NaN, "code_version": {"commit": "` + someCommit + `"}}`},
	"byte order mark":   {file: "\ufeff" + `{"code_version": {"commit": "` + someCommit + `"}}`},
	"UTF-16, marked":    {file: "\xff\xfe" + inUTF16(`{"code_version": {"commit": "`+someCommit+`"}}`, binary.LittleEndian)},
	"UTF-16, big":       {file: "\xfe\xff" + inUTF16(`{"code_version": {"commit": "`+someCommit+`"}}`, binary.BigEndian)},
	"UTF-16, no mark":   {file: inUTF16(`{"code_version": {"commit": "`+someCommit+`"}}`, binary.LittleEndian)},
	"UTF-16, big, none": {file: inUTF16(`{"code_version": {"commit": "`+someCommit+`"}}`, binary.BigEndian)},
	"UTF-32, marked":    {file: "\xff\xfe\x00\x00" + inUTF32(`{"code_version": {"commit": "`+someCommit+`"}}`, binary.LittleEndian)},
	"UTF-32, big":       {file: inUTF32(`{"code_version": {"commit": "`+someCommit+`"}}`, binary.BigEndian)},
	"minus NaN":         {file: `{"x": -NaN, "code_version": {"commit": "` + someCommit + `"}}`, bad: true},
	"a number and NaN":  {file: `{"x": 1NaN, "code_version": {"commit": "` + someCommit + `"}}`, bad: true},
	"nan":               {file: `{"x": nan, "code_version": {"commit": "` + someCommit + `"}}`, bad: true},
	"two marks":         {file: "\ufeff\ufeff" + `{"code_version": {"commit": "` + someCommit + `"}}`, bad: true},
	"a key that is NaN": {file: `{NaN: 1, "code_version": {"commit": "` + someCommit + `"}}`, bad: true},
	"an open string":    {file: `{"x": NaN, "y": "\`, bad: true},
}

func TestMetaIsReadAsPythonReadsIt(t *testing.T) {
	for name, c := range pythonMetas {
		m, err := episode.ReadMeta(strings.NewReader(c.file))
		_, isMeta := errors.AsType[*episode.MetaError](err)
		if c.bad != isMeta || !c.bad && (err != nil || m.Commit != strings.ToLower(someCommit)) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

// TestPythonAgreesAboutMeta asks Python itself.
func TestPythonAgreesAboutMeta(t *testing.T) {
	python := fixture.RequireTool(t, "python3")
	const program = `
import base64, json, sys
def commit(file):
    try:
        return str(json.loads(base64.b64decode(file))["code_version"]["commit"])
    except Exception:
        return None
json.dump({name: commit(file) for name, file in json.load(sys.stdin).items()}, sys.stdout)
`
	files := make(map[string][]byte)
	for name, c := range pythonMetas {
		files[name] = []byte(c.file)
	}
	in, err := json.Marshal(files)
	fixture.Must(t, err)
	cmd := exec.Command(python, "-c", program) // once for all: a start takes longer than the rest
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	fixture.Must(t, err)
	var commits map[string]*string
	fixture.Must(t, json.Unmarshal(out, &commits))
	for name, c := range pythonMetas {
		got := commits[name]
		if c.bad != (got == nil) || !c.bad && *got != someCommit {
			t.Errorf("%s: got %v from python, want an error: %v", name, got, c.bad)
		}
	}
}
