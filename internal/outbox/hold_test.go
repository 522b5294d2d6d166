package outbox_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cis490/internal/fixture"
	"cis490/internal/outbox"
)

func TestAHoldSurvivesARestart(t *testing.T) {
	l := newLab(t)
	ours, theirs := sealOf("ours").Digest, sealOf("theirs").Digest
	want := outbox.Hold{
		Reason: outbox.Conflict, Cause: "another \x1b[31m archive\n\"quoted\"",
		HeldAt: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC), Digest: &ours, Stored: &theirs,
	}
	fixture.Must(l, l.Hold(name, want))
	l.reopen()
	got, err := l.ReadHold(name)
	fixture.Must(l, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	b, err := os.ReadFile(l.filePath("run-7.held"))
	fixture.Must(l, err)
	for _, s := range []string{ours.String(), theirs.String(), `"held_at": "2026-11-23T08:00:00Z"`, `"reason": "conflict"`} {
		if !strings.Contains(string(b), s) {
			t.Errorf("a person does not find %s in\n%s", s, b)
		}
	}
}

func TestANewHoldReplacesTheOld(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.Hold(name, outbox.Hold{Reason: outbox.Unpackable, Cause: "old"}))
	fixture.Must(l, l.Hold(name, outbox.Hold{Reason: outbox.Changed, Cause: "new"}))
	if h, err := l.ReadHold(name); err != nil || h.Reason != outbox.Changed || h.Cause != "new" || h.Digest != nil {
		t.Errorf("got %+v, %v", h, err)
	}
	l.wantFiles("run-7.held")
}

// A hold may have been edited, or emptied by power loss on another file system: the episode
// must not be sent because of that.
func TestAHoldThatCannotBeReadStillHolds(t *testing.T) {
	for what, content := range map[string]string{
		"empty":        "",
		"no JSON":      "I will look at it tomorrow",
		"wrong types":  `{"reason": 3}`,
		"wrong digest": `{"reason": "conflict", "sha256": "abc"}`,
		"torn":         `{"reason": "confl`,
		"huge":         `{"cause": "` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.writeFile("run-7.held", content)
			if s, err := l.ReadState(name); err != nil || !s.Held {
				t.Errorf("state: %+v, %v", s, err)
			}
			h, err := l.ReadHold(name)
			if err != nil || h.Cause == "" {
				t.Errorf("got %+v, %v, want a cause that says what is wrong with the hold", h, err)
			}
			if len(h.Cause) > 1000 {
				t.Errorf("the cause has %d bytes", len(h.Cause))
			}
			fixture.Must(l, l.Release(name))
			l.wantFiles()
		})
	}
}

func TestReleaseNeedsAHold(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.sealEntry(name, "x"))
	for what, release := range map[string]func() error{
		"Release": func() error { return l.Release(name) },
		"Accept":  func() error { return l.Accept(name) },
		"Held":    func() error { _, err := l.ReadHold(name); return err },
	} {
		if err := release(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s gives %v, want fs.ErrNotExist", what, err)
		}
	}
	if accepted, err := l.IsAccepted(name); err != nil || accepted {
		t.Errorf("accepted: %v, %v", accepted, err)
	}
	fixture.Must(l, l.RemoveHold(name))
	l.wantFiles("run-7.tar.zst")
}

func TestReleaseIsNoAcceptance(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.Hold(name, outbox.Hold{Reason: outbox.Changed}))
	fixture.Must(l, l.Release(name))
	if accepted, err := l.IsAccepted(name); err != nil || accepted {
		t.Errorf("accepted: %v, %v", accepted, err)
	}
	l.wantFiles()
}

func TestAnAcceptanceEndsWithItsEntry(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.sealEntry(name, "x"))
	fixture.Must(l, l.Hold(name, outbox.Hold{Reason: outbox.Changed}))
	fixture.Must(l, l.Accept(name))
	l.reopen()
	accepted, err := l.IsAccepted(name)
	if s, serr := l.ReadState(name); err != nil || serr != nil || !accepted || s.Held || !s.Sealed {
		t.Errorf("accepted: %v, %v; state %+v, %v", accepted, err, s, serr)
	}
	fixture.Must(l, l.Remove(name)) // delivered
	if accepted, err := l.IsAccepted(name); err != nil || accepted {
		t.Errorf("the next run of this name is accepted unseen: %v, %v", accepted, err)
	}
	l.wantFiles()
}

// An acceptance that a crash left behind applies only to the entry that it was given for.
func TestAnAcceptanceIsOfItsEntryOnly(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.sealEntry(name, "x"))
	fixture.Must(l, l.Hold(name, outbox.Hold{Reason: outbox.Changed}))
	fixture.Must(l, l.Accept(name))
	fixture.Must(l, os.Remove(l.filePath("run-7.tar.zst"))) // by hand, or a crash between two unlinks
	fixture.Must(l, l.sealEntry(name, "a later run"))
	if accepted, err := l.IsAccepted(name); err != nil || accepted {
		t.Errorf("the next run of this name is accepted unseen: %v, %v", accepted, err)
	}
}

func TestForgetTakesAHoldOfNothing(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.Hold(name, outbox.Hold{Reason: outbox.Unpackable}))
	fixture.Must(l, l.RemoveHold(name))
	fixture.Must(l, l.RemoveHold(name))
	l.wantFiles()
}

func FuzzHeld(f *testing.F) {
	b, _ := json.Marshal(outbox.Hold{Reason: outbox.Unpackable, Cause: "why"})
	f.Add(b)
	f.Add([]byte(`{"held_at": "yesterday"}`))
	f.Add([]byte{0})
	l := newLab(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		fixture.Must(t, os.WriteFile(l.filePath("run-7.held"), content, 0o640))
		if _, err := l.ReadHold(name); err != nil {
			t.Errorf("the hold does not hold: %v", err)
		}
	})
}
