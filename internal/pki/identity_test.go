package pki_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// The key of an interrupted request is used again, for it may have been answered. Another
// invitation gets another.
func TestRequestIsRepeatedWithTheSameKey(t *testing.T) {
	identity := filepath.Join(t.TempDir(), "identity")
	open := func(invitation string) (*pki.Pending, string) {
		p, err := pki.OpenPending(identity, invitation)
		fixture.Must(t, err)
		r, err := pki.ParseRequest(p.Request)
		fixture.Must(t, err)
		return p, r.KeySHA256
	}
	first, key := open("a")
	if _, again := open("a"); again != key {
		t.Error("the same invitation got another key")
	}
	second, other := open("b")
	if other == key {
		t.Error("another invitation got the same key")
	}
	for path, mode := range map[string]fs.FileMode{identity: fs.ModeDir | 0o700, filepath.Join(identity, "host-request.pem"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: got %v, %v; want mode %v", path, info.Mode(), err, mode)
		}
	}
	// A refusal ends only a key that no earlier attempt can have had answered.
	later, _ := open("b")
	fixture.Must(t, later.Discard())
	if _, kept := open("b"); kept != other {
		t.Error("the key of an earlier attempt was discarded")
	}
	fixture.Must(t, second.Discard())
	if _, back := open("a"); back != key {
		t.Error("the key for the former invitation is lost")
	}
	fixture.Must(t, first.Discard())
	if fixture.Exists(filepath.Join(identity, "host-request.pem")) {
		t.Error("the refused key is left")
	}
}

func TestDamagedRequestIsReplaced(t *testing.T) {
	for _, text := range []string{"", "garbage", "-----BEGIN PRIVATE KEY-----\nInvitation: a\n\nAAAA\n-----END PRIVATE KEY-----\n"} {
		identity := filepath.Join(t.TempDir(), "identity")
		_, err := pki.OpenPending(identity, "a")
		fixture.Must(t, err)
		writeFile(t, filepath.Join(identity, "host-request.pem"), []byte(text))
		p, err := pki.OpenPending(identity, "a")
		fixture.Must(t, err)
		if _, err := pki.ParseRequest(p.Request); err != nil {
			t.Error(err)
		}
	}
}

// What a receiver answers is installed only if it is this host's certificate for this key.
func TestInstallRefusesWhatIsNotForThisHostAndKey(t *testing.T) {
	j := newJoinLab(t)
	root := loadCertificate(t, j.path("ca.crt"))
	identity := filepath.Join(t.TempDir(), "identity")
	pending, err := pki.OpenPending(identity, "a")
	fixture.Must(t, err)
	request, err := pki.ParseRequest(pending.Request)
	fixture.Must(t, err)
	sign := func(r pki.Request, host string) []byte {
		issued, err := j.issuer.SignHost(r, "lab-01", time.Now())
		if host != "lab-01" {
			issued, err = j.issuer.SignHost(r, "lab-02", time.Now())
		}
		fixture.Must(t, err)
		chain, err := j.issuer.Chain(issued.Serial)
		fixture.Must(t, err)
		return chain
	}
	good := sign(request, "lab-01")
	server := readFile(t, j.path("server.crt"))
	for name, chain := range map[string][]byte{
		"nothing":        nil,
		"garbage":        []byte("garbage"),
		"another key":    sign(parsePending(t), "lab-01"),
		"another host":   sign(request, "lab-02"),
		"a receiver's":   server,
		"a key":          readFile(t, j.path("server.key")),
		"the CA first":   append(encodeCertificate(loadCertificate(t, j.path("hosts-ca-issuing.crt"))), good...),
		"cut":            good[:len(good)-10],
		"a broken block": bytes.Replace(good, []byte("MII"), []byte("!!!"), 1),
		"and a key":      append(bytes.Clone(good), readFile(t, j.path("server.key"))...),
	} {
		if _, err := pending.Install("lab-01", chain, root); err == nil || !strings.Contains(err.Error(), "answer is not usable") {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		for _, file := range []string{"host.pem", "host-ca.crt"} {
			if fixture.Exists(filepath.Join(identity, file)) {
				t.Fatalf("%s: %s was written", name, file)
			}
		}
	}
	_, err = pending.Install("lab-01", good, root)
	fixture.Must(t, err)
	info, err := os.Stat(filepath.Join(identity, "host.pem"))
	fixture.Must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("got mode %v, want 0600", info.Mode())
	}
}

// The one that became valid later is used, so that a pair installed by hand wins.
func TestLaterCertificateIsUsed(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now())
	for name, test := range map[string]struct {
		issued time.Time
		byHand bool
	}{
		"older":  {time.Now().Add(-2 * time.Hour), false},
		"newer":  {time.Now().Add(30 * time.Minute), true},
		"absent": {time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			config := pki.ClientConfig{
				CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, "lab-01.crt"), KeyFile: filepath.Join(out, "lab-01.key"),
				IdentityDir: h.identity, Host: "lab-01",
			}
			want := h.issued.Serial
			if !test.issued.IsZero() {
				issued, err := pki.IssueHost(j.dir, "lab-01", out, pki.IssueOptions{Now: test.issued})
				fixture.Must(t, err)
				if test.byHand {
					want = issued.Serial
				}
			}
			client, err := pki.LoadClient(config)
			fixture.Must(t, err)
			if got := serialOf(t, client); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			files := config.Files()
			if byHand := len(files) > 0 && strings.HasPrefix(files[0], out); byHand != test.byHand {
				t.Errorf("the files are %q", files)
			}
		})
	}
}

func serialOf(t *testing.T, c *pki.Client) string {
	t.Helper()
	pair, err := c.TLSConfig().GetClientCertificate(nil)
	fixture.Must(t, err)
	return strings.ToLower(strings.Repeat("0", 32-len(pair.Leaf.SerialNumber.Text(16))) + pair.Leaf.SerialNumber.Text(16))
}

// A daemon names a damaged file, and joining again repairs it.
func TestDamagedIdentityIsNamedAndRepairedByJoining(t *testing.T) {
	j := newJoinLab(t)
	for name, damage := range map[string]func(dir string){
		"empty":       func(dir string) { writeFile(t, filepath.Join(dir, "host.pem"), nil) },
		"cut":         func(dir string) { cut(t, filepath.Join(dir, "host.pem")) },
		"no key":      func(dir string) { without(t, filepath.Join(dir, "host.pem"), "PRIVATE KEY") },
		"no CA":       func(dir string) { fixture.Must(t, os.Remove(filepath.Join(dir, "host-ca.crt"))) },
		"a broken CA": func(dir string) { cut(t, filepath.Join(dir, "host-ca.crt")) },
		"another's": func(dir string) {
			other := j.join("lab-02", false, time.Now())
			writeFile(t, filepath.Join(dir, "host.pem"), readFile(t, filepath.Join(other.identity, "host.pem")))
		},
		"a receiver's": func(dir string) {
			writeFile(t, filepath.Join(dir, "host.pem"), append(readFile(t, j.path("server.key")), readFile(t, j.path("server.crt"))...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := j.join("lab-01", false, time.Now())
			damage(h.identity)
			config := pki.ClientConfig{IdentityDir: h.identity, Host: "lab-01"}
			if _, err := pki.LoadClient(config); err == nil || !strings.Contains(err.Error(), h.identity) {
				t.Errorf("got %v, want an error that names the file", err)
			}
			config.Files() // must not fail
			pending, err := pki.OpenPending(h.identity, "invitation")
			fixture.Must(t, err)
			chain, err := j.issuer.Chain(h.issued.Serial) // as the receiver answers the same key again
			fixture.Must(t, err)
			_, err = pending.Install("lab-01", chain, loadCertificate(t, j.path("ca.crt")))
			fixture.Must(t, err)
			_, err = pki.LoadClient(config)
			fixture.Must(t, err)
		})
	}
}

func cut(t *testing.T, path string) {
	t.Helper()
	data := readFile(t, path)
	writeFile(t, path, data[:len(data)-30])
}

// without removes the PEM blocks of a kind.
func without(t *testing.T, path, kind string) {
	t.Helper()
	var left []byte
	for block, rest := pem.Decode(readFile(t, path)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			left = append(left, pem.EncodeToMemory(block)...)
		}
	}
	writeFile(t, path, left)
}

// A receiver names a damaged file too, and does not start as if there were none.
func TestDamagedIssuingCAIsNamed(t *testing.T) {
	for _, file := range []string{"hosts-issuing.pem", "server-ca.crt"} {
		j := newJoinLab(t)
		cut(t, filepath.Join(j.identity, file))
		if _, err := pki.OpenIssuer(j.identity); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", file, err)
		}
		if _, err := pki.LoadTrust(j.config); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", file, err)
		}
	}
}

// A damaged record may be the one that ends a stolen certificate: its host is refused, no other, and
// the file stays as it is.
func TestHostWhoseRecordIsDamagedIsRefused(t *testing.T) {
	j := newJoinLab(t)
	old := j.join("lab-01", false, time.Now().Add(-2*time.Second))
	h := j.join("lab-01", true, time.Now())
	fixture.Must(t, j.note(h))
	other := j.join("lab-02", false, time.Now())
	path := filepath.Join(j.identity, "hosts", "lab-01.json")
	for _, text := range []string{"", "{", `{"schema_version": 2, "host_id": "lab-01"}`, `{"schema_version": 1, "host_id": "lab-03"}`} {
		writeFile(t, path, []byte(text))
		j.reopen()
		for name, c := range map[string]joined{"ended": old, "new": h} {
			if r := c.call(); r.status == 200 {
				t.Errorf("%q: the %s certificate gives access", text, name)
			}
		}
		other.wantAccess("lab-02 mtls")
		fixture.Must(t, j.note(other))
		if err := j.records.SetJoined(h.issued, true); err == nil {
			t.Errorf("%q: the host may join", text)
		}
		if got := fixture.ReadFile(t, path); got != text {
			t.Errorf("the record %q was replaced by %q", text, got)
		}
	}
}

// Power loss may leave a temporary file of any of them.
func TestLeftoversInAnIdentityAreNotInTheWay(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now())
	for dir, names := range map[string][]string{
		h.identity: {".host.pem.tmp", ".host-ca.crt.tmp", ".host-request.pem.tmp"},
		j.identity: {"hosts/.lab-01.json.tmp", "issued/." + h.issued.Serial + ".crt.tmp", ".hosts-issuing.pem.tmp"},
	} {
		for _, name := range names {
			writeFile(t, filepath.Join(dir, name), []byte("half"))
		}
	}
	j.reopen()
	fixture.Must(t, j.note(h))
	if records, err := pki.ListHostRecords(j.identity); err != nil || len(records) != 1 {
		t.Errorf("got %+v, %v", records, err)
	}
	if list, err := pki.ListIssued(j.dir, time.Now(), pki.RecordsIn(j.identity)); err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	_, err := pki.OpenPending(h.identity, "next")
	fixture.Must(t, err)
}

// An empty identity_dir must not become the working directory.
func TestEmptyIdentityDirIsNoDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := pki.CreateIdentityDir(""); err == nil {
		t.Error("CreateIdentityDir: got no error")
	}
	if _, err := pki.OpenPending("", "a"); err == nil {
		t.Error("OpenPending: got no error")
	}
	if _, err := pki.OpenIssuer(""); !errors.Is(err, pki.ErrNoIssuing) {
		t.Errorf("OpenIssuer: got %v, want ErrNoIssuing", err)
	}
	if records, err := pki.ListHostRecords(""); records != nil || err != nil {
		t.Errorf("ListHostRecords: got %v, %v", records, err)
	}
	if left, err := filepath.Glob("*"); err != nil || len(left) > 0 {
		t.Errorf("written to the working directory: %q, %v", left, err)
	}
}
