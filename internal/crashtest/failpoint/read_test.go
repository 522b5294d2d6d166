package failpoint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// newWaitingLab returns a lab with two waiting episodes.
func newWaitingLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := withReceiver(newFreshLab)(t)
	h.Episode("run-2")
	h.Set("packers", "1")
	h.Set("senders", "1")
	return l, h
}

// newRetiredLab returns a lab with two retired episodes.
func newRetiredLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newWaitingLab(t)
	h.Once().MustExit(t, 0)
	return l, h
}

// TestWhatTheDiskDoesNotGiveIsOfOneEpisode: an EIO while one episode is examined or read ends
// no program, and does not affect the other episode.
func TestWhatTheDiskDoesNotGiveIsOfOneEpisode(t *testing.T) {
	if *every == 0 {
		t.Skip("slow; make crash-short runs it")
	}
	for _, c := range []struct {
		name  string
		lab   func(t *testing.T) (*labtest.Lab, *labtest.Host)
		argv  []string
		codes string
		after func(t *testing.T, h *labtest.Host, other string)
	}{
		{"a pass", newWaitingLab, []string{"--once"}, "1 3", func(t *testing.T, h *labtest.Host, other string) {
			if !h.IsShipped(other) {
				t.Errorf("%s was kept by it", other)
			}
		}},
		{"status", newRetiredLab, []string{"status"}, "0", nil},
		{"verify", newRetiredLab, []string{"verify"}, "0 1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, h := c.lab(t)
			fixture.WriteFile(t, h.Path("fail"), "0 none")
			h.Run(c.argv...)
			steps := strings.Split(strings.TrimSpace(fixture.ReadFile(t, h.Path("failed"))), "\n")
			l.Kill()
			tried := 0
			for at, step := range steps {
				if otherEpisode(step) == "" {
					continue
				}
				l, h := c.lab(t)
				fixture.WriteFile(t, h.Path("fail"), fmt.Sprint(at+1, " eio"))
				result := h.Run(c.argv...)
				fixture.Must(t, os.Remove(h.Path("fail")))
				// The step may belong to the other episode: neither directories nor workers
				// have an order.
				failed, _ := os.ReadFile(h.Path("failed"))
				other := otherEpisode(strings.TrimSpace(string(failed)))
				if other == "" {
					l.Kill()
					continue
				}
				tried++
				if !strings.Contains(c.codes, fmt.Sprint(result.Code)) {
					t.Errorf("step %d, %s: exit code %d, want %s\n%s", at+1, step, result.Code, c.codes, result.Stderr)
				}
				if c.after != nil {
					c.after(t, h, other)
				}
				h.Once().MustExit(t, 0)
				l.Settled(t)
				l.Kill()
			}
			if tried == 0 {
				t.Errorf("no step reads run-1: %q", steps)
			}
			t.Logf("%d steps failed", tried)
		})
	}
}

// otherEpisode returns the episode that a step does not open, if the step opens an episode or
// its archive. Otherwise it returns "".
func otherEpisode(step string) string {
	op, path, _ := strings.Cut(step, " ")
	name := strings.TrimSuffix(filepath.Base(path), ".tar.zst")
	return map[string]string{"open run-1": "run-2", "open run-2": "run-1"}[op+" "+name]
}
