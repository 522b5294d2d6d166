package diskbackend_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// failReads opens what the store reads, except the archive of one episode.
func failReads(name string, err error) func(*durable.Dir, string) (io.ReadCloser, error) {
	return func(d *durable.Dir, file string) (io.ReadCloser, error) {
		if strings.HasPrefix(file, name+".") {
			return nil, &os.PathError{Op: "open", Path: file, Err: err}
		}
		return d.OpenUncached(file)
	}
}

// newLabOfThree is a lab with archives a, b and c.
func newLabOfThree(t *testing.T) *lab {
	t.Helper()
	l := newLab(t, nil)
	for i, name := range []string{"a", "b", "c"} {
		l.WantReceipt(key("lab-01", name), packNoise(1000, byte(i)), wire.Stored)
	}
	return l
}

// A scrub that could not open an archive has not read the store. The next scrub that can has.
func TestWhatCannotBeOpenedWasNotRead(t *testing.T) {
	for _, cause := range []error{unix.EACCES, unix.ELOOP} {
		synctest.Test(t, func(t *testing.T) {
			l := newLabOfThree(t)
			l.setDisk(failReads("b", cause))
			stop := l.startScrub()
			time.Sleep(10 * time.Minute)
			p := l.inspect().Scrub
			if p.Objects != 3 || p.Unreadable != 1 || p.NotOpened != 1 || p.Ended.IsZero() || !p.WholeSince.IsZero() {
				t.Errorf("%v: got %+v", cause, p)
			}
			stop()
			l.setDisk(nil)
			stop = l.startScrub()
			time.Sleep(l.cfg.Scrub.Interval.Std() + 10*time.Minute)
			stop()
			p = l.inspect().Scrub
			if p.NotOpened != 0 || p.Unreadable != 0 || p.WholeSince.IsZero() || !p.WholeSince.Equal(p.Started) {
				t.Errorf("%v: once it can be opened: %+v", cause, p)
			}
		})
	}
}

// A resource shortage of the process says nothing about an archive: the scrub waits, and
// continues at the same archive.
func TestAShortageStopsTheScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabOfThree(t)
		var short atomic.Bool
		short.Store(true)
		refuse := failReads("b", unix.EMFILE)
		l.setDisk(func(dir *durable.Dir, name string) (io.ReadCloser, error) {
			if short.Load() {
				return refuse(dir, name)
			}
			return dir.OpenUncached(name)
		})
		stop := l.startScrub()
		defer func() { stop() }()
		time.Sleep(10 * time.Minute)
		if p := l.inspect().Scrub; p.Objects != 1 || p.Episode != "a" || p.Unreadable != 0 || !p.Ended.IsZero() || !p.WholeSince.IsZero() {
			t.Errorf("got %+v", p)
		}
		short.Store(false)
		time.Sleep(2 * time.Hour)
		if p := l.inspect().Scrub; p.Objects != 3 || p.Unreadable != 0 || p.WholeSince.IsZero() {
			t.Errorf("after the shortage: %+v", p)
		}
	})
}

// A host must neither delete its copy of an archive that cannot be examined, nor send it in a
// PUT that meets the same obstacle.
func TestWhatCannotBeExaminedIsNotSentAgain(t *testing.T) {
	l := newLabOfThree(t)
	content := packNoise(1000, 1)
	if h := l.queryInventory(queryFor("b", content), true); h.VerifiedAt == nil {
		t.Fatalf("got %+v", h)
	}
	l.setDisk(failReads("b", unix.EACCES))
	if h := l.queryInventory(queryFor("b", content), true); h.State != wire.Present || !h.Unreadable || h.VerifiedAt != nil || h.Contents != nil || h.ReceivedAt == nil {
		t.Errorf("it cannot be read back: %+v", h)
	}
	for _, name := range []string{"b", "none"} { // a folder cannot be read as an archive
		path := filepath.Join(l.Data, "episodes", "lab-01", name+".tar.zst")
		fixture.Must(t, os.RemoveAll(path))
		fixture.Must(t, os.Mkdir(path, 0o750))
	}
	for _, readBack := range []bool{false, true} {
		if h := l.queryInventory(queryFor("b", content), readBack); h.State != wire.Present || !h.Unreadable || h.VerifiedAt != nil || h.ReceivedAt == nil || h.Size != int64(len(content)) {
			t.Errorf("by its row: %+v", h)
		}
		if h := l.queryInventory(queryFor("b", nil), readBack); h.State != wire.Divergent || !h.Unreadable || *h.Digest != queryFor("b", content).Digest {
			t.Errorf("of other bytes: %+v", h)
		}
		if h := l.queryInventory(queryFor("none", content), readBack); h.State != wire.Divergent || !h.Unreadable || !h.Digest.IsZero() || h.ReceivedAt != nil {
			t.Errorf("without a row: %+v", h)
		}
		if h := l.queryInventory(queryFor("a", packNoise(1000, 0)), readBack); h.State != wire.Present || h.Unreadable {
			t.Errorf("of the others: %+v", h)
		}
	}
}

// A disk that fails as a whole must not make all hosts send everything again.
func TestFailingDiskIsNotRepaired(t *testing.T) {
	l := newLabOfThree(t)
	l.WantReceipt(key("lab-01", "d"), packNoise(1000, 3), wire.Stored)
	l.WantReceipt(key("lab-01", "e"), packNoise(1000, 4), wire.Stored)
	l.setDisk(func(*durable.Dir, string) (io.ReadCloser, error) { return nil, errors.New("no medium") })
	lost := 0
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		switch h := l.queryInventory(queryFor(name, packNoise(1000, byte(i))), true); {
		case h.State == wire.StateDamaged:
			lost++
		case h.State != wire.Present || !h.Unreadable || h.VerifiedAt != nil:
			t.Errorf("%s: %+v", name, h)
		}
	}
	if lost != l.countQuarantined() || lost > 3 {
		t.Errorf("%d are said to be damaged, and %d were set aside", lost, l.countQuarantined())
	}
}

// The walk reads regular files alone: the row shows that another kind of file replaced an
// archive.
func TestALinkInPlaceOfAnArchiveIsFound(t *testing.T) {
	l := newLabOfThree(t)
	path := l.StoredPath(key("lab-01", "b"))
	fixture.Must(t, os.Rename(path, path+".away"))
	fixture.Must(t, os.Symlink(path+".away", path))
	if p, found := l.scrubOnce(scrub.Options{}); found != "missing b" || p.Objects != 2 || p.Missing != 1 {
		t.Errorf("got %+v, %q", p, found)
	}
}
