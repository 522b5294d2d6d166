package receiver_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/fixture"
	"cis490/internal/notify"
	"cis490/internal/receiver"
	"cis490/internal/wire"
)

// newHookLab returns a receiver with the queue of a command.
func newHookLab(t *testing.T) (l *lab, queue string) {
	queue = t.TempDir()
	return newLab(t, func(c *receiver.Config) { c.Hooks.QueueDir = config.Path(queue) }), queue
}

// hookEvents stops the receiver, and returns what it has queued of a type.
func (l *lab) hookEvents(queue string, of notify.Type) (events []notify.Event) {
	l.Helper()
	l.stop()
	names, err := filepath.Glob(filepath.Join(queue, "*-"+string(of)+".json"))
	fixture.Must(l, err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		fixture.Must(l, err)
		e, err := notify.ParseEvent(text)
		fixture.Must(l, err)
		events = append(events, e)
	}
	return events
}

// TestConflictIsReportedOncePerName: also of more names than the status page lists, until both archives
// are stored.
func TestConflictIsReportedOncePerName(t *testing.T) {
	l, queue := newHookLab(t)
	const names = 60
	content, other := fixture.Noise(100, 1), fixture.Noise(100, 2)
	for i := range names {
		l.WantReceipt(key("lab-01", fmt.Sprintf("run-%d", i)), content, wire.Stored)
	}
	for range 3 {
		for i := range names {
			if _, _, err := l.b.Announce(t.Context(), uploadOf(key("lab-01", fmt.Sprintf("run-%d", i)), other)); !errors.Is(err, wire.Conflict) {
				t.Fatal(err)
			}
		}
	}
	l.WantReceipt(key("lab-01", "run-0.conflict-1234abcd"), other, wire.Stored)
	if _, _, err := l.b.Announce(t.Context(), uploadOf(key("lab-01", "run-0"), fixture.Noise(100, 3))); !errors.Is(err, wire.Conflict) {
		t.Fatal(err)
	}
	if n := len(l.hookEvents(queue, notify.Conflict)); n != names+1 {
		t.Errorf("%d conflicts, want %d", n, names+1)
	}
}

// TestCorruptArchiveIsReportedOnce: when it is moved to quarantine, however often its host looks before.
func TestCorruptArchiveIsReportedOnce(t *testing.T) {
	l, queue := newHookLab(t)
	k, content := key("lab-01", "run-7"), packNoise(1000, 1)
	l.WantReceipt(k, content, wire.Stored)
	l.restart(func() { l.CorruptStored(k) })
	for range 5 {
		if _, _, err := l.b.Announce(t.Context(), uploadOf(k, content)); err != nil {
			t.Fatal(err)
		}
	}
	l.WantReceipt(k, content, wire.Stored)
	events := l.hookEvents(queue, notify.Damage)
	if len(events) != 1 || !events[0].Data.Removed || events[0].Data.Finding != "damaged" {
		t.Errorf("got %+v, want one of a copy in quarantine", events)
	}
}

// TestStartCompletesAnInterruptedUpload, and reports its archive: the crash came before the row.
func TestStartCompletesAnInterruptedUpload(t *testing.T) {
	l, queue := newHookLab(t)
	k := key("lab-01", "run-7")
	l.WantReceipt(k, packNoise(1000, 1), wire.Stored)
	l.restart(func() {
		staged := filepath.Join(l.Data, "staging", string(k.Host), string(k.Name)+"~CRASH")
		fixture.Must(t, errors.Join(os.Link(l.StoredPath(k), staged), os.Truncate(filepath.Join(l.Data, datadir.IndexFile), 0)))
	})
	l.WantConsistent(1)
	if n := len(l.hookEvents(queue, notify.Stored)); n != 2 {
		t.Errorf("%d events, want one of the upload and one of the recovery", n)
	}
}
