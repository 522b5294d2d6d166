package soak_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// runMaintenance does what operators do sometimes: heal a corrupt archive, or delete on a host
// what the receiver has verified.
func (s *site) runMaintenance(t *testing.T) {
	if t.Failed() {
		return
	}
	if i := s.randomHost(); s.random.IntN(2) == 0 {
		s.corruptAndHeal(t, i)
	} else {
		s.verifyAndPrune(t, i)
	}
}

// corruptAndHeal changes a byte of the receiver's archive of an episode, and makes the host
// send its own again.
func (s *site) corruptAndHeal(t *testing.T, i int) {
	h := s.hosts[i]
	name := s.shippedEpisode(i)
	if name == "" {
		return
	}
	s.faults["rot healed"]++
	flipByte(t, s.Archive(h.Name, name))
	r := h.Run("verify", "--heal")
	if r.Code != 1 {
		t.Errorf("verify --heal: exit code %d, want 1: %s has rotted\n%s%s", r.Code, name, r.Stdout, r.Stderr)
		return
	}
	if strings.Contains(r.Stdout, " "+name+": it carries no receipt") {
		h.Run("resend", name).MustExit(t, 0) // as it advises
	}
	labtest.Within(t, deliveryTimeout, name+" is healed", func() bool { return h.IsShipped(name) })
	h.WaitEmpty()
	wantAllStored(t, h.Run("verify"))
	s.Settled(t)
}

// wantAllStored checks that the receiver has all episodes for which the host has a receipt.
// An episode that was retired while the disk was full has no receipt.
func wantAllStored(t *testing.T, verify labtest.Result) {
	t.Helper()
	if !strings.Contains(verify.Stdout, " stored=0 missing=0 damaged=0 undecodable=0 divergent=0 ") {
		t.Errorf("verify: exit code %d\n%s%s", verify.Code, verify.Stdout, verify.Stderr)
	}
}

// shippedEpisode returns an episode of this round that a host has shipped, or "".
func (s *site) shippedEpisode(i int) string {
	for _, e := range s.waiting {
		if e.host == i && e.fate == labtest.Ships {
			return e.name
		}
	}
	return ""
}

// flipByte changes a byte of a file in place.
func flipByte(t *testing.T, path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	fixture.Must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	st, err := f.Stat()
	fixture.Must(t, err)
	at := st.Size() / 2
	_, err = f.ReadAt(b, at)
	fixture.Must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	fixture.Must(t, err)
	fixture.Must(t, unix.Fsync(int(f.Fd())))
}

// verifyAndPrune makes the receiver verify what a host has shipped, and the host delete its
// copies. From then on only the receiver's copies are checked.
func (s *site) verifyAndPrune(t *testing.T, i int) {
	h := s.hosts[i]
	s.faults["pruned"]++
	wantAllStored(t, h.Run("verify"))
	name := s.shippedEpisode(i)
	late := filepath.Join(h.Shipped(name), "late.txt")
	if name != "" {
		s.faults["late write"]++
		fixture.Must(t, os.WriteFile(late, []byte("written after it was shipped"), 0o644))
	}
	h.Run("prune", "--max-age", "1ns").MustExit(t, 0)
	if name != "" {
		if err := os.Remove(late); err != nil {
			t.Errorf("what was written to %s after it was shipped: %v", name, err)
		}
	}
	for key, p := range s.acked {
		name, ours := strings.CutPrefix(key, h.Name+"/")
		if !ours || p.pruned || h.IsShipped(name) {
			continue
		}
		h.Forget(name)
		p.pruned = true
		s.acked[key] = p
	}
	s.Settled(t)
}
