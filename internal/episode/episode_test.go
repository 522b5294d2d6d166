package episode_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"cis490/internal/episode"
)

var names = []struct {
	name string
	good bool
}{
	{"a", true},
	{"7", true},
	{"run-7_x.Y", true},
	{"a..b", true},
	{strings.Repeat("x", episode.MaxName), true},
	{strings.Repeat("x", episode.MaxName+1), false},
	{"", false},
	{".", false},
	{"..", false},
	{".hidden", false},
	{"-flag", false},
	{"_x", false},
	{"a/b", false},
	{"../b", false},
	{"a\\b", false},
	{"a\x00", false},
	{"a\n", false},
	{"a b", false},
	{"a~b", false},
	{"a%2fb", false},
	{"\u00e4", false},
	{"a\u202e", false},
	{"\xff", false},
}

func TestNameIsOneSafeSegment(t *testing.T) {
	for _, c := range names {
		got, err := episode.ParseName(c.name)
		if c.good != (err == nil) || c.good && string(got) != c.name || !c.good && got != "" {
			t.Errorf("ParseName(%q) = %q, %v", c.name, got, err)
		}
		var n episode.Name
		if err := n.UnmarshalText([]byte(c.name)); c.good != (err == nil) || string(n) != string(got) {
			t.Errorf("UnmarshalText(%q) = %q, %v", c.name, n, err)
		}
		if err != nil && !printable(err.Error()) {
			t.Errorf("the message is not printable: %q", err)
		}
	}
}

func TestMessageOfALongNameIsShort(t *testing.T) {
	_, err := episode.ParseName(strings.Repeat("\xff", 1<<20))
	if n := len(err.Error()); n > 1024 {
		t.Errorf("a message of %d bytes", n)
	}
}

func FuzzParseName(f *testing.F) {
	for _, c := range names {
		f.Add(c.name)
	}
	grammar := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	f.Fuzz(func(t *testing.T, s string) {
		n, err := episode.ParseName(s)
		if (err == nil) != grammar.MatchString(s) {
			t.Errorf("%q: got %v", s, err)
		}
		if err != nil {
			if !printable(err.Error()) {
				t.Errorf("not printable: %q", err)
			}
			return
		}
		if string(n) != s || len(s) == 0 || len(s) > episode.MaxName || strings.ContainsAny(s, "/\\~%\x00\n ") || s[0] == '.' || !printable(s) {
			t.Errorf("%q is a name", s)
		}
	})
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func TestKeyNamesHostFirst(t *testing.T) {
	if got := (episode.Key{Host: "h", Name: "n"}).String(); got != "h/n" {
		t.Errorf("got %q, want %q", got, "h/n")
	}
}

const someCommit = "0123456789abcdef0123456789ABCDEF01234567"

var metas = []struct{ text, commit string }{
	{`{"code_version": {"commit": "` + someCommit + `"}}`, strings.ToLower(someCommit)},
	{`{"other": [1], "code_version": {"dirty": true, "commit": "` + someCommit + `"}}`, strings.ToLower(someCommit)},
	{`{"code_version": {"commit": "abc"}}`, ""},
	{`{"code_version": {"commit": "` + someCommit + `\n"}}`, ""},
	{`{"code_version": {"commit": "` + strings.Replace(someCommit, "0", "g", 1) + `"}}`, ""},
	{`{"code_version": {"commit": 7}}`, ""},
	{`{"code_version": "` + someCommit + `"}`, ""},
	{`{"code_version": null}`, ""},
	{`{"commit": "` + someCommit + `"}`, ""},
	{`{}`, ""},
	{`null`, ""},
	// Names in JSON are exact: no reader in Python accepts these.
	{`{"Code_Version": {"commit": "` + someCommit + `"}}`, ""},
	{`{"code_version": {"COMMIT": "` + someCommit + `"}}`, ""},
}

func TestCommitIsTakenFromItsPlaceOnly(t *testing.T) {
	for _, c := range metas {
		got, err := episode.ReadMeta(strings.NewReader(c.text))
		if err != nil || got.Commit != c.commit {
			t.Errorf("%s\ngot  %q, %v\nwant %q", c.text, got.Commit, err, c.commit)
		}
	}
}

func TestBadMetaIsAnError(t *testing.T) {
	for what, text := range map[string]string{
		"empty": "", "cut": `{"code_version": {`, "list": `[]`, "text": "x", "two": `{} {}`,
		"large": `{}` + strings.Repeat(" ", episode.MaxMeta),
	} {
		if got, err := episode.ReadMeta(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// TestMetaIsReadInBounds, even from an endless file.
func TestMetaIsReadInBounds(t *testing.T) {
	r := &endless{}
	if _, err := episode.ReadMeta(r); err == nil || r.n > 2*episode.MaxMeta {
		t.Errorf("read %d bytes; %v", r.n, err)
	}
}

type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	e.n += len(p)
	return copy(p, strings.Repeat(" ", len(p))), nil
}

func FuzzReadMeta(f *testing.F) {
	for _, c := range metas {
		f.Add(c.text)
	}
	for _, c := range pythonMetas {
		f.Add(c.file)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := episode.ReadMeta(strings.NewReader(text))
		if err == nil && m.Commit != "" && (len(m.Commit) != 40 || strings.Trim(m.Commit, "0123456789abcdef") != "") {
			t.Errorf("commit %q", m.Commit)
		}
		python := strings.Contains(text, "NaN") || strings.Contains(text, "Infinity") ||
			strings.HasPrefix(text, "\xef\xbb\xbf") || strings.Contains(text, "\x00") || strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff")
		if err == nil && !json.Valid([]byte(text)) && !python {
			t.Errorf("took what is no JSON")
		}
	})
}

func TestWallIsPythonsIsoformat(t *testing.T) {
	zone := time.FixedZone("", 3600)
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{time.Date(2026, 11, 23, 7, 17, 41, 1000, time.UTC), "2026-11-23T07:17:41.000001+00:00"},
		{time.Date(2026, 11, 23, 8, 17, 41, 0, zone), "2026-11-23T07:17:41.000000+00:00"},
		{time.Date(2026, 11, 23, 7, 17, 41, 999_999_999, time.UTC), "2026-11-23T07:17:41.999999+00:00"},
	} {
		got := episode.FormatWall(c.at)
		if got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
		back, err := episode.ParseWall(got)
		if err != nil || !back.Equal(c.at.Truncate(time.Microsecond)) || back.Location() != time.UTC {
			t.Errorf("%s is read as %s; %v", got, back, err)
		}
	}
	// Python leaves out microseconds that are zero.
	if at, err := episode.ParseWall("2026-11-23T07:17:41+00:00"); err != nil || at.Nanosecond() != 0 {
		t.Errorf("got %s, %v, want Nanosecond 0", at, err)
	}
	for _, bad := range []string{"", "2026-11-23", "2026-11-23T07:17:41", "2026-13-23T07:17:41+00:00", "yesterday"} {
		if at, err := episode.ParseWall(bad); err == nil {
			t.Errorf("%q is read as %s", bad, at)
		}
	}
}

func FuzzParseWall(f *testing.F) {
	f.Add("2026-11-23T07:17:41.000001+00:00")
	f.Add("2026-11-23T07:17:41+01:00")
	f.Fuzz(func(t *testing.T, s string) {
		at, err := episode.ParseWall(s)
		if err != nil || at.Year() < 0 || at.Year() > 9999 {
			return
		}
		back, err := episode.ParseWall(episode.FormatWall(at))
		if err != nil || !back.Equal(at.Truncate(time.Microsecond)) {
			t.Errorf("%q: %s becomes %s; %v", s, at, back, err)
		}
	})
}
