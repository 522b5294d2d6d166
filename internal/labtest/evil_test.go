package labtest_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// What malware leaves, and what it must not achieve.

// maxMiB is the maximum memory of either program.
const maxMiB = 96

func wantSmallMemory(t *testing.T, what string, p *labtest.Process) {
	t.Helper()
	if got := peakOf(t, p.Pid()); got > maxMiB {
		t.Errorf("%s took %.0f MiB, want at most %d", what, got, maxMiB)
	}
}

// wantPrintable checks that text consists of lines of printable ASCII.
func wantPrintable(t *testing.T, what, text string) {
	t.Helper()
	for _, b := range []byte(text) {
		if b != '\n' && (b < ' ' || b > '~') {
			t.Fatalf("%s says %q", what, text)
		}
	}
}

// wantNoSecret checks that no archive of a host holds anything from outside of its episodes.
func wantNoSecret(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	t.Helper()
	stored, err := filepath.Glob(l.Path("data", "episodes", h.Name, "*"))
	if err != nil || len(stored) == 0 {
		t.Fatalf("stored: %q, %v", stored, err)
	}
	for _, path := range stored {
		out, err := exec.Command("zstd", "-dcq", path).Output()
		if err != nil {
			t.Fatalf("zstd -d %s: %v", path, err)
		}
		if bytes.Contains(out, []byte("SECRET")) {
			t.Errorf("%s holds what lies outside of the episode", path)
		}
	}
}

// TestEvilEpisodesDelayNoOther: all kinds, and one with too many entries, come
// before a good episode in the order of names.
func TestEvilEpisodesDelayNoOther(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Set("settle", `"50ms"`)
	fates := make(map[string]labtest.Fate)
	for i := range 5 {
		for _, e := range labtest.Evils {
			fates[e.Make(h, fmt.Sprintf("a%d", i))] = e.Fate
		}
	}
	if !testing.Short() {
		h.Set("limits.episode_entries", "10_000")
		fates[makeCrowdedEpisode(t, h, "b-crowd", 12_000)] = labtest.IsHeld
	}
	h.Episode("c-good")
	d := h.Daemon()
	h.WaitShipped("c-good")
	for name, fate := range fates {
		switch fate {
		case labtest.Ships:
			h.WaitShipped(name)
		case labtest.IsHeld:
			labtest.Eventually(t, name+" is held", func() bool { return fixture.Exists(h.Outbox(name + ".held")) })
		case labtest.Named:
			if h.IsShipped(name) || fixture.Exists(h.Outbox(name+".tar.zst")) {
				t.Errorf("%q was taken up", name)
			}
		}
	}
	h.WaitEmpty()
	wantSmallMemory(t, "the shipper", d)
	wantSmallMemory(t, "the receiver", l.Process())
	d.Stop(t)
	wantPrintable(t, "the shipper", d.Output())
	wantPrintable(t, "the receiver", l.Process().Output())
	status := h.Run("status")
	wantPrintable(t, "status", status.Stdout+status.Stderr)
	wantNoSecret(t, l, h)
	os.RemoveAll(h.Episodes("b-crowd")) // Check need not read it
	l.Settled(t)
}

// makeCrowdedEpisode makes an episode with a number of entries, which the lab does not check.
func makeCrowdedEpisode(t *testing.T, h *labtest.Host, name string, entries int) string {
	t.Helper()
	dir := h.Draft(name)
	for i := range entries {
		if i%1000 == 0 {
			fixture.Must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint(i/1000)), 0o755))
		}
		fixture.Must(t, unix.Mknod(filepath.Join(dir, fmt.Sprint(i/1000), fmt.Sprint(i)), unix.S_IFREG|0o644, 0))
	}
	fixture.WriteFile(t, filepath.Join(dir, "done.marker"), "")
	return name
}

// TestLargeEpisodesDelayNoOther: packing an episode of 60 GiB, all of it a hole, takes minutes,
// and more of them wait. Meanwhile others are shipped as usual, and little memory is used. The
// packing ends with the daemon at once.
func TestLargeEpisodesDelayNoOther(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	giants := []string{"a-giant", "a-giant-2", "a-giant-3"}
	for _, name := range giants {
		h.Draft(name)
		fixture.Must(t, os.Truncate(h.Episodes(name, "empty.log"), 60<<30))
		fixture.WriteFile(t, h.Episodes(name, "done.marker"), "") // a lab does not answer for 60 GiB
	}
	packed := func() []string { // or being packed
		found, err := filepath.Glob(h.Outbox("a-giant*"))
		fixture.Must(t, err)
		return found
	}
	d := h.Daemon()
	labtest.Eventually(t, "a giant is being packed", func() bool { return len(packed()) > 0 })
	for i := range 20 {
		name := fmt.Sprintf("b-%02d", i)
		h.Episode(name)
		h.WaitShipped(name)
	}
	// The giants are not done, so that nothing has waited for them.
	if found := packed(); len(found) != 1 || !strings.HasSuffix(found[0], ".partial") {
		t.Errorf("in the outbox: %q, want one giant that is being packed", found)
	}
	wantSmallMemory(t, "the shipper", d)
	d.Stop(t)
	for _, name := range giants {
		os.RemoveAll(h.Episodes(name))
		os.Remove(h.Outbox(name + ".tar.zst.partial"))
	}
	l.Settled(t)
}

// TestSwapsUnderTheShipperNeverLeadOutside: for some seconds files and folders
// of episodes are replaced by links out of them, FIFOs and each other, before,
// while and after they are packed.
func TestSwapsUnderTheShipperNeverLeadOutside(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("swaps for seconds")
	}
	l, h := newLab(t)
	outside := h.Path("data", "outside")
	fixture.WriteFile(t, h.Path("data", "victim"), labtest.Secret)
	fixture.Must(t, os.Mkdir(outside, 0o755))
	fixture.WriteFile(t, filepath.Join(outside, "victim"), labtest.Secret)
	passes, shipped, transient := 0, 0, 0
	// Whether a swap hits depends on the scheduler: the test continues until it saw both
	// outcomes.
	begun := time.Now()
	for ; time.Since(begun) < 3*time.Second || shipped == 0 || transient == 0; passes++ {
		if time.Since(begun) > 2*time.Minute {
			t.Fatalf("the swaps never came between, or always: %d passes, %d shipped, %d to be tried again", passes, shipped, transient)
		}
		name := fmt.Sprintf("run-%d", passes)
		h.Episode(name, labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "blob", Body: string(fixture.Noise(256<<10, 1))}, labtest.File{Name: "swap/victim", Body: "harmless"})
		h.Forget(name)
		stop := make(chan struct{})
		var swapper sync.WaitGroup
		// Some passes have no swaps, so that they ship. Some have swaps all the time, and some
		// until a random moment.
		swaps := [...]int{0, 1 << 20, passes % 20}[passes%3]
		swapper.Go(func() { swapPaths(h.Episodes(name, "swap"), outside, swaps, stop) })
		p := h.Once()
		close(stop)
		swapper.Wait()
		shipped += p.Shipped
		transient += p.Transient
		if p.Scanned != 1 || p.Shipped+p.Transient+p.Held != 1 {
			t.Fatalf("%+v\n%s", p.Tally, p.Stderr)
		}
		wantPrintable(t, "the shipper", p.Stderr)
		os.RemoveAll(h.Episodes(name))
		for _, left := range []string{".held", ".tar.zst", ".tar.zst.partial"} {
			os.Remove(h.Outbox(name + left))
		}
	}
	t.Logf("%d passes: %d shipped, %d to be tried again", passes, shipped, transient)
	wantNoSecret(t, l, h)
}

// swapPaths replaces a folder, and a file in it, with things that must not be opened, at most
// swaps times.
func swapPaths(dir, outside string, swaps int, stop <-chan struct{}) {
	file := filepath.Join(dir, "victim")
	steps := []func(){
		func() { os.Remove(file); os.Symlink(filepath.Join(outside, "victim"), file) },
		func() { os.Remove(file); syscall.Mkfifo(file, 0o644) },
		func() { os.Remove(file); os.WriteFile(file, []byte("harmless"), 0o644) },
		func() { os.RemoveAll(dir); os.Symlink(outside, dir) },
		func() { os.Remove(dir); os.Mkdir(dir, 0o755); os.WriteFile(file, []byte("harmless"), 0o644) },
	}
	for i := range swaps {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(i%7) * time.Millisecond):
			steps[i%len(steps)]()
		}
	}
}
