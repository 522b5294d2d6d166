package labtest_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// finding is one of 'doctor --json'.
type finding struct{ Check, Verdict, Fact, Remedy string }

// doctorFindings runs a doctor, and returns what it found. Each bad finding must say what to do.
func doctorFindings(t *testing.T, code int, r labtest.Result) []finding {
	t.Helper()
	r.MustExit(t, code)
	var report struct {
		OK       bool
		Findings []finding
	}
	fixture.Must(t, json.Unmarshal([]byte(r.Stdout), &report))
	if report.OK != (code == 0) {
		t.Errorf("ok is %t, and the exit code %d", report.OK, code)
	}
	for _, f := range report.Findings {
		if bad := f.Verdict == "warning" || f.Verdict == "failed"; bad != (f.Remedy != "") {
			t.Errorf("%+v: what is to be done?", f)
		}
	}
	return report.Findings
}

// wantFailed checks that only the named checks failed, and that the first one has a text.
func wantFailed(t *testing.T, found []finding, text string, checks ...string) {
	t.Helper()
	failed := map[string]string{}
	for _, f := range found {
		if f.Verdict == "failed" {
			failed[f.Check] += f.Fact + " do: " + f.Remedy + "\n"
		}
	}
	for _, check := range checks {
		if failed[check] == "" {
			t.Errorf("%s has not failed: %+v", check, found)
		}
	}
	if len(failed) != len(checks) || len(checks) > 0 && !strings.Contains(failed[checks[0]], text) {
		t.Errorf("failed %q, want %q with %q", failed, checks, text)
	}
}

// verdictOf returns the verdict of the first finding of a check.
func verdictOf(found []finding, check string) string {
	for _, f := range found {
		if f.Check == check {
			return f.Verdict
		}
	}
	return ""
}

// TestShipperDoctorNamesTheStepThatFails, from a healthy host to a refused one.
func TestShipperDoctorNamesTheStepThatFails(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Once().Must(t, 0, labtest.Tally{}) // makes the folders
	url, ca := fmt.Sprintf("%q", "https://"+l.Proxy.Addr()), `"pki/ca.crt"`
	examine := func(code int) []finding {
		t.Helper()
		return doctorFindings(t, code, h.Run("doctor", "--json"))
	}

	found := examine(0)
	wantFailed(t, found, "")
	for check := range strings.SplitSeq("configuration,user,files,folders,kernel,file system,space,name,route,connection,TLS,certificate,authorisation,storage,throughput", ",") {
		if got := verdictOf(found, check); got != "ok" {
			t.Errorf("%s of a healthy host: got %q", check, got)
		}
	}
	for check := range strings.SplitSeq("inodes,disk,clock,unit,daemon,path MTU", ",") {
		if verdictOf(found, check) == "" {
			t.Errorf("%s has no finding", check)
		}
	}
	if left, err := filepath.Glob(h.Outbox(".cis490-probe*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}

	h.Set("receiver.url", `"https://127.0.0.1:1"`)
	wantFailed(t, examine(4), "nothing listens there", "connection")
	h.Set("receiver.url", `"https://no-such-name.invalid:8443"`)
	found = examine(4)
	wantFailed(t, found, "does not resolve", "name")
	if got := verdictOf(found, "connection"); got != "skipped" {
		t.Errorf("without an address the connection is %q", got)
	}
	h.Set("receiver.url", url)

	l.Receiver("pki", "init", "--dir", l.Path("other"), "--name", "localhost").MustExit(t, 0)
	h.Set("receiver.ca_file", fmt.Sprintf("%q", l.Path("other", "ca.crt")))
	wantFailed(t, examine(4), "receiver.ca_file is not the ca.crt", "TLS")
	h.Set("receiver.ca_file", ca)

	fixture.Must(t, os.Rename(h.Path("pki", "lab-01.key"), h.Path("pki", "away")))
	found = examine(1)
	wantFailed(t, found, "no such file", "files")
	if got := verdictOf(found, "TLS"); got != "skipped" {
		t.Errorf("without a key TLS is %q", got)
	}
	fixture.Must(t, os.Rename(h.Path("pki", "away"), h.Path("pki", "lab-01.key")))

	l.Receiver("--config", l.Path("receiver.toml"), "hosts", "disable", "lab-01").MustExit(t, 0)
	wantFailed(t, examine(4), "receiver hosts enable", "authorisation")
	l.Receiver("--config", l.Path("receiver.toml"), "hosts", "enable", "lab-01").MustExit(t, 0)
	wantFailed(t, examine(0), "")

	l.Receiver("pki", "revoke", "lab-01", "--dir", l.Path("pki")).MustExit(t, 0)
	l.Process().Signal(t, syscall.SIGHUP)
	l.Process().WaitLine(t, "reloaded certificates and lists")
	found = examine(4)
	if got := verdictOf(found, "authorisation"); got != "failed" || verdictOf(found, "TLS") != "ok" {
		t.Errorf("of a revoked host: %+v", found)
	}
	l.Stop()
	// The lab's proxy accepts a connection and resets it, perhaps before the connect returns.
	found = examine(4)
	connection, handshake := verdictOf(found, "connection"), verdictOf(found, "TLS")
	if (connection == "failed") == (handshake == "failed") {
		t.Errorf("without a receiver the connection is %q, and TLS %q", connection, handshake)
	}
	l.Start()
}

// TestDoctorExaminesAsTheDaemonsUser: what root can read proves nothing.
func TestDoctorExaminesAsTheDaemonsUser(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	l.Start()
	fixture.Must(t, os.Chmod(h.Path("pki", "lab-01.key"), 0o600))
	found := doctorFindings(t, 1, h.Run("doctor", "--json"))
	wantFailed(t, found, "the daemon cannot read it", "files")
	for _, f := range found {
		if f.Check == "user" && !strings.Contains(f.Fact, "4242") {
			t.Errorf("got %+v", f)
		}
	}
	l.ShareKey(h.Path("pki", "lab-01.key"))
	wantFailed(t, doctorFindings(t, 0, h.Run("doctor", "--json")), "")
	fixture.Must(t, os.Chmod(l.Path("pki", "server.key"), 0o600))
	wantFailed(t, doctorFindings(t, 1, l.Receiver("--config", l.Path("receiver.toml"), "doctor", "--json")), "the daemon cannot read it", "files")
	l.ShareKey(l.Path("pki", "server.key"))
	checkOwners(t, l, h)
}

// TestReceiverDoctorLooksAtWhatIsServed: a certificate that was renewed and not loaded, a port
// without a receiver, a torn index.
func TestReceiverDoctorLooksAtWhatIsServed(t *testing.T) {
	t.Parallel()
	l, _ := newLab(t, labtest.Unstarted())
	free, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	l.Set("listen", fmt.Sprintf("%q", free.Addr()))
	free.Close()
	examine := func(code int) []finding {
		t.Helper()
		return doctorFindings(t, code, l.Receiver("--config", l.Path("receiver.toml"), "doctor", "--json"))
	}
	l.Start()
	found := examine(0)
	for check := range strings.SplitSeq("configuration,files,folders,kernel,space,daemon,address,listening,certificate,CA,identity,hosts,storage", ",") {
		if got := verdictOf(found, check); got != "ok" {
			t.Errorf("%s of a healthy receiver: got %q", check, got)
		}
	}
	l.Receiver("pki", "renew", "--dir", l.Path("pki")).MustExit(t, 0)
	if got := verdictOf(examine(0), "listening"); got != "warning" {
		t.Errorf("with a renewed certificate: %q", got)
	}
	l.Stop()
	found = examine(0)
	if got := verdictOf(found, "daemon") + " " + verdictOf(found, "listening"); got != "warning skipped" {
		t.Errorf("without a receiver: %s", got)
	}
	fixture.WriteFile(t, l.Path("data", "index.torn-20261130T120000Z"), "x")
	fixture.WriteFile(t, l.Path("data", "quarantine", "lab-01", "run-1~damaged"), "x")
	if got := verdictOf(examine(0), "storage"); got != "warning" {
		t.Errorf("with a file in quarantine: %s", got)
	}
	fixture.Must(t, os.RemoveAll(l.Path("data", "quarantine")))
	fixture.Must(t, os.Remove(l.Path("data", "index.torn-20261130T120000Z")))
	fixture.WriteFile(t, l.Path("data", "disabled-hosts.json"), "{")
	found = examine(1)
	if got := verdictOf(found, "hosts"); got != "failed" {
		t.Errorf("with a broken list: %+v", found)
	}
	fixture.Must(t, os.Remove(l.Path("data", "disabled-hosts.json")))
}

// TestBundlesHaveNoSecrets: neither the keys, nor the tokens, nor what an operator wrote into a
// configuration.
func TestBundlesHaveNoSecrets(t *testing.T) {
	t.Parallel()
	const token = "MARKER-of-a-token"
	l, h := newLab(t, labtest.Unstarted(), labtest.Set("auth.tokens_file", `"tokens"`))
	writeTokens(t, l, token)
	fixture.WriteFile(t, h.Path("token"), token+"\n")
	fixture.Must(t, os.Chmod(h.Path("token"), 0o600))
	h.Set("receiver.token_file", `"token"`)
	l.Start()
	const comment = "\n# the former one was https://admin:MARKER@old.lab/?key=MARKER\n# password = \"MARKER\"\n"
	var secrets []string
	for path := range strings.SplitSeq(l.Path("pki", "*.key")+" "+h.Path("pki", "*.key"), " ") {
		keys, err := filepath.Glob(path)
		fixture.Must(t, err)
		for _, key := range keys {
			secrets = append(secrets, strings.Split(fixture.ReadFile(t, key), "\n")[1])
		}
	}
	secrets = append(secrets, "MARKER", "PRIVATE KEY")
	fixture.WriteFile(t, h.Path("lab-host.toml"), fixture.ReadFile(t, h.Path("lab-host.toml"))+comment)
	fixture.WriteFile(t, l.Path("receiver.toml"), fixture.ReadFile(t, l.Path("receiver.toml"))+comment)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	h.Run("doctor", "--bundle", h.Path("b.tar.gz")).MustExit(t, 0)
	l.Receiver("--config", l.Path("receiver.toml"), "doctor", "--bundle", l.Path("b.tar.gz")).MustExit(t, 0)
	if len(secrets) < 5 {
		t.Fatalf("found %d secrets only", len(secrets))
	}
	for _, path := range []string{h.Path("b.tar.gz"), l.Path("b.tar.gz")} {
		members := bundleMembers(t, path)
		for name, text := range members {
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s has %q: %q", name, secret, text)
				}
			}
		}
		if len(members) < 9 {
			t.Errorf("%s has %d members", path, len(members))
		}
	}
}

// bundleMembers returns the members of a bundle.
func bundleMembers(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	fixture.Must(t, err)
	defer f.Close()
	gz, err := gzip.NewReader(f)
	fixture.Must(t, err)
	members := map[string]string{}
	for r := tar.NewReader(gz); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		fixture.Must(t, err)
		text, err := io.ReadAll(r)
		fixture.Must(t, err)
		members[header.Name] = string(text)
	}
}
