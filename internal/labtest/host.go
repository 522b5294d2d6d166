package labtest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cis490/internal/credentials"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/gate"
)

// Host is a lab host: its configuration, its certificate and its episodes.
type Host struct {
	Name string
	Dir  string // holds lab-host.toml, pki and data

	lab      *Lab
	t        testing.TB
	settings settings
	via      []string
	made     map[string][]*madeEpisode // by the name of the episode
	killed   bool                      // since a pass ended well: the outbox may hold what is delivered
}

// madeEpisode is an episode that was made on a host.
type madeEpisode struct {
	tree   Tree // as it must be on the host
	packed Tree // as it must be in the archive
}

// Tally is the last line of shipper --once --json.
type Tally struct {
	Scanned        int `json:"scanned"`
	Shipped        int `json:"shipped"`
	AlreadyPresent int `json:"already_present"`
	Transient      int `json:"transient"`
	Conflicts      int `json:"conflicts"`
	Held           int `json:"held"`
}

// Host adds a host: its certificate and its configuration.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	h := &Host{Name: name, Dir: l.Path(name), lab: l, t: l.t, made: make(map[string][]*madeEpisode)}
	h.settings = settings{
		"host_id":            fmt.Sprintf("%q", name),
		"episodes_dir":       `"data/episodes"`,
		"outbox_dir":         `"data/outbox"`,
		"shipped_dir":        `"data/shipped"`,
		"scan_interval":      `"1h"`,
		"settle":             `"0s"`, // episodes are finished when they are made; see settle_test.go
		"min_free":           `"1MiB"`,
		"report_interval":    `"0s"`, // labs count connections; see report_test.go
		"admin.listen":       `""`,   // the default is one port for all labs; see metrics_test.go
		"receiver.url":       fmt.Sprintf("%q", "https://"+l.Proxy.Addr()),
		"receiver.ca_file":   `"pki/ca.crt"`,
		"receiver.cert_file": fmt.Sprintf("%q", "pki/"+name+".crt"),
		"receiver.key_file":  fmt.Sprintf("%q", "pki/"+name+".key"),
	}
	l.Receiver("pki", "issue", name, "--dir", l.Path("pki"), "--out", h.Path("pki")).MustExit(l.t, 0)
	fixture.Must(l.t, os.MkdirAll(h.Path("data", "episodes"), 0o755))
	h.writeConfig()
	l.hosts = append(l.hosts, h)
	return h
}

// Newcomer is a host without certificate and configuration, which joins.
func (l *Lab) Newcomer(name string) *Host {
	l.t.Helper()
	h := &Host{Name: name, Dir: l.Path(name), lab: l, t: l.t, made: make(map[string][]*madeEpisode)}
	if err := os.MkdirAll(h.Path("data", "episodes"), 0o755); err != nil {
		l.t.Fatal(err)
	}
	l.hosts = append(l.hosts, h)
	return h
}

// Invite returns a token with which a host can join by way of the proxy. The lab's receiver must
// have been set up: see [Lab.SetUp].
func (l *Lab) Invite(host string, args ...string) string {
	l.t.Helper()
	args = append([]string{"--config", l.Path("receiver.toml"), "invite", host, "--url", "https://" + l.Proxy.Addr()}, args...)
	words := strings.Fields(l.Receiver(args...).MustExit(l.t, 0).Stdout)
	return words[len(words)-1]
}

// AgeCertificate replaces the certificate of a host that has joined by one that is that old.
func (h *Host) AgeCertificate(age time.Duration) {
	h.t.Helper()
	issuer, err := gate.OpenIssuer(h.lab.Path("identity"))
	fixture.Must(h.t, err)
	pending, err := credentials.OpenPending(h.Path("identity"), "aged")
	fixture.Must(h.t, err)
	request, err := gate.ParseRequest(pending.Request)
	fixture.Must(h.t, err)
	issued, err := issuer.SignHost(request, episode.Name(h.Name), time.Now().Add(-age))
	fixture.Must(h.t, err)
	chain, err := issuer.Chain(issued.Serial)
	fixture.Must(h.t, err)
	block, _ := pem.Decode([]byte(fixture.ReadFile(h.t, h.Path("identity", "host-ca.crt"))))
	root, err := x509.ParseCertificate(block.Bytes)
	fixture.Must(h.t, err)
	_, err = pending.Install(episode.Name(h.Name), chain, root)
	fixture.Must(h.t, err)
}

// AgeRenewal lets a pass ask for the next certificate again, as it would an hour after it asked in
// vain.
func (h *Host) AgeRenewal() {
	h.t.Helper()
	ago := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(h.Path("identity", "host-renewal.pem"), ago, ago); !errors.Is(err, fs.ErrNotExist) {
		fixture.Must(h.t, err)
	}
}

// AgeCAs lets a pass ask again which CAs the receiver has, as it would after an hour of the same day.
func (h *Host) AgeCAs() {
	h.t.Helper()
	now := time.Now().UTC()
	asked := now.Add(-2 * time.Hour)
	if asked.Day() != now.Day() {
		asked = now.Add(2 * time.Hour) // the clock may have been ahead then
	}
	h.SetCAsAsked(asked)
}

// SetCAsAsked sets when the host last asked which CAs the receiver has.
func (h *Host) SetCAsAsked(at time.Time) {
	h.t.Helper()
	fixture.Must(h.t, os.Chtimes(h.Path("identity", "host-ca.crt"), at, at))
}

// SetUp lets hosts join. The receiver must be started after it.
func (l *Lab) SetUp() {
	l.t.Helper()
	l.Receiver("--config", l.Path("receiver.toml"), "setup", "--name", l.names).MustExit(l.t, 0)
}

// Path returns a path below the host's directory.
func (h *Host) Path(elem ...string) string { return filepath.Join(append([]string{h.Dir}, elem...)...) }

// Episodes, Outbox and Shipped return paths in the three folders.
func (h *Host) Episodes(elem ...string) string {
	return h.Path(append([]string{"data", "episodes"}, elem...)...)
}

// Outbox returns a path in the outbox.
func (h *Host) Outbox(elem ...string) string {
	return h.Path(append([]string{"data", "outbox"}, elem...)...)
}

// Shipped returns a path in the folder of retired episodes.
func (h *Host) Shipped(elem ...string) string {
	return h.Path(append([]string{"data", "shipped"}, elem...)...)
}

// Set sets a key of lab-host.toml for the next start of the shipper.
func (h *Host) Set(key, value string) {
	h.settings[key] = value
	h.writeConfig()
}

func (h *Host) writeConfig() {
	fixture.WriteFile(h.t, h.Path("lab-host.toml"), h.settings.encodeTOML())
}

// File is a file of an episode.
type File struct{ Name, Body string }

// Commit is the commit that the meta.json of a [Host.Episode] names.
const Commit = "0123456789abcdef0123456789abcdef01234567"

// defaultFiles returns the files of an episode unless a test gives others.
func defaultFiles(name string) []File {
	lines := ""
	for i := range 64 {
		lines += fmt.Sprintf(`{"ts":%d,"call":"openat","path":"/tmp/%s.%d"}`+"\n", i, name, i*i*7919)
	}
	return []File{
		{"meta.json", fmt.Sprintf(`{"episode_id":%q,"code_version":{"commit":%q}}`, name, Commit)},
		{"telemetry.jsonl", lines},
		{"net/flows.csv", "ts,src,dst\n1,10.0.0.1,10.0.0.2\n"},
		{"empty.log", ""},
	}
}

// Episode makes a finished episode of files, or of a small recording, and returns its path.
func (h *Host) Episode(name string, files ...File) string {
	h.t.Helper()
	dir := h.Draft(name, files...)
	h.Finish(name)
	return dir
}

// Draft makes an episode that is not finished yet.
func (h *Host) Draft(name string, files ...File) string {
	h.t.Helper()
	if len(files) == 0 {
		files = defaultFiles(name)
	}
	dir := h.Episodes(name)
	fixture.Must(h.t, os.MkdirAll(dir, 0o755))
	for _, f := range files {
		fixture.WriteFile(h.t, filepath.Join(dir, f.Name), f.Body)
	}
	return dir
}

// Finish records what an episode holds, including the marker, and then makes the marker: from
// then on the lab checks the episode. If the daemons have a user of their own, the marker
// belongs to that user from the moment that it has its name.
func (h *Host) Finish(name string) {
	h.t.Helper()
	tree := ReadTree(h.t, h.Episodes(name))
	tree["done.marker"] = fmt.Sprintf("file 0 %x", sha256.Sum256(nil))
	h.expectTree(name, tree)
	if h.lab.uid == 0 {
		fixture.WriteFile(h.t, h.Episodes(name, "done.marker"), "")
		return
	}
	draft := h.Path("done.marker")
	fixture.WriteFile(h.t, draft, "")
	h.lab.chown(draft, h.lab.uid, h.lab.uid)
	fixture.Must(h.t, os.Rename(draft, h.Episodes(name, "done.marker")))
}

// Note makes the lab check a finished episode that was made in another way, and is in dir now.
func (h *Host) Note(name, dir string) {
	h.t.Helper()
	h.expectTree(name, ReadTree(h.t, dir))
}

func (h *Host) expectTree(name string, tree Tree) {
	h.made[name] = append(h.made[name], &madeEpisode{tree: tree, packed: tree.packablePart()})
}

// Forget makes the lab stop checking an episode: the test has destroyed or replaced it.
func (h *Host) Forget(name string) { delete(h.made, name) }

// Change changes an episode after it was packed. The lab then expects the new tree on the host,
// and the former one in the archive.
func (h *Host) Change(name string, change func(dir string)) {
	h.t.Helper()
	dir := h.Episodes(name)
	change(dir)
	all := h.made[name]
	all[len(all)-1].tree = ReadTree(h.t, dir)
}

// ForgetStore makes this a host that has adopted no store, as after its upgrade. It is for
// tests that change the index by hand, which makes it another store.
func (h *Host) ForgetStore() {
	h.t.Helper()
	fixture.Must(h.t, os.Remove(h.Outbox(".store.json")))
}

// Move makes the shipper run through a command that enters another namespace, from which the
// receiver is reached at url.
func (h *Host) Move(url string, via ...string) {
	h.via = via
	h.Set("receiver.url", fmt.Sprintf("%q", url))
}

// Run runs a command of the shipper to its end.
func (h *Host) Run(args ...string) Result {
	h.t.Helper()
	argv := slices.Concat(h.lab.asPerson, h.shipperCommand(args))
	return runProgram(h.t, argv[0], argv[1:]...)
}

func (h *Host) shipperCommand(args []string) []string {
	return slices.Concat(h.via, []string{filepath.Join(h.lab.bin, "shipper")}, h.withConfig(args))
}

func (h *Host) withConfig(args []string) []string {
	return append([]string{"--config", h.Path("lab-host.toml")}, args...)
}

// Pass is the result of a pass of shipper --once.
type Pass struct {
	Tally
	Result
}

// Once makes one pass.
func (h *Host) Once(args ...string) Pass {
	h.t.Helper()
	p := Pass{Result: h.Run(append([]string{"--once", "--json"}, args...)...)}
	if p.Stdout != "" {
		if err := json.Unmarshal([]byte(p.Stdout), &p.Tally); err != nil {
			h.t.Fatalf("the tally of shipper --once: %v: %q", err, p.Stdout)
		}
	}
	if p.Code == 0 {
		h.killed = false
	}
	return p
}

// Must fails the test if the pass had another exit code or another tally.
func (p Pass) Must(t testing.TB, code int, want Tally) Pass {
	t.Helper()
	if p.Code != code || p.Tally != want {
		t.Fatalf("shipper --once: exit code %d %+v, want %d %+v\n%s", p.Code, p.Tally, code, want, p.Stderr)
	}
	return p
}

// Daemon starts the shipper, and waits until it has started.
func (h *Host) Daemon(args ...string) *Process {
	h.t.Helper()
	fixture.NeedInotify(h.t)
	p := h.Launch(args...)
	p.WaitLine(h.t, "shipper started")
	return p
}

// Launch starts the shipper and waits for nothing.
func (h *Host) Launch(args ...string) *Process {
	h.t.Helper()
	h.disableMetrics()
	return StartProgram(h.t, "shipper "+h.Name, h.lab.daemonCommand(h.shipperCommand(args))...)
}

// disableMetrics disables metrics in a configuration that joining wrote, if there is one: their default
// address is one port for all labs.
func (h *Host) disableMetrics() {
	path := h.Path("lab-host.toml")
	if text, err := os.ReadFile(path); h.settings == nil && err == nil && !bytes.Contains(text, []byte("[admin]")) {
		fixture.WriteFile(h.t, path, string(text)+"\n[admin]\nlisten = \"\"\n")
	}
}

// Kill kills a shipper of this host.
func (h *Host) Kill(p *Process) {
	h.t.Helper()
	h.killed = true
	p.Kill(h.t)
}

// IsShipped reports whether an episode of this name has been retired.
func (h *Host) IsShipped(name string) bool {
	_, err := os.Lstat(h.Shipped(name))
	return err == nil
}

// WaitShipped waits until episodes are retired.
func (h *Host) WaitShipped(names ...string) {
	h.t.Helper()
	for _, name := range names {
		Eventually(h.t, name+" is shipped", func() bool { return h.IsShipped(name) })
	}
}

// WaitEmpty waits until nothing packed is left in the outbox.
func (h *Host) WaitEmpty() {
	h.t.Helper()
	Eventually(h.t, "the outbox is empty", func() bool {
		left, err := filepath.Glob(h.Outbox("*.tar.zst*"))
		return err == nil && len(left) == 0
	})
}
