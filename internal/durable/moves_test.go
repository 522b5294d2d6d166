package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// openPair opens two sibling directories.
func openPair(tb testing.TB) (from, to *durable.Dir, at string) {
	tb.Helper()
	at = tb.TempDir()
	fixture.Must(tb, errors.Join(os.Mkdir(filepath.Join(at, "from"), 0o755), os.Mkdir(filepath.Join(at, "to"), 0o755)))
	return openAt(tb, filepath.Join(at, "from")), openAt(tb, filepath.Join(at, "to")), at
}

// bindMount mounts a directory on itself.
func bindMount(tb testing.TB, path string) {
	tb.Helper()
	fixture.RequireMount(tb, syscall.Mount(path, path, "", syscall.MS_BIND, ""))
	tb.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
}

// probes are all ways to test whether something can be moved.
var probes = map[string]func(from, to *durable.Dir) error{
	"check":     (*durable.Dir).CheckMove,
	"try":       (*durable.Dir).TryMove,
	"try links": (*durable.Dir).TryLink,
}

func TestProbesOfMovesLeaveNothing(t *testing.T) {
	for what, probe := range probes {
		from, to, at := openPair(t)
		for range 2 {
			fixture.Must(t, probe(from, to))
			fixture.Must(t, probe(from, from))
		}
		wantEntries(t, filepath.Join(at, "from"))
		wantEntries(t, filepath.Join(at, "to"))
		t.Log(what)
	}
}

// TestTwoMountsOfOneFileSystemAreSeparate, although they have one device number.
func TestTwoMountsOfOneFileSystemAreSeparate(t *testing.T) {
	for what, probe := range probes {
		_, from, at := openPair(t)
		bindMount(t, filepath.Join(at, "to"))
		to := openAt(t, filepath.Join(at, "to"))
		a, err := from.Device()
		fixture.Must(t, err)
		b, err := to.Device()
		fixture.Must(t, err)
		if a != b {
			t.Fatal("they have two device numbers, which is not what is tested")
		}
		err = probe(from, to)
		if separate, ok := errors.AsType[*durable.SeparateError](err); !ok || separate.To != filepath.Join(at, "to") {
			t.Errorf("%s: got %v", what, err)
		}
		wantEntries(t, filepath.Join(at, "to"))
	}
}

func TestWhatAKilledProbeLeftIsTakenAway(t *testing.T) {
	for what, probe := range probes {
		from, to, at := openPair(t)
		switch what {
		case "try":
			fixture.Must(t, errors.Join(os.Mkdir(filepath.Join(at, "from", ".cis490-probe.from"), 0o700), os.Mkdir(filepath.Join(at, "to", ".cis490-probe.to"), 0o700)))
		case "try links":
			writeFile(t, filepath.Join(at, "from", ".cis490-probe.link-from"), "")
			writeFile(t, filepath.Join(at, "to", ".cis490-probe.link-to"), "")
		}
		fixture.Must(t, probe(from, to))
		wantEntries(t, filepath.Join(at, "from"))
		wantEntries(t, filepath.Join(at, "to"))
	}
}

// TestProbesDestroyNothing: others can write in the first directory.
func TestProbesDestroyNothing(t *testing.T) {
	for _, probe := range probes {
		from, to, at := openPair(t)
		writeFile(t, filepath.Join(at, "from", ".cis490-probe.from"), "precious")
		writeFile(t, filepath.Join(at, "from", ".cis490-probe.link-from"), "precious")
		fixture.Must(t, os.MkdirAll(filepath.Join(at, "to", ".cis490-probe.to", "precious"), 0o700))
		fixture.Must(t, probe(from, to)) // no result, because it could not be tried
		if got := fixture.ReadFile(t, filepath.Join(at, "from", ".cis490-probe.link-from")); got != "precious" {
			t.Errorf("the file says %q", got)
		}
		if got := fixture.ReadFile(t, filepath.Join(at, "from", ".cis490-probe.from")); got != "precious" {
			t.Errorf("the file says %q", got)
		}
		wantEntries(t, filepath.Join(at, "to", ".cis490-probe.to"), "precious")
	}
}

// TestWhatIsExchangedForAProbeIsKept: a directory with content replaces the empty one.
func TestWhatIsExchangedForAProbeIsKept(t *testing.T) {
	from, to, at := openPair(t)
	probe := filepath.Join(at, "from", ".cis490-probe.from")
	stop, ended := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				ended <- n
				return
			default:
			}
			evil := filepath.Join(at, "from", "evil")
			os.MkdirAll(filepath.Join(evil, "precious"), 0o700)
			if exchangePaths(evil, probe) == nil {
				n++
				exchangePaths(evil, probe)
			}
		}
	}()
	for range 3000 {
		fixture.Must(t, from.TryMove(to))
	}
	close(stop)
	t.Logf("exchanged %d times", <-ended)
	found := 0
	for _, place := range []string{"from/evil", "from/.cis490-probe.from", "to/.cis490-probe.to"} {
		if _, err := os.Stat(filepath.Join(at, place, "precious")); err == nil {
			found++
		}
	}
	if found == 0 {
		t.Error("the directory is gone")
	}
}

// TestProbeThatMayNotChangeADirectoryIsNoAlarm: episodes/ may belong to another user.
func TestProbeThatMayNotChangeADirectoryIsNoAlarm(t *testing.T) {
	fixture.RequireRoot(t)
	from, to, at := openPair(t)
	fixture.Must(t, errors.Join(os.Chmod(at, 0o755), os.Chmod(filepath.Dir(at), 0o755)))
	said := callAsOther(t, func() (string, error) {
		return "", errors.Join(from.TryMove(to), from.TryLink(to), from.CheckMove(to))
	})
	if said != "" {
		t.Errorf("got the errors %q, want none", said)
	}
}

// TestFullDiskPutsAProbeOff: ENOSPC says nothing about the directories.
func TestFullDiskPutsAProbeOff(t *testing.T) {
	at := fixture.MountTmpfs(t, "size=1m,nr_inodes=4")
	fixture.Must(t, errors.Join(os.Mkdir(filepath.Join(at, "from"), 0o755), os.Mkdir(filepath.Join(at, "to"), 0o755), os.Mkdir(filepath.Join(at, "last"), 0o755)))
	from, to := openAt(t, filepath.Join(at, "from")), openAt(t, filepath.Join(at, "to"))
	if err := os.Mkdir(filepath.Join(at, "more"), 0o755); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	for what, probe := range probes {
		if err := probe(from, to); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
