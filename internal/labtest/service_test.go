package labtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// serviceUID is a user without a name.
const serviceUID = 4242

// newServiceLab returns a lab whose daemons run as a different user than its commands.
func newServiceLab(t *testing.T, options ...labtest.Option) (*labtest.Lab, *labtest.Host) {
	t.Helper()
	fixture.RequireRoot(t)
	l := labtest.New(t, append(options, labtest.Service(serviceUID), labtest.Unstarted())...)
	l.ShareKey(l.Path("pki", "server.key"))
	h := l.Host("lab-01")
	l.ShareKey(h.Path("pki", "lab-01.key"))
	h.Set("scan_interval", `"1s"`)
	return l, h
}

// chownToService gives the folders to the service's user, as an installation does.
func chownToService(l *labtest.Lab, h *labtest.Host) {
	l.Own(l.Path("data"), h.Path("data"), h.Episodes(), h.Outbox(), h.Shipped())
	for _, dir := range []string{h.Path("data"), h.Episodes()} {
		os.Chmod(dir, 0o750)
	}
}

// makeEpisodeAsService makes an episode as the service's user would.
func makeEpisodeAsService(l *labtest.Lab, h *labtest.Host, name string, files ...labtest.File) {
	l.OwnTree(h.Draft(name, files...))
	h.Finish(name)
}

// checkOwners looks at all folders.
func checkOwners(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	t.Helper()
	l.CheckOwners(t, l.Path("data"), nil)
	for _, identity := range []string{l.Path("identity"), h.Path("identity")} {
		if fixture.Exists(identity) {
			l.CheckOwners(t, identity, nil)
		}
	}
	l.CheckOwners(t, h.Path("data"), func(rel string) bool { // the content of an episode belongs to the experiments
		return strings.Count(rel, "/") == 1 && !strings.HasPrefix(rel, "outbox/")
	})
}

// commandCoverage records which commands a test has run.
type commandCoverage map[string]bool

// runAsRoot runs a command of the shipper or the receiver as root under umask 077.
func (c commandCoverage) runAsRoot(t *testing.T, l *labtest.Lab, h *labtest.Host, code int, program, command string, args ...string) labtest.Result {
	t.Helper()
	c[program+" "+command] = true
	args = slices.Concat(strings.Fields(command), args)
	if program == "shipper" {
		return h.Run(args...).MustExit(t, code)
	}
	return l.Receiver(append([]string{"--config", l.Path("receiver.toml")}, args...)...).MustExit(t, code)
}

// TestEveryCommandOfRootLeavesWhatTheDaemonWould runs all commands as root under umask 077
// while the daemons of another user run, and then both daemons once more.
func TestEveryCommandOfRootLeavesWhatTheDaemonWould(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	c := commandCoverage{}
	c.runAsRoot(t, l, h, 0, "receiver", "setup", "--name", "localhost,127.0.0.1")
	l.Own(l.Path("queue"))
	l.Set("hooks.queue_dir", `"queue"`)
	l.Start()
	d := h.Daemon()
	for _, name := range []string{"run-1", "run-2", "run-3"} {
		makeEpisodeAsService(l, h, name)
		h.WaitShipped(name)
	}
	h.WaitEmpty()

	runBesideShipper(t, l, h, c)
	runBesideReceiver(t, l, h, c)
	runRotation(t, l, h, c, d)
	runWithoutState(t, l, h, c)
	for _, program := range []string{"shipper", "receiver"} {
		for _, command := range l.Commands(t, program) {
			if !c[program+" "+command] {
				t.Errorf("%s %s was not run as root: add it to this test", program, command)
			}
		}
	}
	checkOwners(t, l, h)

	d.Stop(t)
	l.Stop()
	runWithoutDaemons(t, l, h, c)
	checkOwners(t, l, h)

	l.Start()
	d = h.Daemon()
	makeEpisodeAsService(l, h, "run-last")
	h.WaitShipped("run-last")
	h.WaitEmpty()
	d.Stop(t)
	checkOwners(t, l, h)
	l.Check(t)
}

// runBesideShipper runs the shipper's commands while its daemon runs.
func runBesideShipper(t *testing.T, l *labtest.Lab, h *labtest.Host, c commandCoverage) {
	t.Helper()
	c.runAsRoot(t, l, h, 0, "shipper", "", "--ping")
	c.runAsRoot(t, l, h, 5, "shipper", "", "--once")
	c.runAsRoot(t, l, h, 0, "shipper", "check")
	c.runAsRoot(t, l, h, 0, "shipper", "check", "--reload")
	c.runAsRoot(t, l, h, 0, "shipper", "doctor", "--bundle", h.Path("report.tar.gz"))
	c.runAsRoot(t, l, h, 0, "shipper", "status")
	c.runAsRoot(t, l, h, 0, "shipper", "held")
	c.runAsRoot(t, l, h, 0, "shipper", "verify")
	c.runAsRoot(t, l, h, 0, "shipper", "verify", "--heal")
	c.runAsRoot(t, l, h, 0, "shipper", "resend", "run-2")
	h.WaitShipped("run-2")
	h.WaitEmpty()
	h.Forget("run-1")
	c.runAsRoot(t, l, h, 0, "shipper", "verify")
	labtest.Eventually(t, "run-1 is pruned", func() bool { // not while it is young
		c.runAsRoot(t, l, h, 0, "shipper", "prune", "--max-age", "1ns", "--most", "1")
		return !h.IsShipped("run-1")
	})

	// The receiver has another run-4, so that the host's is held.
	makeEpisodeAsService(l, h, "run-4")
	h.WaitShipped("run-4")
	h.WaitEmpty()
	fixture.Must(t, os.RemoveAll(h.Shipped("run-4")))
	h.Forget("run-4")
	makeEpisodeAsService(l, h, "run-4", labtest.File{Name: "meta.json", Body: "{}"})
	labtest.Eventually(t, "run-4 is held", func() bool { return fixture.Exists(h.Outbox("run-4.held")) })
	c.runAsRoot(t, l, h, 3, "shipper", "held")
	c.runAsRoot(t, l, h, 0, "shipper", "retry", "run-4")
	labtest.Eventually(t, "run-4 is held again", func() bool { return fixture.Exists(h.Outbox("run-4.held")) })
	c.runAsRoot(t, l, h, 0, "shipper", "retry", "--beside", "run-4")
	labtest.Eventually(t, "run-4 is shipped beside", func() bool {
		found, _ := filepath.Glob(h.Shipped("run-4.conflict-*"))
		return len(found) == 1
	})
	h.WaitEmpty()
	h.Forget("run-4")
	found, _ := filepath.Glob(h.Shipped("run-4.conflict-*"))
	h.Note(filepath.Base(found[0]), found[0])

	// The daemon, whose certificate ends with that, loads the new one.
	invited := c.runAsRoot(t, l, h, 0, "receiver", "invite", h.Name, "--again", "--url", "https://"+l.Proxy.Addr())
	words := strings.Fields(invited.Stdout)
	c.runAsRoot(t, l, h, 0, "shipper", "join", words[len(words)-1])
	makeEpisodeAsService(l, h, "run-6")
	h.WaitShipped("run-6")
	h.WaitEmpty()
}

// runBesideReceiver runs the receiver's commands while its daemon runs.
func runBesideReceiver(t *testing.T, l *labtest.Lab, h *labtest.Host, c commandCoverage) {
	t.Helper()
	c.runAsRoot(t, l, h, 0, "receiver", "check")
	c.runAsRoot(t, l, h, 0, "receiver", "check", "--reload")
	c.runAsRoot(t, l, h, 0, "receiver", "doctor", "--bundle", l.Path("report.tar.gz"))
	c.runAsRoot(t, l, h, 0, "receiver", "status")
	c.runAsRoot(t, l, h, 0, "receiver", "hosts disable", "lab-09")
	c.runAsRoot(t, l, h, 0, "receiver", "hosts")
	c.runAsRoot(t, l, h, 0, "receiver", "hosts enable", "lab-09")
	c.runAsRoot(t, l, h, 0, "receiver", "hosts remove", "lab-09")
	c.runAsRoot(t, l, h, 0, "receiver", "hooks test")
	c.runAsRoot(t, l, h, 0, "receiver", "hooks list")
	c.runAsRoot(t, l, h, 2, "receiver", "hooks run", l.Path("queue"), "--", "/bin/true") // not as root
	l.CheckOwners(t, l.Path("queue"), nil)
	c.runAsRoot(t, l, h, 0, "receiver", "store")
	c.runAsRoot(t, l, h, 0, "receiver", "store replaces", "OLD1")
	c.runAsRoot(t, l, h, 0, "receiver", "store replaces", "--rewound")
	c.runAsRoot(t, l, h, 2, "receiver", "store copy", "--to", "s3", "--new-config", l.Path("receiver.toml")) // that is a disk; see fleettest
	c.runAsRoot(t, l, h, 0, "receiver", "scrub", "--rate", "0")
	c.runAsRoot(t, l, h, 0, "receiver", "index backfill")
	c.runAsRoot(t, l, h, 0, "receiver", "index verify", "--deep")
	c.runAsRoot(t, l, h, 2, "receiver", "index export") // this store is on a disk; see fleettest
	c.runAsRoot(t, l, h, 2, "receiver", "probe")
	pki := l.Path("pki")
	c.runAsRoot(t, l, h, 0, "receiver", "pki issue", "lab-09", "--dir", pki, "--out", l.Path("lab-09"))
	c.runAsRoot(t, l, h, 0, "receiver", "pki revoke", "lab-09", "--dir", pki)
	c.runAsRoot(t, l, h, 0, "receiver", "pki renew", "--dir", pki)
	c.runAsRoot(t, l, h, 0, "receiver", "pki list", "--dir", pki)
	c.runAsRoot(t, l, h, 0, "receiver", "pki init", "--dir", l.Path("other-pki"), "--name", "localhost")
	l.Process().Signal(t, syscall.SIGHUP)
	line := l.Process().WaitLine(t, "reloaded certificates and lists")
	mustContain(t, "the reload", line, pki+"/hosts.crl", pki+"/server.crt", "receiver.toml (read at start only)")
}

// runRotation replaces the CAs. The host got its certificate by hand.
func runRotation(t *testing.T, l *labtest.Lab, h *labtest.Host, c commandCoverage, daemon *labtest.Process) {
	t.Helper()
	denied := exec.Command("setpriv", fmt.Sprint("--reuid=", serviceUID), fmt.Sprint("--regid=", serviceUID), "--clear-groups", l.Program("receiver"), "--config", l.Path("receiver.toml"), "pki", "rotate")
	if out, err := denied.CombinedOutput(); err == nil || !strings.Contains(string(out), "run this command as that user") || strings.Contains(string(out), "chgrp") {
		t.Errorf("the service's user rotates the CAs: %v, %s", err, out)
	}
	c.runAsRoot(t, l, h, 0, "receiver", "pki rotate")
	reload(t, l.Process())
	c.runAsRoot(t, l, h, 0, "receiver", "pki issue", "lab-01", "--dir", l.Path("pki"), "--out", h.Path("pki"), "--force")
	reload(t, daemon)
	labtest.Eventually(t, "the host is ready", func() bool {
		return strings.Contains(c.runAsRoot(t, l, h, 0, "receiver", "hosts").Stdout, "1 of 1 active hosts are ready")
	})
	c.runAsRoot(t, l, h, 0, "receiver", "pki rotate", "--finish")
	reload(t, l.Process())
	reload(t, daemon)
}

// runWithoutState runs the commands that do not use a configuration.
func runWithoutState(t *testing.T, l *labtest.Lab, h *labtest.Host, c commandCoverage) {
	t.Helper()
	for _, program := range []string{"shipper", "receiver"} {
		c.runAsRoot(t, l, h, 0, program, "version")
		c.runAsRoot(t, l, h, 0, program, "help")
		for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
			c.runAsRoot(t, l, h, 0, program, "completion "+shell)
		}
		for _, what := range []string{"man", "completion"} { // hidden
			dir := l.Path("generated", program, what)
			c.runAsRoot(t, l, h, 0, program, "generate "+what, dir)
			files, err := os.ReadDir(dir)
			if err != nil || len(files) == 0 {
				t.Fatalf("%s generate %s: %d files, %v", program, what, len(files), err)
			}
			for _, f := range files {
				if info, err := f.Info(); err != nil || info.Mode() != 0o644 {
					t.Errorf("%s generate %s: %s has mode %v, %v", program, what, f.Name(), info.Mode(), err)
				}
			}
		}
	}
}

// runWithoutDaemons runs commands that need the locks, or create what a daemon would create.
func runWithoutDaemons(t *testing.T, l *labtest.Lab, h *labtest.Host, c commandCoverage) {
	t.Helper()
	for _, pattern := range []string{h.Outbox(".*"), l.Path("data", ".*")} {
		found, err := filepath.Glob(pattern)
		fixture.Must(t, err)
		for _, path := range found {
			fixture.Must(t, os.RemoveAll(path))
		}
	}
	damageFile(t, l.Archive("lab-01", "run-2"))
	c.runAsRoot(t, l, h, 1, "receiver", "scrub", "--rate", "0", "--set-aside")
	fixture.Must(t, os.Remove(l.Path("data", "index.jsonl")))
	c.runAsRoot(t, l, h, 0, "receiver", "index backfill")

	l.ByHand(true)
	l.Start()
	c.runAsRoot(t, l, h, 0, "shipper", "", "--once")
	c.runAsRoot(t, l, h, 1, "shipper", "verify", "--heal") // run-2 is sent again
	d := h.Daemon()
	h.WaitShipped("run-2")
	makeEpisodeAsService(l, h, "run-5")
	h.WaitShipped("run-5")
	h.WaitEmpty()
	d.Stop(t)
	l.Stop()
	l.ByHand(false)
}

// damageFile changes a byte of a file and keeps its times.
func damageFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	fixture.Must(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff, 0xff}, 30); err != nil {
		t.Fatal(err)
	}
}

// TestAcceptedAsRoot: the daemon can read what "retry --accept" writes.
func TestAcceptedAsRoot(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	l.Start()
	makeEpisodeAsService(l, h, "run-1")
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Run("--once").MustExit(t, 4)
	l.Proxy.Always(labtest.Fault{})
	h.Change("run-1", func(dir string) { fixture.WriteFile(t, filepath.Join(dir, "new"), "late") })
	h.Run("--once").MustExit(t, 3)
	h.Run("retry", "--accept", "run-1").MustExit(t, 0)
	checkOwners(t, l, h)
	d := h.Daemon()
	h.WaitShipped("run-1")
	h.WaitEmpty()
	d.Stop(t)
	l.Settled(t)
}

// TestByHandAndThenTheService follows "Install by hand" of docs/install.md as root, and then
// runs the service as another user, in folders with files that root left.
func TestByHandAndThenTheService(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	l.ByHand(true)
	l.Start()
	d := h.Daemon()
	makeEpisodeAsService(l, h, "run-1")
	h.WaitShipped("run-1")
	h.WaitEmpty()
	d.Stop(t)
	l.Stop()
	l.ByHand(false)
	if ownerOf(t, h.Outbox()) != "0:0" || ownerOf(t, l.Path("data", "index.jsonl")) != "0:0" {
		t.Fatal("root did not stay root, where nobody else was named")
	}

	chownToService(l, h) // as the installer does: the folders without their content
	r := l.StartUnready()
	if code := r.Wait(t); code != 2 && code != 1 {
		t.Errorf("the receiver ended with %d", code)
	}
	mustContain(t, "the receiver", r.Output(), "belongs to root", fmt.Sprintf("runs as uid %d", serviceUID), "check --config "+l.Path("receiver.toml")+"' once as root")
	d = h.Launch()
	d.Wait(t)
	mustContain(t, "the shipper", d.Output(), "belongs to root", "check --config "+h.Path("lab-host.toml")+"' once as root")

	l.Receiver("check", "--config", l.Path("receiver.toml")).MustExit(t, 0)
	h.Run("check").MustExit(t, 0)
	checkOwners(t, l, h)
	l.Start()
	d = h.Daemon()
	makeEpisodeAsService(l, h, "run-2")
	h.WaitShipped("run-2")
	h.WaitEmpty()
	h.Run("verify").MustExit(t, 0)
	d.Stop(t)
	checkOwners(t, l, h)
	l.Settled(t)
}

func ownerOf(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	fixture.Must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

// TestRootDoesNotVouchForTheDaemon: root can read files that the daemon may not.
func TestRootDoesNotVouchForTheDaemon(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	l.Start()
	closeKey := func(path string) {
		fixture.Must(t, os.Chmod(path, 0o600))
	}
	closeKey(l.Path("pki", "server.key"))
	closeKey(h.Path("pki", "lab-01.key"))
	for what, r := range map[string]labtest.Result{
		"receiver check":          l.Receiver("check", "--config", l.Path("receiver.toml")),
		"receiver check --reload": l.Receiver("check", "--reload", "--config", l.Path("receiver.toml")),
		"shipper check":           h.Run("check"),
		"shipper --ping":          h.Run("--ping"),
	} {
		if r.Code == 0 {
			t.Errorf("%s says ok for a daemon that cannot read its key", what)
		}
		mustContain(t, what, r.Stderr, "the daemon cannot read it", ".key", "belongs to root (mode 0600)", "chgrp", "chmod 0640")
	}
	// Other commands read it as root, and succeed.
	h.Run("verify").MustExit(t, 0)
	// A reload says why it failed.
	l.Process().Signal(t, syscall.SIGHUP)
	line := l.Process().WaitLine(t, "certificates and lists not reloaded")
	mustContain(t, "the reload", line, "ERROR", "server.key", "belongs to root", "chmod 0640")
}

// TestRevokedUnderAnyUmask: the receiver can read the list that root writes.
func TestRevokedUnderAnyUmask(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	l.Start()
	l.Receiver("pki", "revoke", "lab-01", "--dir", l.Path("pki")).MustExit(t, 0)
	l.Receiver("pki", "renew", "--dir", l.Path("pki")).MustExit(t, 0)
	l.Process().Signal(t, syscall.SIGHUP)
	l.Process().WaitLine(t, "reloaded certificates and lists")
	h.Run("--ping").MustExit(t, 4)
	l.Restart()
}
