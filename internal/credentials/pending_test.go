package credentials_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/credentials"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/pkitest"
)

// TestRefusedRequestKeepsEarlierKeys: the answer to an earlier request may have been lost, and its
// certificate is for the earlier key.
func TestRefusedRequestKeepsEarlierKeys(t *testing.T) {
	identity := filepath.Join(t.TempDir(), "identity")
	open := func(invitation string) *credentials.Pending {
		t.Helper()
		p, err := credentials.OpenPending(identity, invitation)
		fixture.Must(t, err)
		return p
	}
	keyOf := func(p *credentials.Pending) string {
		t.Helper()
		r, err := gate.ParseRequest(p.Request)
		fixture.Must(t, err)
		return r.KeySHA256
	}
	first := keyOf(open("first"))
	fixture.Must(t, open("first").Discard())
	if got := keyOf(open("first")); got != first {
		t.Error("a refusal of a repeated request took its key")
	}
	other := open("other")
	if keyOf(other) == first {
		t.Error("two invitations have one key")
	}
	fixture.Must(t, other.Discard())
	if got := keyOf(open("first")); got != first {
		t.Error("a refusal took the key of another invitation")
	}

	identity = filepath.Join(t.TempDir(), "identity")
	p := open("first")
	fixture.Must(t, p.Discard())
	if again := open("first"); bytes.Equal(again.Request, p.Request) || keyOf(again) == keyOf(p) {
		t.Error("the key of a refused request is still there")
	}
}

// The key of an interrupted request is used again, for it may have been answered. Another
// invitation gets another.
func TestRequestIsRepeatedWithTheSameKey(t *testing.T) {
	identity := filepath.Join(t.TempDir(), "identity")
	open := func(invitation string) (*credentials.Pending, string) {
		p, err := credentials.OpenPending(identity, invitation)
		fixture.Must(t, err)
		r, err := gate.ParseRequest(p.Request)
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
		_, err := credentials.OpenPending(identity, "a")
		fixture.Must(t, err)
		pkitest.WriteFile(t, filepath.Join(identity, "host-request.pem"), []byte(text))
		p, err := credentials.OpenPending(identity, "a")
		fixture.Must(t, err)
		if _, err := gate.ParseRequest(p.Request); err != nil {
			t.Error(err)
		}
	}
}

// What a receiver answers is installed only if it is this host's certificate for this key.
func TestInstallRefusesWhatIsNotForThisHostAndKey(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	root := pkitest.LoadCertificate(t, j.Path("ca.crt"))
	identity := filepath.Join(t.TempDir(), "identity")
	pending, err := credentials.OpenPending(identity, "a")
	fixture.Must(t, err)
	request, err := gate.ParseRequest(pending.Request)
	fixture.Must(t, err)
	sign := func(r gate.Request, host string) []byte {
		issued, err := j.Issuer.SignHost(r, "lab-01", time.Now())
		if host != "lab-01" {
			issued, err = j.Issuer.SignHost(r, "lab-02", time.Now())
		}
		fixture.Must(t, err)
		chain, err := j.Issuer.Chain(issued.Serial)
		fixture.Must(t, err)
		return chain
	}
	good := sign(request, "lab-01")
	server := pkitest.ReadFile(t, j.Path("server.crt"))
	for name, chain := range map[string][]byte{
		"nothing":        nil,
		"garbage":        []byte("garbage"),
		"another key":    sign(pkitest.ParsePending(t), "lab-01"),
		"another host":   sign(request, "lab-02"),
		"a receiver's":   server,
		"a key":          pkitest.ReadFile(t, j.Path("server.key")),
		"the CA first":   append(pkitest.EncodeCertificate(pkitest.LoadCertificate(t, j.Path("hosts-ca-issuing.crt"))), good...),
		"cut":            good[:len(good)-10],
		"a broken block": bytes.Replace(good, []byte("MII"), []byte("!!!"), 1),
		"and a key":      append(bytes.Clone(good), pkitest.ReadFile(t, j.Path("server.key"))...),
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
