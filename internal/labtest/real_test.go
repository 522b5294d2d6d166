package labtest_test

import (
	"bufio"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// TestRealRecordingIsDeliveredWhole ships what a lab really leaves: thousands of real files and
// binaries of any size, including links, and telemetry.
func TestRealRecordingIsDeliveredWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred megabytes")
	}
	t.Parallel()
	l, h := newLab(t)
	h.Episode("small") // is not kept waiting by the others
	dir := h.Draft("real", labtest.File{Name: "meta.json", Body: `{"code_version":{"commit":"` + labtest.Commit + `"}}`})
	out, err := exec.Command("go", "env", "GOROOT").Output()
	fixture.Must(t, err)
	goroot := strings.TrimSpace(string(out))
	copyTree(t, filepath.Join(goroot, "src/cmd"), filepath.Join(dir, "src"))
	copyTree(t, filepath.Join(goroot, "bin"), filepath.Join(dir, "bin"))
	writeTelemetry(t, filepath.Join(dir, "telemetry.jsonl"), 24<<20)
	fixture.Must(t, os.Symlink("../../../../etc/passwd", filepath.Join(dir, "out-of-the-tree")))
	h.Finish("real")
	files, size := measureTree(t, dir)
	if size < 50<<20 {
		t.Logf("only %d MiB: is this a whole Go installation?", size>>20)
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	l.Settled(t) // unpacks with the system's tools and compares
	row := l.RowOf(t, "lab-01", "real")
	if row.Commit != labtest.Commit {
		t.Errorf("the row has the commit %q", row.Commit)
	}
	l.Receiver("index", "verify", "--deep", "--config", l.Path("receiver.toml")).MustExit(t, 0)
	t.Logf("%d files, %d MiB, as %d MiB", files, size>>20, row.Size>>20)
}

// writeTelemetry writes lines as a hypervisor's tracer does.
func writeTelemetry(t *testing.T, path string, size int) {
	t.Helper()
	f, err := os.Create(path)
	fixture.Must(t, err)
	w := bufio.NewWriterSize(f, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	calls := []string{"NtCreateFile", "NtOpenKey", "NtWriteFile", "openat", "mmap", "connect", "execve"}
	for written := 0; written < size; {
		n, _ := fmt.Fprintf(w, `{"ts":%d,"vm":"win10-%02d","pid":%d,"call":%q,"path":"C:\\Windows\\%06x.dat","ret":"0x%08x"}`+"\n",
			written, random.IntN(4), random.IntN(5000), calls[random.IntN(len(calls))], random.IntN(1<<12), random.Uint32()&0xf)
		written += n
	}
	fixture.Must(t, w.Flush())
	fixture.Must(t, f.Close())
}

func measureTree(t *testing.T, dir string) (files int, size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			files++
			size += info.Size()
		}
		return err
	})
	fixture.Must(t, err)
	return files, size
}
