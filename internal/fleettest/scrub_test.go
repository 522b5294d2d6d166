package fleettest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// flipByte changes a byte of the only archive of an episode, as a disk of the engine does.
func (f *fleet) flipByte(t *testing.T, h *labtest.Host, name string) {
	t.Helper()
	stored, err := filepath.Glob(filepath.Join(f.engine.dir, bucketName, "episodes", h.Name, name, "*.tar.zst"))
	fixture.Must(t, err)
	if len(stored) != 1 {
		t.Fatalf("%s/%s: got the objects %q, want one", h.Name, name, stored)
	}
	content, err := os.ReadFile(stored[0])
	fixture.Must(t, err)
	content[len(content)/2] ^= 1
	file, err := os.OpenFile(stored[0], os.O_WRONLY, 0) // the ETag is an attribute of the file
	fixture.Must(t, err)
	_, err = file.Write(content)
	fixture.Must(t, err)
	fixture.Must(t, file.Close())
}

// A byte that the engine lost is found by the scrub, or by the host, and the host sends the archive again.
func TestDamageIsFoundAndRepaired(t *testing.T) {
	requireFleet(t)
	if *endpoint != "" {
		t.Skip("it changes the files of versitygw")
	}
	f := newFleet(t, 2)
	h := f.lab.Host("host-1")
	for _, name := range []string{"run-0", "run-1", "run-2"} {
		h.Episode(name)
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	receiver := func(n int, args ...string) labtest.Result {
		return f.receivers[n].Receiver(append([]string{"--config", f.receivers[n].Path("receiver.toml")}, args...)...)
	}
	receiver(0, "scrub").MustExit(t, 0)
	if got := h.Run("verify", "--all"); got.Code != 0 || strings.Count(got.Stdout, "verified") < 3 {
		t.Errorf("verify after a scrub: exit code %d: %s%s", got.Code, got.Stdout, got.Stderr)
	}

	f.flipByte(t, h, "run-0")
	f.flipByte(t, h, "run-1")
	if got := receiver(1, "scrub", "--quarantine", "--host", "host-1"); got.Code != 1 || strings.Count(got.Stdout, "damaged, quarantined\thost-1/run-") != 2 {
		t.Errorf("scrub: exit code %d, want 1 and two archives set aside: %s%s", got.Code, got.Stdout, got.Stderr)
	}
	f.flipByte(t, h, "run-2") // its host finds it
	if got := h.Run("verify", "--all"); got.Code == 0 {
		t.Errorf("verify of damaged archives: exit code 0: %s", got.Stdout)
	}
	healed := h.Run("verify", "--all", "--heal")
	t.Log(healed.Stdout, healed.Stderr)
	h.Once()
	if got := h.Run("verify", "--all"); got.Code != 0 {
		t.Errorf("verify after the repair: exit code %d: %s%s", got.Code, got.Stdout, got.Stderr)
	}
	rows := receiver(0, "index", "export").MustExit(t, 0).Stdout
	if got := strings.Count(rows, `"repaired": true`); got != 3 || strings.Count(rows, "\n") != 6 {
		t.Errorf("got %d rows with repaired, want 3 of 6: %s", got, rows)
	}
	second, err := filepath.Glob(filepath.Join(f.engine.dir, bucketName, "episodes", "host-1", "run-*", "*.2.tar.zst"))
	fixture.Must(t, err)
	if len(second) != 3 {
		t.Errorf("second generations: got %q, want 3", second)
	}
	if got := receiver(0, "scrub", "--json"); got.Code != 0 {
		t.Errorf("scrub after the repair: exit code %d: %s%s", got.Code, got.Stdout, got.Stderr)
	}
}
