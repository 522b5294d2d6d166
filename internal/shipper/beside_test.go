package shipper_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// conflict makes an episode that is held because the receiver has another of
// its name, and returns the name under which it may go beside that.
func (l *lab) conflict(name episode.Name) episode.Name {
	l.Helper()
	l.finish(name)
	var other wire.Receipt
	other.Digest[0] = 1
	l.rx.stored[name] = other
	l.wantOnce(shipper.Tally{Scanned: 1, Conflicts: 1})
	beside, err := shipper.BesideName(name, l.held()[name].Hold)
	l.must(err)
	return beside
}

// goesBeside sees that both copies are at the receiver, the first untouched.
func (l *lab) goesBeside(name, beside episode.Name) {
	l.Helper()
	first := l.rx.stored[name].Digest
	l.made[beside] = l.made[name]
	delete(l.made, name)
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	if l.rx.stored[name].Digest != first || !l.rx.has(beside) {
		l.Errorf("the receiver has %v", l.rx.stored)
	}
	l.wantFiles("episodes")
	l.wantFiles("outbox")
	l.wantFiles("shipped", string(beside))
}

func TestBesideSendsUnderANameOfItsOwn(t *testing.T) {
	l := newLab(t)
	want := l.conflict("run-1")
	ours := l.held()["run-1"].Digest.String()
	beside, err := shipper.Beside(l.cfg, "run-1")
	l.must(err)
	if beside != want || string(beside) != "run-1.conflict-"+ours[:8] {
		t.Errorf("it goes as %s, want run-1.conflict-%s", beside, ours[:8])
	}
	l.goesBeside("run-1", beside)
}

// Whatever step a power cut came after, a second call ends it, and nothing is lost.
func TestBesideEndsWhatWasInterrupted(t *testing.T) {
	for what, cut := range map[string]func(l *lab, beside episode.Name){
		"renamed": func(l *lab, beside episode.Name) {
			l.must(os.Rename(l.at("episodes", "run-1"), l.at("episodes", string(beside))))
		},
		"entry dropped": func(l *lab, beside episode.Name) {
			l.must(os.Rename(l.at("episodes", "run-1"), l.at("episodes", string(beside))))
			l.must(os.Remove(l.at("outbox", "run-1.tar.zst")))
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			beside := l.conflict("run-1")
			cut(l, beside)
			if again, err := shipper.Beside(l.cfg, "run-1"); err != nil || again != beside {
				t.Fatalf("the second call: %s, %v", again, err)
			}
			l.goesBeside("run-1", beside)
		})
	}
}

func TestBesideIsForConflictsOnly(t *testing.T) {
	l := newLab(t)
	beside := l.conflict("run-1")
	if _, err := shipper.Beside(l.cfg, "run-2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not held: %v, want fs.ErrNotExist", err)
	}
	l.write(l.at("outbox", "run-2.held"), `{"reason":"unfit"}`)
	if _, err := shipper.Beside(l.cfg, "run-2"); err == nil || !strings.Contains(err.Error(), "unfit") {
		t.Errorf("held for another reason: %v", err)
	}
	l.write(l.at("outbox", "run-3.held"), `{"reason":"conflict"}`)
	if _, err := shipper.Beside(l.cfg, "run-3"); err == nil {
		t.Error("a hold without a digest")
	}
	l.write(l.at("episodes", string(beside), "x"), "in the way")
	if _, err := shipper.Beside(l.cfg, "run-1"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a name that is taken: %v", err)
	}
	l.must(os.RemoveAll(l.at("episodes", string(beside))))
	l.must(os.Rename(l.at("episodes", "run-1"), l.at("away")))
	if _, err := shipper.Beside(l.cfg, "run-1"); err == nil || !strings.Contains(err.Error(), "run-1.tar.zst") {
		t.Errorf("an episode that was taken away: %v", err)
	}
	if !exists(l.at("outbox", "run-1.tar.zst")) || !exists(l.at("outbox", "run-1.held")) {
		t.Error("the only copy was dropped")
	}
	long := episode.Name(strings.Repeat("x", episode.MaxName-10))
	d := l.held()["run-1"].Digest
	if _, err := shipper.BesideName(long, outbox.Hold{Digest: d}); err == nil {
		t.Error("a name that becomes too long")
	}
}
