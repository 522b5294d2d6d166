package shipper_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// makeConflict makes an episode that is held because the receiver has another of
// its name, and returns the name under which the receiver may keep both.
func (l *lab) makeConflict(name episode.Name) episode.Name {
	l.Helper()
	l.finishEpisodes(name)
	var other wire.Receipt
	other.Digest[0] = 1
	l.receiver.stored[name] = other
	l.wantOnce(shipper.Tally{Scanned: 1, Conflicts: 1})
	beside, err := shipped.SecondName(name, l.held()[name].Hold)
	fixture.Must(l, err)
	return beside
}

// wantKeptBoth checks that the receiver has both copies, the first one unchanged.
func (l *lab) wantKeptBoth(name, beside episode.Name) {
	l.Helper()
	first := l.receiver.stored[name].Digest
	l.contents[beside] = l.contents[name]
	delete(l.contents, name)
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	if l.receiver.stored[name].Digest != first || !l.receiver.hasArchive(beside) {
		l.Errorf("the receiver has %v", l.receiver.stored)
	}
	l.wantFiles("episodes")
	l.wantFiles("outbox")
	l.wantFiles("shipped", string(beside))
}

func TestKeepBothSendsUnderASecondName(t *testing.T) {
	l := newLab(t)
	want := l.makeConflict("run-1")
	ours := l.held()["run-1"].Digest.String()
	beside, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver)
	fixture.Must(l, err)
	if beside != want || string(beside) != "run-1.conflict-"+ours[:8] {
		t.Errorf("it goes as %s, want run-1.conflict-%s", beside, ours[:8])
	}
	l.wantKeptBoth("run-1", beside)
}

// After power loss at any step, a second call completes the work, and nothing is lost.
func TestKeepBothCompletesAnInterruptedOne(t *testing.T) {
	for what, cut := range map[string]func(l *lab, beside episode.Name){
		"renamed": func(l *lab, beside episode.Name) {
			fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("episodes", string(beside))))
		},
		"entry dropped": func(l *lab, beside episode.Name) {
			fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("episodes", string(beside))))
			fixture.Must(l, os.Remove(l.path("outbox", "run-1.tar.zst")))
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			beside := l.makeConflict("run-1")
			cut(l, beside)
			if again, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver); err != nil || again != beside {
				t.Fatalf("the second call: %s, %v", again, err)
			}
			l.wantKeptBoth("run-1", beside)
		})
	}
}

func TestKeepBothIsForConflictsAndChangesOnly(t *testing.T) {
	l := newLab(t)
	beside := l.makeConflict("run-1")
	if _, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-2", l.receiver); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not held: %v, want fs.ErrNotExist", err)
	}
	fixture.WriteFile(l, l.path("outbox", "run-2.held"), `{"reason":"unfit"}`)
	if _, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-2", l.receiver); err == nil || !strings.Contains(err.Error(), "unfit") {
		t.Errorf("held for another reason: %v", err)
	}
	fixture.WriteFile(l, l.path("outbox", "run-3.held"), `{"reason":"conflict"}`)
	if _, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-3", l.receiver); err == nil {
		t.Error("a hold without a digest")
	}
	fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("away")))
	if _, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver); err == nil || !strings.Contains(err.Error(), "run-1.tar.zst") {
		t.Errorf("an episode that was taken away: %v", err)
	}
	fixture.WriteFile(l, l.path("episodes", string(beside), "meta.json"), "of another episode")
	if _, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver); err == nil || !strings.Contains(err.Error(), "another episode") {
		t.Errorf("one that was taken away, and another of the name: %v", err)
	}
	if !fixture.Exists(l.path("outbox", "run-1.tar.zst")) || !fixture.Exists(l.path("outbox", "run-1.held")) {
		t.Error("the only copy was dropped")
	}
	long := episode.Name(strings.Repeat("x", episode.MaxName-10))
	d := l.held()["run-1"].Digest
	if _, err := shipped.SecondName(long, outbox.Hold{Digest: d}); err == nil {
		t.Error("a name that becomes too long")
	}
}

// makeChanged makes an episode that is held because it was changed after it was packed, and
// returns the name under which the receiver may keep both.
func (l *lab) makeChanged(name episode.Name) episode.Name {
	l.Helper()
	l.finishEpisodes(name)
	l.packOnly(name)
	l.contents[name] = "data that came late"
	fixture.WriteFile(l, l.path("episodes", string(name), "telemetry.jsonl"), l.contents[name])
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
	hold := l.held()[name]
	if hold.Reason != outbox.Changed {
		l.Fatalf("it is held as %s: %s", hold.Reason, hold.Cause)
	}
	beside, err := shipped.SecondName(name, hold.Hold)
	fixture.Must(l, err)
	return beside
}

// removeReceiptFromHold rewrites a hold as an older shipper left it, without the receipt.
func (l *lab) removeReceiptFromHold(name episode.Name) {
	l.Helper()
	h := l.held()[name].Hold
	if h.Delivered == nil || *h.Delivered != l.receiver.stored[name].Digest {
		l.Errorf("the receipt of %s is noted as %v", name, h.Delivered)
	}
	fixture.WriteFile(l, l.path("outbox", string(name)+".held"), fmt.Sprintf(`{"reason":"changed","cause":"x","sha256":%q}`, h.Digest))
}

// A changed episode needs neither a conflict nor the receiver, if there is a receipt.
func TestChangedEpisodeIsKeptUnderASecondNameAtOnce(t *testing.T) {
	l := newLab(t)
	want := l.makeChanged("run-1")
	l.receiver.down = unix.ECONNREFUSED
	beside, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver)
	fixture.Must(l, err)
	if sha8 := l.receiver.stored["run-1"].Digest.String()[:8]; beside != want || string(beside) != "run-1.conflict-"+sha8 {
		t.Errorf("it goes as %s, want run-1.conflict-%s", beside, sha8)
	}
	l.wantFiles("outbox")
	l.receiver.down = nil
	l.wantKeptBoth("run-1", beside)
}

// TestKeepBothAsksAReceiverThatAnswers, although there is a receipt: an older image may have been
// restored since, and then the packed copy is the only one.
func TestKeepBothAsksAReceiverThatAnswers(t *testing.T) {
	l := newLab(t)
	l.makeChanged("run-1")
	l.receiver.update(func() { delete(l.receiver.stored, "run-1") })
	before := fmt.Sprint(l.listFiles("episodes"), l.listFiles("outbox"), l.held())
	if _, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("got %v, want that the receiver has lost it", err)
	}
	if after := fmt.Sprint(l.listFiles("episodes"), l.listFiles("outbox"), l.held()); after != before {
		t.Errorf("it changed something:\n%s\n%s", before, after)
	}
}

// TestInterruptedKeepBothChangesNothing: a cancelled command does not count as a silent receiver.
func TestInterruptedKeepBothChangesNothing(t *testing.T) {
	l := newLab(t)
	l.makeChanged("run-1")
	before := fmt.Sprint(l.listFiles("episodes"), l.listFiles("outbox"), l.held())
	ctx, cancel := context.WithCancel(l.Context())
	cancel()
	l.receiver.down = context.Canceled
	if _, err := shipped.KeepBoth(ctx, l.cfg.DirsConfig(), "run-1", l.receiver); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if after := fmt.Sprint(l.listFiles("episodes"), l.listFiles("outbox"), l.held()); after != before {
		t.Errorf("it changed something:\n%s\n%s", before, after)
	}
}

// The packed copy of a changed episode is unique on this host: without a receipt it is removed
// only if the receiver reports now that it has it.
func TestKeepBothDropsTheCopyOfAChangedEpisodeOnlyIfDelivered(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(l *lab)
		want  string // of the error; empty: it goes
	}{
		"it has it":             {func(*lab) {}, ""},
		"it cannot be asked":    {func(l *lab) { l.receiver.down = unix.ECONNREFUSED }, "refused"},
		"it has lost it":        {func(l *lab) { delete(l.receiver.stored, "run-1") }, "absent"},
		"it has something else": {func(l *lab) { l.receiver.stored["run-1"] = wire.Receipt{Digest: digest.Digest{1}} }, "divergent"},
		"the receipt is of other bytes": {func(l *lab) {
			h := l.held()["run-1"].Hold
			fixture.WriteFile(l, l.path("outbox", "run-1.held"), fmt.Sprintf(`{"reason":"changed","sha256":%q,"delivered_sha256":%q}`, h.Digest, digest.Digest{1}))
			delete(l.receiver.stored, "run-1")
		}, "absent"},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			beside := l.makeChanged("run-1")
			l.removeReceiptFromHold("run-1")
			c.spoil(l)
			before := fmt.Sprint(l.listFiles("episodes"), l.listFiles("outbox"), l.held())
			got, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver)
			if c.want == "" {
				fixture.Must(l, err)
				l.wantKeptBoth("run-1", beside)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s, %v, want an error that says %q", got, err, c.want)
			}
			if _, away := errors.AsType[*uplink.UnreachableError](err); away != (what == "it cannot be asked") {
				t.Errorf("unreachable is %v of %v", away, err)
			}
			if after := fmt.Sprint(l.listFiles("episodes"), l.listFiles("outbox"), l.held()); after != before {
				t.Errorf("it changed something:\n%s\n%s", before, after)
			}
		})
	}
}

func TestKeepBothFindsAFreeName(t *testing.T) {
	for what, take := range map[string]func(l *lab, name string){
		"an episode":       func(l *lab, name string) { fixture.WriteFile(l, l.path("episodes", name, "meta.json"), "{}") },
		"a shipped one":    func(l *lab, name string) { fixture.WriteFile(l, l.path("shipped", name, "meta.json"), "{}") },
		"a packed one":     func(l *lab, name string) { fixture.WriteFile(l, l.path("outbox", name+".tar.zst"), "bytes") },
		"a held one":       func(l *lab, name string) { fixture.WriteFile(l, l.path("outbox", name+".held"), "{}") },
		"a file of a name": func(l *lab, name string) { fixture.WriteFile(l, l.path("episodes", name), "x") },
	} {
		for kind, hold := range map[string]func(*lab, episode.Name) episode.Name{"conflict": (*lab).makeConflict, "changed": (*lab).makeChanged} {
			t.Run(what+", "+kind, func(t *testing.T) {
				l := newLab(t)
				first := string(hold(l, "run-1"))
				take(l, first)
				take(l, first+"-2")
				beside, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver)
				if err != nil || string(beside) != first+"-3" {
					t.Fatalf("it goes as %s, %v, want %s-3", beside, err, first)
				}
				b, err := os.ReadFile(l.path("episodes", string(beside), "telemetry.jsonl"))
				if err != nil || string(b) != l.contents["run-1"] || fixture.Exists(l.path("outbox", "run-1.tar.zst")) {
					t.Errorf("telemetry.jsonl has %q, %v, want %q and no packed copy", b, err, l.contents["run-1"])
				}
			})
		}
	}
}

// Each step of a call may be the last before power loss. The shipper runs meanwhile.
func TestKeepBothOfAChangedEpisodeCompletesAnInterruptedOne(t *testing.T) {
	note := func(l *lab, beside episode.Name) {
		h := l.held()["run-1"].Hold
		h.SecondName = beside
		b, err := json.Marshal(h)
		fixture.Must(l, err)
		fixture.WriteFile(l, l.path("outbox", "run-1.held"), string(b))
	}
	rename := func(l *lab, beside episode.Name) {
		note(l, beside)
		fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("episodes", string(beside))))
	}
	for what, cut := range map[string]func(l *lab, beside episode.Name){
		"name noted": note,
		"renamed":    rename,
		"entry dropped": func(l *lab, beside episode.Name) {
			rename(l, beside)
			fixture.Must(l, os.Remove(l.path("outbox", "run-1.tar.zst")))
		},
	} {
		for _, runs := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, shipper runs: %v", what, runs), func(t *testing.T) {
				l := newLab(t)
				beside := l.makeChanged("run-1") + "-2" // the first was taken when the name was chosen
				cut(l, beside)
				moved := fixture.Exists(l.path("episodes", string(beside)))
				if runs {
					l.runOnce()
				}
				again, err := shipped.KeepBoth(l.Context(), l.cfg.DirsConfig(), "run-1", l.receiver)
				forgotten := what == "entry dropped" && runs // a hold of nothing
				if forgotten && !errors.Is(err, fs.ErrNotExist) || !forgotten && (err != nil || again != beside) {
					t.Fatalf("the second call: %s, %v", again, err)
				}
				if moved && runs {
					l.wantFiles("shipped", string(beside))
					l.wantFiles("outbox")
					return
				}
				l.wantKeptBoth("run-1", beside)
			})
		}
	}
}
