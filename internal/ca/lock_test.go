package ca_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/ca"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

// Of two revocations at once, one would be lost.
func TestOneChangeAtATime(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{})
	held, err := os.OpenFile(filepath.Join(dir, ".pki.lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	for name, err := range changeCA(dir) {
		if err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s beside another command: got %v; want it refused", name, err)
		}
	}
}

// TestFlockOfTheDirectoryBlocksNoProcess: every user who may open a directory can lock it.
func TestFlockOfTheDirectoryBlocksNoProcess(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{})
	held, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for name, err := range changeCA(dir) {
		if err != nil {
			t.Errorf("%s beside a lock on the directory: %v", name, err)
		}
	}
}

// changeCA revokes, issues and renews, and returns the error of each.
func changeCA(dir string) map[string]error {
	_, revoke := revocation.RevokeHost(dir, "lab-01", time.Now())
	out := filepath.Join(dir, "lab-02")
	_, issue := ca.IssueHost(dir, "lab-02", out, ca.IssueOptions{})
	_, renew := ca.RenewServer(dir, ca.RenewOptions{})
	return map[string]error{"revoke": revoke, "issue": issue, "renew": renew}
}
