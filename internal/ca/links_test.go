package ca_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
)

// TestRootFollowsNoLinkOfAnother: root leaves keys and certificates in the directories
// that its commands name, and replaces files there.
func TestRootFollowsNoLinkOfAnother(t *testing.T) {
	fixture.RequireRoot(t)
	base := t.TempDir()
	dir, victim, link := filepath.Join(base, "pki"), filepath.Join(base, "victim"), filepath.Join(base, "link")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(ca.Init(dir, ca.InitOptions{Names: []string{"127.0.0.1"}}))
	check(os.Mkdir(victim, 0o755))
	check(os.Symlink(victim, link))
	check(os.Lchown(link, 4242, 4242))
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "is a link of uid 4242 to a directory of root") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for _, out := range []string{link, filepath.Join(link, "new")} {
		_, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{Valid: time.Hour})
		refused("issue", err)
	}
	refused("init", ca.Init(link, ca.InitOptions{Names: []string{"127.0.0.1"}}))
	if left, err := os.ReadDir(victim); err != nil || len(left) > 0 {
		t.Errorf("where the link leads: %v, %v", left, err)
	}
	// An operator's own link leads on.
	check(os.Lchown(link, 0, 0))
	_, err := ca.IssueHost(dir, "lab-01", link, ca.IssueOptions{Valid: time.Hour})
	check(err)
}
