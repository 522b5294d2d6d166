package fleettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// Real shippers ship through whichever receiver there is, and each receiver has the index.
func TestShippersCannotTellTheDifference(t *testing.T) {
	requireFleet(t)
	if *endpoint != "" {
		t.Skip("it looks into the files of versitygw")
	}
	f := newFleet(t, 2)
	one, other := f.lab.Host("host-1"), f.lab.Host("host-2")
	for i := range 3 {
		one.Episode(fmt.Sprintf("run-%d", i))
		other.Episode(fmt.Sprintf("run-%d", i))
	}
	one.Episode("large", labtest.File{Name: "meta.json", Body: fmt.Sprintf(`{"code_version": {"commit": %q}}`, labtest.Commit)},
		labtest.File{Name: "capture.bin", Body: string(noise(12<<20, 1))})
	one.Once().Must(t, 0, labtest.Tally{Scanned: 4, Shipped: 4})
	f.receivers[0].Stop() // the other one takes over
	other.Daemon()        // haproxy sends every second connection to the one that is gone
	other.WaitShipped("run-0", "run-1", "run-2")
	f.receivers[0].Start()

	exported := f.receivers[1].Receiver("--config", f.receivers[1].Path("receiver.toml"), "index", "export").MustExit(t, 0).Stdout
	if got := strings.Count(exported, "\n"); got != 7 {
		t.Errorf("rows: got %d, want 7: %s", got, exported)
	}
	if !strings.Contains(exported, fmt.Sprintf(`"commit": %q, "episode_id": "large"`, labtest.Commit)) {
		t.Errorf("the row of the large episode has no commit: %s", exported)
	}
	for _, r := range f.receivers {
		labtest.Eventually(t, "the receiver has a copy of the index", func() bool {
			got, err := os.ReadFile(r.Path("data", "index.jsonl"))
			return err == nil && string(got) == exported
		})
	}
	if got := one.Run("verify", "--all"); got.Code != 0 || strings.Count(got.Stdout, "verified") < 4 {
		t.Errorf("verify: exit code %d: %s%s", got.Code, got.Stdout, got.Stderr)
	}
	for _, args := range [][]string{{"index", "verify", "--deep"}, {"index", "backfill"}, {"probe"}} {
		args = append([]string{"--config", f.receivers[0].Path("receiver.toml")}, args...)
		t.Log(f.receivers[0].Receiver(args...).MustExit(t, 0).Stdout)
	}
	f.checkArchives(t, one, "run-0", "large")
	f.checkArchives(t, other, "run-2")
}

// checkArchives unpacks the archives that the engine has, and compares them with what was shipped.
func (f *fleet) checkArchives(t *testing.T, h *labtest.Host, names ...string) {
	t.Helper()
	for _, name := range names {
		stored, err := filepath.Glob(filepath.Join(f.engine.dir, bucketName, "episodes", h.Name, name, "*.tar.zst"))
		fixture.Must(t, err)
		if len(stored) != 1 {
			t.Errorf("%s/%s: got the objects %q, want one", h.Name, name, stored)
			continue
		}
		dir := t.TempDir()
		if out, err := exec.Command("tar", "--zstd", "-xf", stored[0], "-C", dir).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", stored[0], err, out)
		}
		if out, err := exec.Command("diff", "-r", filepath.Join(dir, name), h.Shipped(name)).CombinedOutput(); err != nil {
			t.Errorf("%s/%s: %v: %s", h.Name, name, err, out)
		}
	}
}
