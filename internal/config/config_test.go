package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/config"
	"cis490/internal/fixture"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

type name string

func (n *name) UnmarshalText(text []byte) error { *n = name(text); return nil }

type remote struct {
	URL  string      `toml:"url"`
	CA   config.Path `toml:"ca_file"`
	None config.Path `toml:"none"`
}

type shared struct {
	Floor config.Bytes `toml:"min_free"`
}

type settings struct {
	shared
	Host     name            `toml:"host_id"`
	Scan     config.Duration `toml:"scan_interval"`
	Workers  int             `toml:"workers"`
	ID       int             `toml:"id"`
	Level    uint            `toml:"level"`
	Sync     bool            `toml:"sync"`
	Receiver remote          `toml:"receiver"`
	Peers    []remote        `toml:"peers"`
	Extra    []config.Path   `toml:"extra"`
	Internal string          `toml:"-"`
}

func write(t testing.TB, doc string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.toml")
	fixture.Must(t, os.WriteFile(path, []byte(doc), 0o600))
	return path
}

func TestFileGoesOverDefaults(t *testing.T) {
	path := write(t, "\ufeff"+`
host_id = "lab-01"
scan_interval = "1m30s"
min_free = 1024
extra = ["a", "/b"]
receiver = { url = "https://r", ca_file = "pki/ca.crt" }
[[peers]]
ca_file = "../ca.crt"
`)
	got := settings{Workers: 3, Sync: true, Scan: 1, Receiver: remote{URL: "old"}}
	fixture.Must(t, config.Load(path, &got))
	dir := filepath.Dir(path)
	in := func(p string) config.Path { return config.Path(filepath.Join(dir, p)) }
	want := settings{
		shared: shared{Floor: 1024}, Host: "lab-01", Scan: config.Duration(90 * time.Second), Workers: 3, Sync: true,
		Receiver: remote{URL: "https://r", CA: in("pki/ca.crt")},
		Peers:    []remote{{CA: in("../ca.crt")}},
		Extra:    []config.Path{in("a"), "/b"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRelativePathsStartAtTheFile(t *testing.T) {
	path := write(t, "")
	dir := filepath.Dir(path)
	t.Chdir(filepath.Dir(dir)) // so that the file's own path can be relative
	got := settings{Receiver: remote{CA: "default.crt"}}
	fixture.Must(t, config.Load(filepath.Join(filepath.Base(dir), "x.toml"), &got))
	if want := config.Path(filepath.Join(dir, "default.crt")); got.Receiver.CA != want {
		t.Errorf("ca_file = %q, want %q", got.Receiver.CA, want)
	}
	if got.Receiver.None != "" {
		t.Errorf("the empty path became %q", got.Receiver.None)
	}
}

func TestBadFilesAreRefusedByLine(t *testing.T) {
	const big = `"""` + "\n[receiver]\nulr = 1\n" + `"""`
	for _, c := range []struct{ doc, want string }{
		// Unknown keys.
		{"\nreciever.url = 1", `:2: unknown key "reciever.url"; did you mean "receiver.url"?`},
		{"[reciever]\n\nurl = 1\n", `:3: unknown key "reciever.url"; did you mean "receiver.url"?`},
		{"\ufeff\na=1", `:2: unknown key "a"`},
		{"# x\n[reciever]\n", `:2: unknown key "reciever"; did you mean "receiver"?`},
		{"[receiver]\nulr = 1", `:2: unknown key "receiver.ulr"; did you mean "receiver.url"?`},
		{"receiver = { url = '',\n ulr = 1 }", `:2: unknown key "receiver.ulr"; did you mean "receiver.url"?`},
		{"[ receiver ] # ulr = 1\n url = ''\n \"ulr\" = ''", `:3: unknown key "receiver.ulr"; did you mean "receiver.url"?`},
		{"receiver.url = " + big + "\nreceiver.ulr = 1", `:5: unknown key "receiver.ulr"; did you mean "receiver.url"?`},
		{"# wrokers = 1\nhost_id = 'wrokers = 1'\nextra = [ # wrokers = 1\n 'wrokers = 1']\nwrokers = 1", `:5: unknown key "wrokers"; did you mean "workers"?`},
		{"wrokers = " + big, `:1: unknown key "wrokers"; did you mean "workers"?`},
		{"wrokers = [\n1,\n2]", `:1: unknown key "wrokers"; did you mean "workers"?`},
		{"[[peers]]\nurl = ''\n[[peers]]\nuurl = ''", `:4: unknown key "peers.uurl"; did you mean "peers.url"?`},
		{"Host_ID = 'a'", `:1: unknown key "Host_ID"; did you mean "host_id"?`},
		{"Internal = 'a'", `:1: unknown key "Internal"`},
		{"xx = 1", `:1: unknown key "xx"`},
		{"nothing_like_it = 1", `:1: unknown key "nothing_like_it"`},
		{"\"\u202ehost_id \u00e9\\n\" = 1", `:1: unknown key ""\u202ehost_id \u00e9\n""`},
		{
			"a = 1\n[receiver]\nb = 1\n[c.d]\ne = { f = 1 }\n[workers]\ng = 1",
			`:1: unknown key "a"|:3: unknown key "receiver.b"|:5: unknown key "c.d.e.f"|:6: workers: requires an integer, found a table`,
		},
		// Values of another type.
		{"workers = 'x'", `:1: workers: requires an integer, found a string`},
		{"workers.a.b = 1", `:1: workers: requires an integer, found a table`},
		{"level = -1", `:1: level: must not be negative`},
		{"sync = 1", `:1: sync: requires true or false, found an integer`},
		{"host_id = true", `:1: host_id: requires a string, found a bool`},
		{"\nreceiver = 'https://r'", `:2: receiver: requires a table, found a string`},
		{"[[receiver]]\nurl = ''", `:1: receiver: requires a table, found an array of tables`},
		{"extra = [1]", `:1: extra: requires an array, each element a string, found an array`},
		{"[receiver]\nca_file = 1", `:2: receiver.ca_file: requires a string, found an integer`},
		{"scan_interval = ['30s']", `:1: scan_interval: requires a duration such as "30s", found an array`},
		{"scan_interval = 30", `:1: scan_interval: "30" has no unit: write "30s" for thirty seconds`},
		{"scan_interval = '1.5'", `:1: scan_interval: "1.5" has no unit: write "30s" for thirty seconds`},
		{"scan_interval = '-1s'", `:1: scan_interval: "-1s" is negative: a duration is 0 or more`},
		{"scan_interval = 'soon'", `:1: scan_interval: "soon" is not a valid duration: write a number with a unit, such as "30s", "1h30m" or "7d"`},
		{"min_free = true", `:1: min_free: requires a size such as "1MiB", found a bool`},
		{"min_free = -1", `:1: min_free: "-1" is negative: a size is 0 or more`},
		{"\n\nmin_free = '1.5'", `:3: min_free: "1.5" has no unit: write "1.5MiB"`},
		{"min_free = '1,5GiB'", `:1: min_free: "1,5GiB" has a comma: write a fraction with a dot`},
		{"min_free = '8EiB'", `:1: min_free: "8EiB" is too large: the largest size is 8.0 EiB`},
		{"min_free = '99EiB'", `:1: min_free: "99EiB" is too large: the largest size is 8.0 EiB`},
		{"min_free = '1 lot\u00e9'", `:1: min_free: "1 lot\u00e9" is not a valid size: write a number with a unit, such as "1MiB" or "500MB"`},
		// No TOML.
		{"host_id = 'a'\nhost_id = 'b'", `:2: Key 'host_id' has already been defined.`},
		{"\nhost_id = lab", `:2: expected value but found "lab" instead`},
		{"# " + strings.Repeat("x", config.MaxFile), `: larger than 1.0 MiB: not a configuration file`},
	} {
		path := write(t, c.doc)
		want := path + strings.ReplaceAll(c.want, "|", "\n"+path)
		err := config.Load(path, &settings{})
		if err == nil || err.Error() != want {
			t.Errorf("%.200q\n got %v\nwant %s", c.doc, err, want)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	err := config.Load(write(t, lines(5000)), &settings{})
	if err == nil {
		t.Fatal("a file of unknown keys was read")
	}
	told := strings.Split(err.Error(), "\n")
	if len(told) != 21 || !strings.HasSuffix(told[20], "and more of the kind") {
		t.Errorf("%d lines, the last %q", len(told), told[len(told)-1])
	}
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "key_%d = 1\n", i)
	}
	return b.String()
}

func TestMissingFileSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.toml")
	err := config.Load(path, &settings{})
	want := "open " + path + ": no such file or directory: copy the example there, or name another file with --config"
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestInvalidNamesTheKey(t *testing.T) {
	err := config.InvalidValue("receiver.url", "wants https, found %w", fs.ErrInvalid)
	if got := err.Error(); got != "receiver.url: wants https, found invalid argument" || !errors.Is(err, fs.ErrInvalid) {
		t.Error(got)
	}
}

func TestBytesAreReadAsWritten(t *testing.T) {
	for s, want := range map[string]config.Bytes{
		"0": 0, "1024": 1024, "1MiB": 1 << 20, "256KiB": 256 << 10, "1GB": 1e9, "1.5GiB": 3 << 29,
		"7EiB": 7 << 60, "9223372036854775807": 1<<63 - 1, " 2 MiB ": 2 << 20,
	} {
		var got config.Bytes
		if err := got.UnmarshalText([]byte(s)); err != nil || got != want {
			t.Errorf("%q = %d, %v; want %d", s, got, err, want)
		}
	}
	for b, want := range map[config.Bytes]string{1 << 20: "1.0 MiB", 1536: "1.5 KiB", 5: "5 B", -5: "-5 B"} {
		if got := b.String(); got != want {
			t.Errorf("String of %d = %q, want %q", int64(b), got, want)
		}
	}
}

func TestTextFormsRoundTrip(t *testing.T) {
	for _, b := range []config.Bytes{0, 1, 1000, 1024, 1536, 1<<20 + 1, 5 << 30, 7 << 60, 1<<63 - 1} {
		text, err := b.MarshalText()
		var back config.Bytes
		if err := errors.Join(err, back.UnmarshalText(text)); err != nil || back != b {
			t.Errorf("%d -> %s -> %d, %v", int64(b), text, int64(back), err)
		}
	}
	for _, d := range []config.Duration{0, 1, config.Duration(90 * time.Minute), config.Duration(24 * time.Hour), config.Duration(24*time.Hour + 1), 1<<63 - 1} {
		text, err := d.MarshalText()
		var back config.Duration
		if err := errors.Join(err, back.UnmarshalText(text)); err != nil || back.Std() != d.Std() {
			t.Errorf("%d -> %s -> %d, %v", d.Std(), text, back.Std(), err)
		}
	}
}

func TestDurationsAreShownInDays(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", time.Hour: "1h", 70 * time.Minute: "1h10m", time.Hour + time.Second: "1h0m1s",
		24 * time.Hour: "1d", 36 * time.Hour: "1d12h", 720 * time.Hour: "30d", 24*time.Hour + time.Second: "1d1s", 1500 * time.Millisecond: "1.5s", -time.Hour: "-1h0m0s",
	} {
		if got := config.Duration(d).String(); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
	}
}

func TestDurationsMayHaveDays(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0, "1d1ns": 24*time.Hour + 1, "36h": 36 * time.Hour,
		"2w": 14 * 24 * time.Hour, "1w2d3h": 9*24*time.Hour + 3*time.Hour, "1w30m": 7*24*time.Hour + 30*time.Minute, "15250w": 15250 * 7 * 24 * time.Hour,
		"w": -1, "-1w": -1, "1d1w": -1, "1w1w": -1, "15251w": -1, "65535w": -1, "15250w99999d": -1, "15250w106751d2562047h": -1, "1w-1d": -1, "1.5w": -1,
		"d": -1, "-1d": -1, "--1s": -1, "--1d": -1, "1.5d": -1, "1d-1h": -1, "1h1d": -1, "1d1d": -1, "99999999d": -1, "65535d2000000h": -1, "1days": -1,
	} {
		var got config.Duration
		if err := got.UnmarshalText([]byte(text)); (err == nil) != (want >= 0) || err == nil && got.Std() != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

// FuzzLoad compares Load with the decoder: what Load accepts, the decoder accepts without an
// unknown key.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"", "host_id = 'a'\nscan_interval = '1s'\nmin_free = '1GB'", "[receiver]\nurl = ''", "[[peers]]\nurl=''\n[[peers]]\nx=1",
		"receiver = {url = 'a', none = \"\"\"\nx\"\"\"}", "a.b.'c d' = [1, {x = 2}]", "workers.x = -1\nlevel = -1", "extra = ['a', '']",
		"min_free = '1,000'", "scan_interval = 1.5", "x = 1979-05-27", "\ufeff[a]\n[b]\n[a.c]",
	} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "x.toml")
	f.Fuzz(func(t *testing.T, doc string) {
		fixture.Must(t, os.WriteFile(path, []byte(doc), 0o600))
		var got, plain settings
		err := config.Load(path, &got)
		if got.Scan < 0 || got.Floor < 0 {
			t.Errorf("negative: %d %d", got.Scan, got.Floor)
		}
		if err != nil {
			if s := strings.ReplaceAll(err.Error(), path, ""); strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
				t.Errorf("not printable ASCII: %q", s)
			}
			return
		}
		md, err := toml.Decode(doc, &plain)
		if err != nil || len(md.Undecoded()) > 0 {
			t.Errorf("accepted in spite of %v %v", err, md.Undecoded())
		}
	})
}
