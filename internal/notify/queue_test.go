package notify_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/notify"
)

var silent = slog.New(slog.DiscardHandler)

func stored(n int) notify.Event {
	return notify.NewEvent(notify.Stored, notify.Data{Host: "lab-01", Episode: episode.Name(fmt.Sprintf("run-%d", n))})
}

// drain removes all events of a queue, and returns them.
func drain(t *testing.T, q *notify.Queue) (events []notify.Event) {
	t.Helper()
	for {
		entry, text, err := q.Oldest()
		if errors.Is(err, fs.ErrNotExist) {
			return events
		}
		fixture.Must(t, err)
		e, err := notify.ParseEvent(text)
		fixture.Must(t, err)
		events = append(events, e)
		q.Remove(entry)
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	dir := t.TempDir()
	q := notify.OpenQueue(dir, silent)
	for n := range 30 {
		q.Add(stored(n))
	}
	fixture.Must(t, q.Close())
	q = notify.OpenQueue(dir, silent) // after a restart
	q.Add(stored(30))
	defer q.Close()
	events := drain(t, q)
	if len(events) != 31 {
		t.Fatalf("%d events, want 31", len(events))
	}
	for n, e := range events {
		if want := episode.Name(fmt.Sprintf("run-%d", n)); e.Data.Episode != want {
			t.Errorf("event %d is of %s", n, e.Data.Episode)
		}
	}
}

// TestNumbersGrowAlthoughTheClockWentBack: the order of a queue does not depend on the clock.
func TestNumbersGrowAlthoughTheClockWentBack(t *testing.T) {
	dir := t.TempDir()
	q := notify.OpenQueue(dir, silent)
	q.Add(stored(0))
	entry, text, err := q.Oldest()
	fixture.Must(t, errors.Join(err, q.Close()))
	future := fmt.Sprintf("%020d-stored.json", time.Now().Add(time.Hour).UnixNano())
	fixture.Must(t, errors.Join(os.WriteFile(filepath.Join(dir, future), text, 0o600), os.Remove(filepath.Join(dir, entry.Name))))
	q = notify.OpenQueue(dir, silent)
	defer q.Close()
	q.Add(stored(1))
	if events := drain(t, q); len(events) != 2 || events[1].Data.Episode != "run-1" {
		t.Errorf("got %v", events)
	}
}

// TestFloodOfOneTypeDisplacesNoOther: a full type drops its own new events, and says how many.
func TestFloodOfOneTypeDisplacesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log fixture.Log
		q := notify.OpenQueue(t.TempDir(), log.Logger())
		defer q.Close()
		for n := range notify.MaxPerType + 7 {
			q.Add(stored(n))
		}
		q.Add(notify.NewEvent(notify.Damage, notify.Data{Host: "lab-01"}))
		if q.Dropped() != 7 {
			t.Errorf("dropped %d, want 7", q.Dropped())
		}
		entry, _, err := q.Oldest()
		fixture.Must(t, err)
		q.Remove(entry)
		q.Add(stored(1000))
		events := drain(t, q)
		if len(events) != notify.MaxPerType+1 {
			t.Fatalf("%d events, want %d", len(events), notify.MaxPerType+1)
		}
		if e := events[len(events)-2]; e.Type != notify.Damage || e.Dropped != 0 {
			t.Errorf("got %+v, want the damage", e)
		}
		if e := events[len(events)-1]; e.Data.Episode != "run-1000" || e.Dropped != 7 {
			t.Errorf("got %+v, want run-1000 after 7 that were dropped", e)
		}
		if n := strings.Count(log.String(), "queue of events is full"); n != 1 {
			t.Errorf("logged %d times that it is full:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "events are queued again") {
			t.Errorf("did not log that it works again:\n%s", log.String())
		}
	})
}

// TestFullQueueTakesEventsOnceAnotherProcessRemovedSome: the command's process removes what the daemon added.
func TestFullQueueTakesEventsOnceAnotherProcessRemovedSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		q, other := notify.OpenQueue(dir, silent), notify.OpenQueue(dir, silent)
		defer q.Close()
		defer other.Close()
		for n := range notify.MaxPerType + 1 {
			q.Add(stored(n))
		}
		drain(t, other)
		time.Sleep(2 * time.Second)
		q.Add(stored(1000))
		if events := drain(t, other); len(events) != 1 || events[0].Dropped != 1 {
			t.Errorf("got %v, want one event after one that was dropped", events)
		}
	})
}

// TestFailingDiskCostsOneLine: and the next event that can be written says what is missing.
func TestFailingDiskCostsOneLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	var log fixture.Log
	q := notify.OpenQueue(dir, log.Logger())
	defer q.Close()
	for n := range 5 {
		q.Add(stored(n))
	}
	fixture.Must(t, os.Mkdir(dir, 0o700))
	q.Add(stored(5))
	if events := drain(t, q); len(events) != 1 || events[0].Dropped != 5 {
		t.Errorf("got %v, want one event after five that were dropped", events)
	}
	if n := strings.Count(log.String(), "event not queued"); n != 1 {
		t.Errorf("logged %d failures:\n%s", n, log.String())
	}
}

// TestWhatIsNotAnEventIsRemoved: another user can write to the queue of the command.
func TestWhatIsNotAnEventIsRemoved(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	valid, err := stored(0).Encode()
	fixture.Must(t, errors.Join(err, os.WriteFile(secret, valid, 0o600)))
	at := func(name string) string { return filepath.Join(dir, name) }
	fixture.Must(t, errors.Join(
		os.WriteFile(at("00000000000000000001-stored.json"), []byte("no JSON"), 0o600),
		os.WriteFile(at("00000000000000000002-stored.json"), bytes.Repeat([]byte("x"), notify.MaxEvent+1), 0o600),
		os.Symlink(secret, at("00000000000000000003-stored.json")),
		syscall.Mkfifo(at("00000000000000000004-stored.json"), 0o600),
		os.WriteFile(at("00000000000000000005-damage.json"), valid, 0o600), // the type of another
		os.Link(secret, at("00000000000000000006-stored.json")),
		os.WriteFile(at("00000000000000000007-nothing.json"), valid, 0o600),
		os.WriteFile(at("notes"), nil, 0o600),
		os.WriteFile(at(".being-written"), nil, 0o600),
		os.Mkdir(at("00000000000000000008-stored.json"), 0o700),
	))
	var log fixture.Log
	q := notify.OpenQueue(dir, log.Logger())
	defer q.Close()
	q.Add(stored(1))
	for range 3 {
		if _, text, err := q.Oldest(); err != nil || !strings.Contains(string(text), "run-1") {
			t.Fatalf("got %s, %v", text, err)
		}
	}
	entries, err := os.ReadDir(dir)
	fixture.Must(t, err)
	if len(entries) != 3 { // the event, the hidden file and the directory
		t.Errorf("left: %v", entries)
	}
	if n := strings.Count(log.String(), "removed file from queue"); n != 8 {
		t.Errorf("logged %d removals, want 8:\n%s", n, log.String())
	}
	if n := strings.Count(log.String(), "file in queue not removed"); n != 1 {
		t.Errorf("logged %d times that the directory stays, want once:\n%s", n, log.String())
	}
}

func openNotifier(t *testing.T, c notify.Config, log *slog.Logger) (*notify.Notifier, string) {
	t.Helper()
	path := t.TempDir()
	data, err := durable.Open(path)
	fixture.Must(t, err)
	n, err := notify.Open(c, data, "test", log)
	fixture.Must(t, err)
	t.Cleanup(func() { n.Close(); data.Close() })
	return n, path
}

func closeNotifier(t *testing.T, n *notify.Notifier) {
	t.Helper()
	if ended, err := n.Close(); !ended || err != nil {
		t.Fatalf("closed: %v, %v", ended, err)
	}
}

// TestCloseSaysThatWritingHasNotEnded: its caller must leave the data directory open.
func TestCloseSaysThatWritingHasNotEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log fixture.Log
		n, _ := openNotifier(t, notify.Config{Events: notify.Types(), QueueDir: config.Path(filepath.Join(t.TempDir(), "missing"))}, log.Logger())
		synctest.Wait() // it has looked for its directory
		hanging := make(chan struct{})
		n.HangCommandQueue(hanging)
		n.Notify(notify.Event{Type: notify.Stored})
		if ended, err := n.Close(); ended || err != nil {
			t.Errorf("closed: %v, %v, want that it has not ended", ended, err)
		}
		if !strings.Contains(log.String(), "events not written at end") {
			t.Errorf("log:\n%s", log.String())
		}
		close(hanging)
		synctest.Wait()
		closeNotifier(t, n)
	})
}

// TestUnusableQueueIsReportedAtTheStart: not only with the first event.
func TestUnusableQueueIsReportedAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for dir, bad := range map[string]bool{t.TempDir(): false, filepath.Join(t.TempDir(), "missing"): true} {
			var log fixture.Log
			n, _ := openNotifier(t, notify.Config{Events: notify.Types(), QueueDir: config.Path(dir)}, log.Logger())
			synctest.Wait()
			if strings.Contains(log.String(), "command queue cannot be used") != bad {
				t.Errorf("%s:\n%s", dir, log.String())
			}
			closeNotifier(t, n)
		}
	})
}

// TestNotifyNeverBlocks: even while the disk of the queue hangs. Here the writer has ended instead.
func TestNotifyNeverBlocks(t *testing.T) {
	queue := t.TempDir()
	n, _ := openNotifier(t, notify.Config{Events: notify.Types(), QueueDir: config.Path(queue)}, silent)
	closeNotifier(t, n) // nothing takes events from the channel any more
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 10 * notify.MaxPending {
			n.Notify(notify.Event{Type: notify.Stored})
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("Notify blocks")
	}
}

// TestEventsInMemoryAreWrittenAtTheEnd: a stop loses nothing.
func TestEventsInMemoryAreWrittenAtTheEnd(t *testing.T) {
	queue := t.TempDir()
	n, data := openNotifier(t, notify.Config{
		Events: []notify.Type{notify.Stored}, QueueDir: config.Path(queue), URLFile: "/nowhere", SecretFile: "/nowhere",
	}, silent)
	for range 100 {
		n.Notify(notify.Event{Type: notify.Stored})
		n.Notify(notify.Event{Type: notify.Conflict}) // not wanted
	}
	closeNotifier(t, n)
	for _, dir := range []string{queue, filepath.Join(data, ".hooks")} {
		q := notify.OpenQueue(dir, silent)
		defer q.Close()
		events := drain(t, q)
		if len(events) != 100 {
			t.Fatalf("%s: %d events, want 100", dir, len(events))
		}
		seen := make(map[string]bool)
		for _, e := range events {
			if seen[e.ID] || e.Type != notify.Stored || e.Time.IsZero() {
				t.Errorf("got %+v", e)
			}
			seen[e.ID] = true
		}
	}
}

// TestWithoutHooksNothingIsCreated: and a nil Notifier does nothing.
func TestWithoutHooksNothingIsCreated(t *testing.T) {
	n, data := openNotifier(t, notify.DefaultConfig(), silent)
	n.Notify(notify.Event{Type: notify.Stored})
	n.Reload()
	n.Deliver(t.Context())
	closeNotifier(t, n)
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 0 || n != nil || n.Edges() != nil {
		t.Errorf("got %v, %v, %v", n, entries, err)
	}
}

// TestMadeUpNumberDoesNotStopAQueue: another user can create a file with the largest number.
func TestMadeUpNumberDoesNotStopAQueue(t *testing.T) {
	dir := t.TempDir()
	text, err := stored(0).Encode()
	fixture.Must(t, errors.Join(err, os.WriteFile(filepath.Join(dir, "09223372036854775807-stored.json"), text, 0o600)))
	q := notify.OpenQueue(dir, silent)
	defer q.Close()
	q.Add(stored(1))
	q.Add(stored(2))
	if events := drain(t, q); len(events) != 3 || events[0].Data.Episode != "run-1" || events[1].Data.Episode != "run-2" {
		t.Errorf("got %v, want run-1 and run-2 first", events)
	}
}

// TestTooManyNamesDoNotLiftTheBound: events among them could not be counted, so new ones are dropped until
// the reader has removed some.
func TestTooManyNamesDoNotLiftTheBound(t *testing.T) {
	dir := t.TempDir()
	for n := range notify.MaxNames + 1 {
		fixture.Must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("junk-%d", n)), nil, 0o600))
	}
	var log fixture.Log
	q, other := notify.OpenQueue(dir, log.Logger()), notify.OpenQueue(dir, silent)
	defer q.Close()
	defer other.Close()
	q.Add(stored(0))
	if q.Dropped() != 1 || !strings.Contains(log.String(), "has more than 10000 names") {
		t.Errorf("dropped %d:\n%s", q.Dropped(), log.String())
	}
	states := notify.Inspect(notify.Config{QueueDir: config.Path(dir)}, t.TempDir())
	if !strings.Contains(states[0].Error, "has more than 10000 names") {
		t.Errorf("state: %+v", states)
	}
	drain(t, other)
	q.Add(stored(1))
	if events := drain(t, other); len(events) != 1 || events[0].Dropped != 1 {
		t.Errorf("got %v, want one event after one that was dropped", events)
	}
}

// TestUnreadableFileBlocksNoOther in the queue of the command, to which another user can write. In the
// receiver's own directory it is an error.
func TestUnreadableFileBlocksNoOther(t *testing.T) {
	if os.Geteuid() == 0 {
		runtime.LockOSThread() // never unlocked: the thread ends with the test
		fixture.Must(t, unix.Setfsuid(65534))
	}
	dir := t.TempDir()
	var log fixture.Log
	q := notify.OpenQueue(dir, log.Logger())
	defer q.Close()
	q.Add(stored(0))
	q.Add(stored(1))
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	fixture.Must(t, errors.Join(err, os.Chmod(names[0], 0)))
	if _, _, err := q.Oldest(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want that it may not be read", err)
	}
	q.ShareQueue()
	for range 3 {
		if _, text, err := q.Oldest(); err != nil || !strings.Contains(string(text), "run-1") {
			t.Fatalf("got %s, %v", text, err)
		}
	}
	if n := strings.Count(log.String(), "event cannot be read"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, log.String())
	}
}

// TestOldestEventDoesNotDependOnNumbers: they stay ahead of the time if the clock once was.
func TestOldestEventDoesNotDependOnNumbers(t *testing.T) {
	dir := t.TempDir()
	text, err := stored(0).Encode()
	ahead := fmt.Sprintf("%020d-stored.json", time.Now().Add(20*time.Hour).UnixNano())
	fixture.Must(t, errors.Join(err, os.WriteFile(filepath.Join(dir, ahead), text, 0o600)))
	states := notify.Inspect(notify.Config{QueueDir: config.Path(dir)}, t.TempDir())
	if age := time.Since(states[0].Oldest); age < -time.Minute || age > time.Hour {
		t.Errorf("the oldest waits since %v", states[0].Oldest)
	}
}
