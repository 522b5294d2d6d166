package labtest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// newJoinLab returns a lab whose receiver lets hosts join, and a host that has nothing yet.
func newJoinLab(t *testing.T, options ...labtest.Option) (*labtest.Lab, *labtest.Host) {
	t.Helper()
	t.Parallel()
	l := labtest.New(t, append(options, labtest.Unstarted())...)
	l.SetUp()
	l.Start()
	return l, l.Newcomer("lab-07")
}

// ship delivers an episode of a host that has joined.
func ship(t *testing.T, l *labtest.Lab, h *labtest.Host, name string) {
	t.Helper()
	path := h.Path("lab-host.toml")
	if text := fixture.ReadFile(t, path); !strings.Contains(text, "settle") {
		fixture.WriteFile(t, path, "settle = \"0s\"\n"+text)
	}
	h.Episode(name)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestHostJoinsWithOneLine(t *testing.T) {
	l, h := newJoinLab(t)
	token := l.Invite("lab-07")
	joined := h.Run("join", token).MustExit(t, 0)
	mustContain(t, "join", joined.Stdout, "host lab-07 has joined https://"+l.Proxy.Addr(), "the receiver accepts episodes from this host")
	ship(t, l, h, "run-1")
	for path, mode := range map[string]os.FileMode{"identity": os.ModeDir | 0o700, "identity/host.pem": 0o600} {
		if info, err := os.Stat(h.Path(path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: got %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
	// The key never leaves the host, and the secret stays out of what people show each other.
	secret := token[len(token)/2 : len(token)/2+40]
	for _, text := range []string{l.Process().Output(), joined.Stdout, joined.Stderr, fixture.ReadFile(t, h.Path("lab-host.toml"))} {
		if strings.Contains(text, secret) {
			t.Errorf("the token is in %q", text)
		}
	}
	filepath.WalkDir(l.Path("identity"), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(fixture.ReadFile(t, path), "PRIVATE KEY") != strings.HasSuffix(e.Name(), "-issuing.pem") {
			t.Errorf("%s has a key, or has none", path)
		}
		return nil
	})

	// Once more with the same token: the same certificate, and nothing else changes.
	before := fixture.ReadFile(t, h.Path("identity", "host.pem"))
	h.Run("join", token).MustExit(t, 0)
	l.Restart()
	h.Run("join", "--json", token).MustExit(t, 0)
	if fixture.ReadFile(t, h.Path("identity", "host.pem")) != before {
		t.Error("joining again changed the certificate")
	}
	ship(t, l, h, "run-2")
}

func TestTokenGivesOneMachineItsCertificate(t *testing.T) {
	l, h := newJoinLab(t)
	token := l.Invite("lab-07")
	other := l.Newcomer("lab-08")
	h.Run("join", token).MustExit(t, 0)
	refused := other.Run("join", token).MustExit(t, 1)
	mustContain(t, "the second machine", refused.Stderr, "already used", "receiver invite lab-07")
	mustBeEmpty(t, other)

	// A name that is taken needs --again, and then the first machine is out.
	taken := l.Receiver("--config", l.Path("receiver.toml"), "invite", "lab-07", "--url", "https://receiver.lab").MustExit(t, 1)
	mustContain(t, "invite", taken.Stderr, "is known", "--again")
	other.Run("join", l.Invite("lab-07", "--again")).MustExit(t, 0)
	h.Episode("run-1")
	if p := h.Once(); p.Code == 0 {
		t.Errorf("the replaced machine still ships: %+v", p.Tally)
	}
	h.Run("--ping").MustExit(t, 4)
	mustContain(t, "the receiver", l.Process().Output(), "ended when host lab-07 joined again and used its new one")
	h.Forget("run-1")
}

// mustBeEmpty fails the test if a host that was refused has anything but its episodes.
func mustBeEmpty(t *testing.T, h *labtest.Host) {
	t.Helper()
	for _, name := range []string{"lab-host.toml", "identity"} {
		if fixture.Exists(h.Path(name)) {
			t.Errorf("%s was written", name)
		}
	}
}

func TestInvalidTokenChangesNothing(t *testing.T) {
	l, h := newJoinLab(t)
	other := labtest.New(t, labtest.Unstarted())
	other.SetUp()
	config := l.Path("receiver.toml")
	revoked := l.Invite("lab-07")
	l.Receiver("--config", config, "invite", "--revoke", "lab-07").MustExit(t, 0)
	l.Invite("lab-09") // so that the door is open
	other.Proxy.Forward("127.0.0.1:1")
	good := l.Invite("lab-10")
	for name, test := range map[string]struct {
		token string
		code  int
		want  string
	}{
		"empty":     {"", 2, "empty"},
		"cut":       {good[:len(good)-2], 2, "incomplete"},
		"altered":   {good[:50] + "A" + good[51:], 2, "altered"},
		"a path":    {"/etc/passwd", 2, "not a token"},
		"revoked":   {revoked, 1, "revoked"},
		"elsewhere": {other.Invite("lab-07"), 4, other.Proxy.Addr()},
	} {
		t.Run(name, func(t *testing.T) {
			r := h.Run("join", test.token)
			if r.Code != test.code || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("got exit code %d, %q; want %d with %q", r.Code, r.Stderr, test.code, test.want)
			}
			mustBeEmpty(t, h)
		})
	}
}

// An adversary in the middle, with a certificate of its own CA for the same name.
func TestMachineInTheMiddleGetsNothing(t *testing.T) {
	l, h := newJoinLab(t)
	evil := labtest.New(t, labtest.Unstarted())
	evil.SetUp()
	evil.Start()
	evil.Invite("lab-01") // its door is open
	token := l.Invite("lab-07")
	l.Proxy.Forward(listenAddr(t, evil))
	r := h.Run("join", token).MustExit(t, 4)
	mustContain(t, "join", r.Stderr, "another machine answers", "the token was not sent")
	mustBeEmpty(t, h)
	l.Proxy.Forward(listenAddr(t, l))
	h.Run("join", token).MustExit(t, 0)
}

// listenAddr returns where a lab's receiver listens.
func listenAddr(t *testing.T, l *labtest.Lab) string {
	t.Helper()
	_, rest, _ := strings.Cut(l.Process().WaitLine(t, "receiver started"), "listen=")
	addr, _, _ := strings.Cut(rest, " ")
	return addr
}

// The answer is lost on the way, wherever the connection is cut: the same token continues.
func TestJoinContinuesAfterAnyCut(t *testing.T) {
	l, h := newJoinLab(t)
	token := l.Invite("lab-07")
	for _, f := range []labtest.Fault{
		{Refuse: true},
		{CutAfter: 100},
		{CutAfter: 500},
		{LoseBehind: 600}, // the request was answered
		{LoseBehind: 700},
		{LoseBehind: 800},
	} {
		l.Proxy.Next(f)
		if r := h.Run("join", token); r.Code == 0 && !f.Refuse && f.CutAfter > 0 {
			t.Errorf("%+v: it joined", f)
		}
	}
	h.Run("join", token).MustExit(t, 0)
	ship(t, l, h, "run-1")
	if found, _ := filepath.Glob(l.Path("identity", "issued", "*.crt")); len(found) != 1 {
		t.Errorf("%d certificates were issued, want 1", len(found))
	}
}

func TestDisabledHostCannotJoin(t *testing.T) {
	l, h := newJoinLab(t)
	token := l.Invite("lab-07")
	hosts := func(args ...string) labtest.Result {
		return l.Receiver(append([]string{"--config", l.Path("receiver.toml"), "hosts"}, args...)...)
	}
	hosts("disable", "lab-07").MustExit(t, 0)
	mustContain(t, "join", h.Run("join", token).MustExit(t, 1).Stderr, "is disabled")
	mustContain(t, "invite", l.Receiver("--config", l.Path("receiver.toml"), "invite", "lab-07", "--again", "--url", "https://receiver.lab").MustExit(t, 1).Stderr, "is disabled")
	hosts("enable", "lab-07").MustExit(t, 0)
	h.Run("join", token).MustExit(t, 0)
	hosts("disable", "lab-07").MustExit(t, 0)
	mustContain(t, "join again", h.Run("join", token).MustExit(t, 1).Stderr, "is disabled")
}

// After a restore from a backup the receiver does not know of what it did since: the host that
// joined has access, and a token that was used is open until it expires.
func TestReceiverRestoredFromABackupServesWhoJoinedSince(t *testing.T) {
	l, h := newJoinLab(t)
	token := l.Invite("lab-07")
	backup := filepath.Join(t.TempDir(), "identity")
	copyTree(t, l.Path("identity"), backup)
	h.Run("join", token).MustExit(t, 0)
	l.Stop()
	fixture.Must(t, os.RemoveAll(l.Path("identity")))
	copyTree(t, backup, l.Path("identity"))
	l.Start()
	ship(t, l, h, "run-1")
	h.Run("join", token).MustExit(t, 0)
	ship(t, l, h, "run-2")
	// Without any identity directory, what was issued by it works as long as hosts-ca.crt has its CA.
	l.Stop()
	fixture.Must(t, os.RemoveAll(l.Path("identity")))
	l.Start()
	ship(t, l, h, "run-3")
}

// A host that cannot write sends nothing, and the token stays good.
func TestFullDiskKeepsTheTokenValid(t *testing.T) {
	l, h := newJoinLab(t)
	token := l.Invite("lab-07")
	fixture.WriteFile(t, h.Path("identity"), "not a directory")
	h.Run("join", token).MustExit(t, 1)
	fixture.Must(t, os.Remove(h.Path("identity")))
	if found, _ := filepath.Glob(l.Path("identity", "issued", "*.crt")); len(found) > 0 {
		t.Errorf("%q were issued", found)
	}
	h.Run("join", token).MustExit(t, 0)
	ship(t, l, h, "run-1")
}

// The outputs for programs.
func TestJoiningPrintsJSON(t *testing.T) {
	l, h := newJoinLab(t)
	config := l.Path("receiver.toml")
	var invited struct {
		Host    string    `json:"host_id"`
		ID      string    `json:"id"`
		Expires time.Time `json:"expires"`
		URLs    []string  `json:"urls"`
		Token   string    `json:"token"`
	}
	r := l.Receiver("--config", config, "invite", "lab-07", "--json", "--valid", "2h", "--url", "https://"+l.Proxy.Addr()).MustExit(t, 0)
	decodeJSON(t, r.Stdout, &invited)
	if invited.Host != "lab-07" || invited.ID == "" || len(invited.URLs) != 1 || time.Until(invited.Expires) > 2*time.Hour {
		t.Errorf("got %+v", invited)
	}
	var listed struct {
		Version int    `json:"schema_version"`
		Host    string `json:"host_id"`
		State   string `json:"state"`
		Secret  string `json:"secret_sha256"`
	}
	list := func() string {
		return l.Receiver("--config", config, "invite", "--list", "--json").MustExit(t, 0).Stdout
	}
	decodeJSON(t, list(), &listed)
	if listed.Host != "lab-07" || listed.State != "open" || listed.Version != 1 || strings.Contains(list(), "secret") {
		t.Errorf("got %s", list())
	}
	mustContain(t, "hosts", l.Receiver("--config", config, "hosts").MustExit(t, 0).Stdout, "invited")
	var joined struct {
		Host      string `json:"host_id"`
		URL       string `json:"url"`
		Written   bool   `json:"config_written"`
		Reachable bool   `json:"reachable"`
	}
	fixture.WriteFile(t, h.Path("token"), "sudo shipper join "+invited.Token+"\n") // the whole line is as good
	decodeJSON(t, h.Run("join", "--json", "--token-file", h.Path("token")).MustExit(t, 0).Stdout, &joined)
	if joined.Host != "lab-07" || !joined.Written || !joined.Reachable || joined.URL != "https://"+l.Proxy.Addr() {
		t.Errorf("got %+v", joined)
	}
	if text := l.Receiver("--config", config, "hosts", "--json").MustExit(t, 0).Stdout; !strings.Contains(text, `"state":"active"`) || !strings.Contains(text, `"last_contact"`) {
		t.Errorf("hosts: got %s", text)
	}
}

func decodeJSON(t *testing.T, text string, to any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewBufferString(text))
	if err := d.Decode(to); err != nil || d.More() {
		t.Fatalf("%v: not one object: %q", err, text)
	}
}

// A configuration that is there is kept, unless it is the example as a package installs it.
func TestJoinKeepsTheConfiguration(t *testing.T) {
	l, h := newJoinLab(t)
	example := fixture.ReadFile(t, "../../etc/lab-host.toml.example")
	path := h.Path("lab-host.toml")
	token := l.Invite("lab-07")

	fixture.WriteFile(t, path, strings.Replace(example, `host_id = "lab-01"`, `host_id = "lab-99"`, 1))
	mustContain(t, "another host's", h.Run("join", token).MustExit(t, 2).Stderr, "lab-99", "lab-07")
	if fixture.Exists(h.Path("identity", "host.pem")) {
		t.Error("it joined nevertheless")
	}

	mine := "# mine\nhost_id = \"lab-07\"\nepisodes_dir = \"data/episodes\"\noutbox_dir = \"data/outbox\"\nshipped_dir = \"data/shipped\"\n" +
		"settle = \"0s\"\n[receiver]\nurl = \"https://" + l.Proxy.Addr() + "\"\n"
	fixture.WriteFile(t, path, mine)
	h.Run("join", token).MustExit(t, 0)
	if got := fixture.ReadFile(t, path); got != mine {
		t.Errorf("it was changed: %s", got)
	}
	ship(t, l, h, "run-1")
}

// setup can be repeated, and never replaces a CA.
func TestSetupTwiceChangesNothing(t *testing.T) {
	l, _ := newJoinLab(t)
	read := func() string {
		var all strings.Builder
		for _, dir := range []string{"pki", "identity"} {
			filepath.WalkDir(l.Path(dir), func(path string, e os.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() {
					all.WriteString(path + fixture.ReadFile(t, path))
				}
				return nil
			})
		}
		return all.String() + fixture.ReadFile(t, l.Path("receiver.toml"))
	}
	before := read()
	out := l.Receiver("--config", l.Path("receiver.toml"), "setup", "--name", "other.lab").MustExit(t, 0).Stdout
	if strings.Contains(out, "created") || read() != before {
		t.Errorf("it changed something: %s", out)
	}
}

// A host that joined at the receiver's own port ships by way of a proxy, which gets its chain and
// hands over the certificate alone. So does one whose name looks like a DNS name, which OpenSSL
// would compare with the issuing CA's constraints.
func TestJoinedHostShipsBehindAProxy(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, _ *labtest.Host, f *frontProxy) {
		l.SetUp()
		l.Restart()
		for _, name := range []string{"lab-07", "lab-08.example.org"} {
			h := l.Newcomer(name)
			h.Run("join", l.Invite(name)).MustExit(t, 0)
			path := h.Path("lab-host.toml")
			fixture.WriteFile(t, path, strings.Replace(fixture.ReadFile(t, path), l.Proxy.Addr(), f.addr, 1))
			mustContain(t, "ping", h.Run("--ping").MustExit(t, 0).Stdout, name+` by "proxy"`)
			ship(t, l, h, "run-1")
			h.AgeCertificate(300 * day)
			ship(t, l, h, "run-2") // and renews through the proxy
			if left := time.Until(factsOf(t, l, name).Certificates[0].NotAfter); left < 364*day {
				t.Errorf("%s was not renewed: its certificate expires in %v", name, left)
			}
			ship(t, l, h, "run-3")
			l.Receiver("--config", l.Path("receiver.toml"), "pki", "revoke", name, "--dir", l.Path("pki")).MustExit(t, 0)
			l.Process().Signal(t, syscall.SIGHUP)
			labtest.Eventually(t, name+" is shut out", func() bool { return h.Run("--ping").Code == 4 })
		}
	})
}

// Joining by way of a proxy that ends TLS sends nothing, and says where to join.
func TestJoiningThroughAProxyThatEndsTLSSendsNothing(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, _ *labtest.Host, f *frontProxy) {
		l.SetUp()
		l.Restart()
		h := l.Newcomer("lab-07")
		l.Proxy.Forward(f.addr)
		h.Run("join", l.Invite("lab-07")).MustExit(t, 4)
		mustBeEmpty(t, h)
	})
}
