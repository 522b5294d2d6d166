package labtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// TestTmpfilesLeadTheServiceUserNowhere: systemd-tmpfiles, as root, makes our folders below one
// of the service user's, who continuously exchanges one of them for a link to a folder of
// root's.
func TestTmpfilesLeadTheServiceUserNowhere(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-tmpfiles"); err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test must not be skipped under CI: it needs root and systemd-tmpfiles")
		}
		t.Skip("needs root and systemd-tmpfiles")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "lab.conf")
	writeTmpfiles(t, conf, filepath.Join(dir, "lib"))
	create := func() ([]byte, error) {
		return exec.Command("systemd-tmpfiles", "--create", conf).CombinedOutput()
	}
	if out, err := create(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	episodes := filepath.Join(dir, "lib", "data", "episodes")
	if got := modeAndGroup(t, episodes); got != "2770 4242:4243" {
		t.Fatalf("episodes is %s", got)
	}
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "lib", "data", "link")
	mkdirAs(t, victim, 0o700, 0, 0)
	fixture.Must(t, os.Symlink(victim, link))
	fixture.Must(t, os.Lchown(link, serviceUID, serviceUID))
	attack := startExchange(t, episodes, link, nil)
	for range 50 {
		create() // it may refuse
		if got := modeAndGroup(t, victim); got != "0700 0:0" {
			t.Errorf("root's directory became %s", got)
			break
		}
	}
	attack.stopAndWait()
	if out, err := exec.Command("getfacl", "-cp", victim).Output(); err == nil && strings.Contains(string(out), "4242") {
		t.Errorf("root's directory has the ACL\n%s", out)
	}
}

// writeTmpfiles writes the lines of a lab host with another folder instead of /var/lib/cis490,
// and with numeric users.
func writeTmpfiles(t *testing.T, conf, lib string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "etc", "cis490-shipper.tmpfiles"))
	fixture.Must(t, err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1]+"/", "/var/lib/cis490/") {
			line = strings.ReplaceAll(line, "/var/lib/cis490", lib)
			line = strings.ReplaceAll(line, " cis490-lab", " 4243")
			line = strings.NewReplacer(" cis490 ", " 4242 ", "user:cis490:", "user:4242:").Replace(line)
			lines = append(lines, line)
		}
	}
	if len(lines) < 5 {
		t.Fatalf("found %q", lines)
	}
	fixture.Must(t, os.WriteFile(conf, []byte(strings.Join(lines, "")), 0o600))
}
