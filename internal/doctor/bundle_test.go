package doctor_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/doctor"
	"cis490/internal/fixture"
)

// readBundle returns the members of a bundle.
func readBundle(t *testing.T, path string) map[string]string {
	t.Helper()
	gz, err := gzip.NewReader(strings.NewReader(fixture.ReadFile(t, path)))
	fixture.Must(t, err)
	members := map[string]string{}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		fixture.Must(t, err)
		text, err := io.ReadAll(r)
		fixture.Must(t, err)
		members[h.Name] = string(text)
	}
}

const pem = "-----BEGIN PRIVATE KEY-----\nMARKER\n-----END PRIVATE KEY-----\n"

// TestRedactRemovesSecretsAndKeepsPaths: no text of the first column may keep its MARKER.
func TestRedactRemovesSecretsAndKeepsPaths(t *testing.T) {
	for _, text := range []string{
		pem, "a " + pem + " b", "key = '''\n" + pem + "'''", strings.TrimSuffix(pem, "-----END PRIVATE KEY-----\n"),
		"MARKER\n-----END PRIVATE KEY-----\n", // the beginning was cut off
		`url = "https://user:MARKER@host/path"`, `url = "https://MARKER@host/path"`, `https://u:MARK@MARKER@host/`,
		`url = "https://host/path?x=MARKER"`, `see https://host/#MARKER.`, `url = "https://host/path?x=1&token=MARKER"`,
		`token = "MARKER"`, `token = 'MARKER'`, `my_secret="MARKER two"`, `"auth.password" = "MARKER"`, "password: MARKER",
		`tokens = ["a", "MARKER"]`, `tokens = ["a]b", "MARKER"]`, "tokens = [\n  \"a\",\n  \"MARKER\",\n]", "secret = \"\"\"\nx\nMARKER\n\"\"\"",
		`hook = { url = "x", token = "MARKER" }`, `tokens = { lab = "MARKER" }`, "[hook.secrets]\nlab = \"MARKER\"\n", "[[passwords]]\nMARKER = 1\n[other]\n",
		`time=1 level=INFO msg="got token=MARKER" err="x"`, `err: bad: token: MARKER`, `fact: token=MARKER`, `{"token":"MARKER"}`, `{"a":{"api_key": "MARKER"}}`,
		"Authorization: Bearer MARKERMARKER", "sent bearer MARKERMARKER to x", "shipper join cis490_join_MARKER", `a="b=\"token=MARKER\""`,
		`token = "MARKER`, `a = { token = "MARKER`, `token = ["a", "MARKER`, // cut off
		strings.Repeat("a={", 50) + `token="MARKER"` + strings.Repeat("}", 50),
	} {
		if got := doctor.Redact(text); strings.Contains(got, "MARKER") || !strings.Contains(got, "[redacted]") {
			t.Errorf("%q: got %q", text, got)
		}
	}
	for _, text := range []string{
		"", "host_id = \"lab-01\"\nmin_free = \"256MiB\"\n", `token_file = "/etc/cis490/token"`, `tokens_file = "/etc/cis490/tokens"`, `key_file = "host/lab-01.key"`,
		`[receiver]` + "\n" + `url = "https://receiver.lab:8443"`, `addr=[::1]:8443 took=1s err="open /x: permission denied"`,
		`2026-11-30T12:00:00+0000 lab shipper[12]: time=2026-11-30T12:00:00.000Z level=INFO msg="shipper started" version=1.2 host=lab-01`,
		"21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro",
	} {
		if got := doctor.Redact(text); got != text {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

func FuzzRedact(f *testing.F) {
	for _, seed := range []string{pem, `token = "x"`, "[secrets]\na = 1", `a={b="token=1"}`, "https://u:p@h?q"} {
		f.Add(seed, "key")
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		doctor.Redact(before + after)
		// A line of its own is redacted whatever precedes it, unless that leaves a string open.
		if strings.ContainsAny(before, "\"'[{=:-") {
			return
		}
		if got := doctor.Redact(before + "\npassword = \"MARKER-of-a-test\"\n" + after); strings.Contains(got, "MARKER-of-a-test") {
			t.Errorf("got %q", got)
		}
	})
}

// TestBundleHasNoSecretsAndIsBounded, in text and in JSON, whose numbers stay.
func TestBundleHasNoSecretsAndIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	b, err := doctor.CreateBundle(path, "lab")
	fixture.Must(t, err)
	config := filepath.Join(t.TempDir(), "c.toml")
	fixture.WriteFile(t, config, "token = \"MARKER\"\nhost_id = \"lab-01\"\n")
	b.AddConfig(config)
	b.Add("long.txt", bytes.Repeat([]byte("0123456789"), 1<<18))
	b.AddJSON("status.json", map[string]any{
		"url": "https://u:MARKER@h", "list": []string{pem}, "token": "MARKER", "n": int64(1<<62) + 1, "tokens": map[string]string{"password": "MARKER"}, "secret": nil,
	})
	b.AddError("unit.txt", errors.New("token=MARKER"))
	b.AddMachine()
	fixture.Must(t, b.Close())
	fixture.Must(t, b.Discard()) // after Close it does nothing
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	members := readBundle(t, path)
	for name, text := range members {
		if strings.Contains(text, "MARKER") {
			t.Errorf("%s has a secret: %q", name, text)
		}
		if !strings.HasPrefix(name, "lab/") || len(text) > 1<<20+100 {
			t.Errorf("%s has %d bytes", name, len(text))
		}
	}
	for name, text := range map[string]string{
		"lab/config.toml": `host_id = "lab-01"`, "lab/long.txt": "cut off", "lab/status.json": "4611686018427387905",
		"lab/uname.txt": "Linux ", "lab/mountinfo.txt": " / ", "lab/interfaces.txt": "lo mtu ", "lab/unit.txt": "token=",
	} {
		if !strings.Contains(members[name], text) {
			t.Errorf("%s: got %.200q, want %q", name, members[name], text)
		}
	}
}

// TestBundleNeverOverwrites, and leaves nothing if it is not completed.
func TestBundleNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	taken, link, path := filepath.Join(dir, "taken"), filepath.Join(dir, "link"), filepath.Join(dir, "new")
	fixture.WriteFile(t, taken, "mine")
	fixture.Must(t, os.Symlink(path, link))
	for _, p := range []string{taken, link} {
		if _, err := doctor.CreateBundle(p, "x"); err == nil || !strings.Contains(err.Error(), "is not overwritten") {
			t.Errorf("%s: %v", p, err)
		}
	}
	if got := fixture.ReadFile(t, taken); got != "mine" {
		t.Errorf("got %q", got)
	}
	b, err := doctor.CreateBundle(path, "x")
	fixture.Must(t, err)
	b.Add("a", []byte("b"))
	fixture.Must(t, b.Discard())
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

// TestEmptyFileOfTheUserIsReused, which a bundle leaves that could not be removed; no other.
func TestEmptyFileOfTheUserIsReused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b")
	for _, c := range []struct {
		text string
		mode fs.FileMode
		ok   bool
	}{{"", 0o600, true}, {"x", 0o600, false}, {"", 0o644, false}} {
		fixture.Must(t, os.WriteFile(path, []byte(c.text), 0o600))
		fixture.Must(t, os.Chmod(path, c.mode))
		b, err := doctor.CreateBundle(path, "x")
		if c.ok != (err == nil) {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			fixture.Must(t, b.Close())
		}
		fixture.Must(t, os.Remove(path))
	}
}

// TestBundleIsPrintable: what others write, such as the names of mounts, must not reach a terminal.
func TestBundleIsPrintable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	b, err := doctor.CreateBundle(path, "x")
	fixture.Must(t, err)
	b.Add("text", []byte("a\tb\x1b[2J\r\n\u009bend"))
	value := map[string]string{"k": "\x1b \x7f \u009b \U0001f600 \u00f6"}
	b.AddJSON("json", value)
	fixture.Must(t, b.Close())
	members := readBundle(t, path)
	for name, text := range members {
		if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && r != '\t' && (r < ' ' || r > '~') }) {
			t.Errorf("%s: got %q", name, text)
		}
	}
	if want := "a\tb\\x1b[2J\\r\n\\u009bend"; members["x/text"] != want {
		t.Errorf("got %q, want %q", members["x/text"], want)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(members["x/json"]), &got); err != nil || got["k"] != value["k"] {
		t.Errorf("got %q, %v", members["x/json"], err)
	}
}

// TestBundleThatCannotBeWrittenIsRemoved: a full disk must not leave half of one.
func TestBundleThatCannotBeWrittenIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	b, err := doctor.CreateBundle(path, "x")
	fixture.Must(t, err)
	b.Add(strings.Repeat("\x00", 10), []byte("x")) // tar refuses the name
	if err := b.Close(); err == nil {
		t.Error("no error")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}
