package diskbackend_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// countUnverified returns how many of lab-01's archives a to d its host must keep.
func (l *lab) countUnverified() int {
	l.Helper()
	n := 0
	for i, name := range []string{"a", "b", "c", "d"} {
		h := l.queryInventory(queryFor(name, packNoise(1000, byte(i))), false)
		if h.State != wire.Present {
			l.Errorf("%s: got %+v, want State %v", name, h, wire.Present)
		}
		if h.VerifiedAt == nil {
			n++
		}
	}
	return n
}

// TestAnotherDiskWasNeverRead: the image of the disk was copied, including the position of the
// scrub. Hosts prune nothing until everything was verified there, and the log says so.
func TestAnotherDiskWasNeverRead(t *testing.T) {
	const warning = "stored archives must be read again"
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := newLab(t, nil)
		l.setDiskSerial("S1")
		for i, name := range []string{"a", "b", "c", "d"} {
			l.WantReceipt(key("lab-01", name), packNoise(1000, byte(i)), wire.Stored)
		}
		run := func(disk string, d time.Duration) scrub.Progress {
			l.setDiskSerial(disk)
			stop := l.startScrub()
			time.Sleep(d)
			stop()
			var p scrub.Progress
			b, err := os.ReadFile(l.Data + "/scrub.json")
			fixture.Must(t, errors.Join(err, json.Unmarshal(b, &p)))
			return p
		}
		if p := run("S1", 10*time.Minute); p.Objects != 4 || p.WholeSince.IsZero() || l.countUnverified() != 0 {
			t.Fatalf("on the first disk: %+v, %d to keep", p, l.countUnverified())
		}
		l.log = slog.NewTextHandler(&log, nil)
		l.restart(func() {})
		if p := run("S1", time.Minute); p.WholeSince.IsZero() || l.countUnverified() != 0 || strings.Contains(log.String(), warning) {
			t.Errorf("a start alone voids what was read: %+v, %d to keep\n%s", p, l.countUnverified(), log.String())
		}
		l.restart(func() {})
		if p := run("S2", time.Minute); !p.WholeSince.IsZero() || p.Objects != 0 || l.countUnverified() != 4 {
			t.Errorf("on another disk: %+v, %d to keep", p, l.countUnverified())
		}
		l.restart(func() {})
		l.CorruptStored(key("lab-01", "c")) // the copy has a flipped byte
		p := run("S2", 10*time.Minute)
		if p.Objects != 4 || p.Damaged != 1 || p.WholeSince.IsZero() {
			t.Errorf("on another disk, read: %+v", p)
		}
		if h := l.queryInventory(queryFor("c", packNoise(1000, 2)), false); h.VerifiedAt != nil {
			t.Errorf("of the flipped byte: %+v", h)
		}
		if n := strings.Count(log.String(), warning); n != 1 {
			t.Errorf("the log says %d times that all must be read again:\n%s", n, log.String())
		}
	})
}

// TestScrubNotesRowsThatAnOlderVersionDidNot, so that nothing needs to search for them.
func TestScrubNotesRowsThatAnOlderVersionDidNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		k := key("lab-01", "a")
		before := l.WantReceipt(k, packNoise(1000, 1), wire.Stored)
		var st unix.Stat_t
		fixture.Must(t, unix.Stat(l.StoredPath(k), &st))
		b := make([]byte, 64)
		n, err := unix.Getxattr(l.StoredPath(k), "user.cis490.receipt", b)
		fixture.Must(t, err)
		noted := bytes.Clone(b[:n])
		binary.BigEndian.PutUint64(b[n-8:n], st.Ino)
		fixture.Must(t, unix.Setxattr(l.StoredPath(k), "user.cis490.receipt", b[:n], 0))
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		n, err = unix.Getxattr(l.StoredPath(k), "user.cis490.receipt", b)
		fixture.Must(t, err)
		// The row has microseconds, and the attribute has the row's time.
		if !bytes.Equal(b[n-8:n], noted[n-8:]) || !bytes.Equal(b[:32], noted[:32]) {
			t.Errorf("noted %x, want %x", b[:n], noted)
		}
		if r := l.WantReceipt(k, packNoise(1000, 1), wire.AlreadyPresent); !r.ReceivedAt.Equal(before.ReceivedAt.Time) {
			t.Errorf("received at %v, want %v", r.ReceivedAt, before.ReceivedAt)
		}
		l.WantConsistent(1)
	})
}

// TestUnreadableUploadDoesNotKeepTheReceiverFromStarting: an interrupted upload that cannot be
// read stays if it has a row, and is quarantined if it has none. A disk that fails as a whole
// is a storage fault.
func TestUnreadableUploadDoesNotKeepTheReceiverFromStarting(t *testing.T) {
	for _, c := range []struct {
		archives, rows, kept, aside int
		fault                       bool
	}{
		{archives: 1, rows: 1, kept: 1},
		{archives: 1, rows: 0, aside: 1},
		{archives: 3, rows: 0, aside: 3},
		{archives: 5, rows: 0, kept: 2, aside: 3, fault: true},
	} {
		t.Run(fmt.Sprintf("%d with %d rows", c.archives, c.rows), func(t *testing.T) {
			l := newLab(t, nil)
			for i := range c.archives {
				k := key("lab-01", fmt.Sprint("run-", i))
				l.WantReceipt(k, packNoise(1000, byte(i)), wire.Stored)
			}
			if c.rows == 0 {
				l.restart(l.truncateIndex)
			}
			for i := range c.archives {
				k := key("lab-01", fmt.Sprint("run-", i))
				fixture.Must(t, os.Link(l.StoredPath(k), l.stagedPath(k)))
			}
			l.setDisk(func(*durable.Dir, string) (io.ReadCloser, error) {
				return nil, fmt.Errorf("open: %w: %w", durable.ErrFault, unix.EIO)
			})
			err := l.b.Recover(t.Context(), nil)
			if errors.Is(err, durable.ErrFault) != c.fault || err != nil && !c.fault {
				t.Errorf("got %v", err)
			}
			if n := l.countQuarantined(); n != c.aside {
				t.Errorf("%d set aside, want %d", n, c.aside)
			}
			kept, err := filepath.Glob(filepath.Join(l.Data, "episodes", "*", "*"))
			fixture.Must(t, err)
			if len(kept) != c.kept {
				t.Errorf("kept %q, want %d", kept, c.kept)
			}
		})
	}
}
