package diskbackend_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backendtest"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// outcome is the result of one of several uploads.
type outcome struct {
	receipt wire.Receipt
	err     error
}

// raceUploads uploads each content under one key, all of them before any commits.
func (l *lab) raceUploads(contents [][]byte) []outcome {
	l.Helper()
	k := key("h", "e")
	arrived, open, done := make(chan struct{}), make(chan struct{}), make(chan outcome)
	for _, content := range contents {
		go func() {
			r, err := l.b.Put(l.Context(), uploadOf(k, content), backendtest.StopBeforeLast(content, arrived, open))
			done <- outcome{r, err}
		}()
	}
	for range contents {
		fixture.ReceiveWithin(l, 10*time.Second, arrived, "an upload")
	}
	close(open)
	var all []outcome
	for range contents {
		all = append(all, fixture.ReceiveWithin(l, 10*time.Second, done, "an answer"))
	}
	return all
}

func TestRaceOfTheSameBytesStoresOnce(t *testing.T) {
	// On a disk, where the winner takes a while from its name to its row.
	l := newLab(t, func(c *diskbackend.Config) { c.DataDir = t.TempDir() })
	content := fixture.Noise(100_000, 1)
	statuses := map[wire.Status]int{}
	var times []time.Time
	for _, o := range l.raceUploads([][]byte{content, content, content, content, content, content, content, content}) {
		fixture.Must(t, o.err)
		statuses[o.receipt.Status]++
		times = append(times, o.receipt.ReceivedAt.Time)
	}
	if statuses[wire.Stored] != 1 || statuses[wire.AlreadyPresent] != 7 {
		t.Errorf("%v, want one stored and 7 already present", statuses)
	}
	for _, at := range times {
		if at.UnixMicro() != times[0].UnixMicro() {
			t.Errorf("the receipts tell %v", times)
		}
	}
	l.WantConsistent(1)
}

func TestRaceOfOtherBytesHasOneWinner(t *testing.T) {
	l := newLab(t, nil)
	var contents [][]byte
	for n := range 8 {
		contents = append(contents, fixture.Noise(100_000, byte(n)))
	}
	outcomes := l.raceUploads(contents)
	row := l.row(key("h", "e"))
	stored := 0
	for _, o := range outcomes {
		if o.err == nil {
			stored++
			if o.receipt.Digest != row.SHA256 || o.receipt.Status != wire.Stored {
				t.Errorf("%+v, but the row says %s", o.receipt, row.SHA256)
			}
			continue
		}
		if p, ok := errors.AsType[*wire.Problem](o.err); !ok || p.Code != wire.Conflict || p.Stored != row.SHA256 {
			t.Errorf("%v, want a conflict with %s", o.err, row.SHA256)
		}
	}
	if stored != 1 {
		t.Errorf("%d uploads were stored", stored)
	}
	l.WantConsistent(1)
}

// TestRowBelongsToOneUpload delays an upload between its name and its row. Another one of the
// same bytes must wait for it, or both would write a row.
func TestRowBelongsToOneUpload(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("h", "e"), fixture.Noise(1000, 1)
	f, err := os.OpenFile(filepath.Join(l.Data, durable.LogLockName(datadir.IndexFile)), os.O_RDWR, 0)
	fixture.Must(t, err)
	defer f.Close()
	fixture.Must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})) // as a backfill does
	answers := make(chan outcome, 2)
	put := func() {
		r, err := l.Put(k, content)
		answers <- outcome{r, err}
	}
	go put()
	again, cancel := time.NewTicker(time.Millisecond), time.After(10*time.Second)
	defer again.Stop()
	for _, err := os.Stat(l.StoredPath(k)); err != nil; _, err = os.Stat(l.StoredPath(k)) {
		select {
		case <-again.C:
		case <-cancel:
			t.Fatal("the archive does not come")
		}
	}
	go put()
	select {
	case o := <-answers:
		t.Errorf("an answer before the row: %+v", o)
	case <-time.After(200 * time.Millisecond): // long enough for the second to get as far as it can
	}
	fixture.Must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_UNLCK}))
	for range 2 {
		fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, answers, "an answer").err)
	}
	l.WantConsistent(1)
}
