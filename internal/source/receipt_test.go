package source_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/source"
)

func receiptOf(text string) *source.Receipt {
	d, n, err := digest.Of(strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	return &source.Receipt{Digest: d, Size: n, ReceivedAt: time.Date(2026, 11, 23, 8, 0, 0, 1000, time.UTC)}
}

// listRetired returns the retired episodes in the shipped folder, by directory.
func (l *lab) listRetired() map[string]source.Retired {
	l.Helper()
	all := map[string]source.Retired{}
	for r, err := range l.AllRetired() {
		fixture.Must(l, err)
		all[r.Dir] = r
	}
	return all
}

func TestTheReceiptTravelsWithTheEpisode(t *testing.T) {
	l := newLab(t)
	l.makeFinished(l.episodes, "run-7", "first")
	l.makeFinished(l.episodes, "run-8", "other")
	want := receiptOf("archive of run-7")
	fixture.Must(l, l.Retire("run-7", want, source.State{}))
	fixture.Must(l, l.Retire("run-8", nil, source.State{}))
	l.makeFinished(l.episodes, "run-7", "second")
	fixture.Must(l, l.Retire("run-7", receiptOf("second"), source.State{}))
	fixture.Must(l, os.WriteFile(filepath.Join(l.shipped, "notes.txt"), nil, 0o644))
	fixture.Must(l, os.Mkdir(filepath.Join(l.shipped, ".hidden"), 0o755))
	got := l.listRetired()
	if len(got) != 3 {
		t.Fatalf("got %v, want 3 of them", got)
	}
	if r := got["run-7"]; !r.HasReceipt || r.Receipt != *want || r.Name != "run-7" {
		t.Errorf("run-7 carries %+v, want %+v", r, want)
	}
	if r := got["run-7~2"]; !r.HasReceipt || r.Receipt != *receiptOf("second") || r.Name != "run-7" {
		t.Errorf("run-7~2 carries %+v", r)
	}
	if r := got["run-8"]; r.HasReceipt || r.Name != "run-8" {
		t.Errorf("run-8 carries %+v, want nothing: it was retired without a receipt", r)
	}
}

// A receipt of an earlier delivery must not stay with an episode that was accepted although it
// was changed.
func TestRetiringWithoutReceiptTakesAnOldOneAway(t *testing.T) {
	l := newLab(t)
	l.makeFinished(l.episodes, "run-7", "first")
	fixture.Must(l, l.Retire("run-7", receiptOf("first"), source.State{}))
	fixture.Must(l, l.Resend(l.listRetired()["run-7"]))
	fixture.Must(l, l.Retire("run-7", nil, source.State{}))
	if r := l.listRetired()["run-7"]; r.HasReceipt {
		t.Errorf("it carries %+v", r.Receipt)
	}
}

// An attribute that another user wrote is not a receipt.
func TestForeignAttributeIsNoReceipt(t *testing.T) {
	l := newLab(t)
	for _, value := range []string{"", "x", strings.Repeat("\x00", 48), strings.Repeat("\xff", 48), strings.Repeat("x", 49)} {
		fixture.Must(l, os.MkdirAll(filepath.Join(l.shipped, "run-7"), 0o755))
		fixture.Must(l, unix.Setxattr(filepath.Join(l.shipped, "run-7"), "user.cis490.receipt", []byte(value), 0))
		if r := l.listRetired()["run-7"]; r.HasReceipt {
			t.Errorf("%q is taken for %+v", value, r.Receipt)
		}
	}
}

func TestResendGoesTheSameWayBack(t *testing.T) {
	l := newLab(t)
	l.makeFinished(l.episodes, "run-7", "first")
	fixture.Must(l, l.Retire("run-7", receiptOf("first"), source.State{}))
	l.makeFinished(l.episodes, "run-7", "a later run")
	r := l.listRetired()["run-7"]
	if err := l.Resend(r); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v, want fs.ErrExist", err)
	}
	fixture.Must(l, os.RemoveAll(filepath.Join(l.episodes, "run-7")))
	fixture.Must(l, l.Resend(r))
	if b, err := os.ReadFile(filepath.Join(l.episodes, "run-7", "meta.json")); err != nil || string(b) != "first" {
		t.Errorf("meta.json has %q, %v, want %q", b, err, "first")
	}
	if finished, err := l.IsFinished("run-7"); err != nil || !finished {
		t.Errorf("it is not finished: %v", err)
	}
	if err := l.Resend(r); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v, want fs.ErrNotExist", err)
	}
	fixture.Must(l, os.Mkdir(filepath.Join(l.shipped, "run-8"), 0o755))
	if err := l.Resend(l.listRetired()["run-8"]); err == nil || !strings.Contains(err.Error(), episode.Marker) {
		t.Errorf("without marker: %v", err)
	}
	if got := slices.Sorted(func(yield func(string) bool) {
		for dir := range l.listRetired() {
			if !yield(dir) {
				return
			}
		}
	}); !slices.Equal(got, []string{"run-8"}) {
		t.Errorf("the shipped folder has %q", got)
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add([]byte(strings.Repeat("a", 48)))
	f.Add([]byte{})
	l := newLab(f)
	dir := filepath.Join(l.shipped, "run-7")
	fixture.Must(l, os.Mkdir(dir, 0o755))
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) > 512 {
			return
		}
		if err := unix.Setxattr(dir, "user.cis490.receipt", value, 0); err != nil {
			t.Skip(err)
		}
		r, err := l.ReadRetired("run-7")
		if err != nil || r.HasReceipt && (r.Receipt.Size < 0 || r.Receipt.Digest.IsZero()) {
			t.Errorf("%q: %+v, %v", value, r, err)
		}
	})
}
