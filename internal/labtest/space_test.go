package labtest_test

import (
	"os"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// TestFileSystemThatReportsNoSizeIsNotFull: ramfs reports 0 blocks, as some FUSE and overlay
// file systems do. Once both daemons considered it full, and nothing was shipped.
func TestFileSystemThatReportsNoSizeIsNotFull(t *testing.T) {
	t.Parallel()
	fixture.RequireRoot(t)
	l := labtest.New(t, labtest.Unstarted())
	h := l.Host("lab-01")
	for _, path := range []string{l.Path("data"), h.Path("data")} {
		fixture.Must(t, os.MkdirAll(path, 0o755))
		if err := syscall.Mount("none", path, "ramfs", 0, ""); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
	}
	l.Start()
	mustContain(t, "the receiver", l.Process().WaitLine(t, "free space is not known"), "WARN", l.Path("data"), "min_free has no effect")
	d := h.Daemon()
	d.WaitLine(t, "free space is not known")
	h.Episode("run-1")
	h.WaitShipped("run-1")
	h.WaitEmpty()
	mustContain(t, "receiver check", l.Receiver("check", "--config", l.Path("receiver.toml")).MustExit(t, 0).Stdout, "the file system does not say")
	mustContain(t, "receiver status", l.Receiver("status", "--config", l.Path("receiver.toml")).MustExit(t, 0).Stdout, "an unknown amount is free")
	mustContain(t, "shipper check", h.Run("check").MustExit(t, 0).Stdout, "the file system does not say")
	mustContain(t, "ping", h.Run("--ping").MustExit(t, 0).Stdout, "an unknown amount is available")
	d.Stop(t)
	l.Check(t)
}

// TestCheckOfRootSpeaksForTheServiceUser: root can write everywhere, the daemons cannot. The
// check creates nothing and changes no mode.
func TestCheckOfRootSpeaksForTheServiceUser(t *testing.T) {
	t.Parallel()
	l, h := newServiceLab(t)
	chownToService(l, h)
	check := func(code int) (receiver, shipper labtest.Result) {
		t.Helper()
		return l.Receiver("check", "--config", l.Path("receiver.toml")).MustExit(t, code), h.Run("check").MustExit(t, code)
	}
	r, s := check(0)
	mustContain(t, "receiver check", r.Stdout, "writable (4242:4242, mode 0750)", "readable for uid 4242")
	mustContain(t, "shipper check", s.Stdout, "writable (4242:4242, mode 0750)")
	for _, dir := range []string{l.Path("data"), h.Outbox()} {
		fixture.Must(t, os.Chmod(dir, 0o550))
	}
	r, s = check(2)
	mustContain(t, "receiver check", r.Stderr, "write in "+l.Path("data")+": permission denied", "runs as uid 4242: run chmod u+rwX "+l.Path("data"))
	mustContain(t, "shipper check", s.Stderr, "write in "+h.Outbox()+": permission denied", "run chmod u+rwX "+h.Outbox())
	if names, err := os.ReadDir(h.Outbox()); err != nil || len(names) != 0 {
		t.Errorf("the outbox has %v, %v", names, err)
	}
}
