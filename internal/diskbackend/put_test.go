package diskbackend_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backendtest"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/wire"
)

func TestConflictComesBeforeTheBody(t *testing.T) {
	l := newLab(t, nil)
	first := fixture.Noise(1000, 1)
	l.WantReceipt(key("h", "e"), first, wire.Stored)
	_, err := l.b.Put(t.Context(), uploadOf(key("h", "e"), fixture.Noise(1000, 2)), untouched{t})
	p, ok := errors.AsType[*wire.Problem](err)
	if !ok || p.Code != wire.Conflict || p.Stored != uploadOf(key("h", "e"), first).Digest {
		t.Errorf("%v", err)
	}
	// So does the answer to the same bytes again. The same name of another host is free.
	if _, err := l.b.Put(t.Context(), uploadOf(key("h", "e"), first), untouched{t}); err != nil {
		t.Error(err)
	}
	l.WantReceipt(key("i", "e"), fixture.Noise(1000, 2), wire.Stored)
	l.WantConsistent(2)
}

// untouched is a body that must not be read.
type untouched struct{ tb testing.TB }

func (u untouched) Read([]byte) (int, error) {
	u.tb.Error("a refused body was read")
	return 0, io.EOF
}

func TestOtherBytesThanAnnouncedLeaveNothing(t *testing.T) {
	l := newLab(t, nil)
	content := fixture.Noise(300_000, 1)
	u := uploadOf(key("h", "e"), content)
	broken := errors.New("the sender left")
	for what, body := range map[string]io.Reader{
		"another byte": bytes.NewReader(append(bytes.Clone(content[:len(content)-1]), content[len(content)-1]^1)),
		"too short":    bytes.NewReader(content[1:]),
		"too long":     bytes.NewReader(append(bytes.Clone(content), 0)),
		"broken":       io.MultiReader(bytes.NewReader(content[:200_000]), iotest.ErrReader(broken)),
	} {
		_, err := l.b.Put(t.Context(), u, body)
		if p, ok := errors.AsType[*wire.Problem](err); what == "broken" && !errors.Is(err, broken) || what != "broken" && (!ok || p.Code != wire.DigestMismatch) {
			t.Errorf("%s: %v", what, err)
		}
		l.WantConsistent(0)
	}
	l.WantReceipt(u.Key, content, wire.Stored)
}

func TestReceiptIsThatOfTheRow(t *testing.T) {
	l := newLab(t, nil)
	k := key("h", "e")
	u := uploadOf(k, fixture.Noise(5000, 1))
	u.Skipped = 3
	r, err := l.b.Put(t.Context(), u, bytes.NewReader(fixture.Noise(5000, 1)))
	fixture.Must(t, err)
	row := l.row(k)
	if !row.ReceivedAt.Equal(r.ReceivedAt.Truncate(time.Microsecond)) || row.SHA256 != u.Digest || row.Size != 5000 || row.Skipped != 3 || row.Backfilled {
		t.Errorf("row %+v, receipt %+v", row, r)
	}
	again := l.WantReceipt(k, fixture.Noise(5000, 1), wire.AlreadyPresent)
	stat, err := l.b.Stat(t.Context(), k)
	if err != nil || stat != again || again.ReceivedAt != r.ReceivedAt {
		t.Errorf("first %+v\nagain %+v\nstat %+v, %v", r, again, stat, err)
	}
	if _, err := l.b.Stat(t.Context(), key("h", "none")); !errors.Is(err, wire.NotFound) {
		t.Errorf("got %v, want %v", err, wire.NotFound)
	}
}

func TestSlotsAreBoundedPerHostAndInAll(t *testing.T) {
	l := newLab(t, func(c *diskbackend.Config) { c.Uploads, c.UploadsPerHost = 3, 2 })
	l.b.Uploads().MaxWait = 0
	content := fixture.Noise(1000, 1)
	arrived, open, done := make(chan struct{}), make(chan struct{}), make(chan error)
	begin := func(host, name string) {
		go func() {
			_, err := l.b.Put(t.Context(), uploadOf(key(host, name), content), backendtest.StopBeforeLast(content, arrived, open))
			done <- err
		}()
		fixture.ReceiveWithin(t, 10*time.Second, arrived, "an upload")
	}
	begin("h", "1")
	begin("h", "2")
	if p := l.WantRefusal(key("h", "3"), content, wire.HostBusy); p.RetryAfter <= 0 {
		t.Error("no Retry-After")
	}
	begin("i", "1") // others continue
	if p := l.WantRefusal(key("k", "1"), content, wire.Busy); p.RetryAfter <= 0 {
		t.Error("no Retry-After")
	}
	close(open)
	for range 3 {
		fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, done, "an answer"))
	}
	l.WantReceipt(key("h", "3"), content, wire.Stored) // the places are free again
	l.WantReceipt(key("k", "1"), content, wire.Stored)
	l.WantConsistent(5)
}

func TestTooLargeComesBeforeTheBody(t *testing.T) {
	l := newLab(t, func(c *diskbackend.Config) { c.ArchiveBytes = 1000 })
	if _, err := l.b.Put(t.Context(), uploadOf(key("h", "e"), fixture.Noise(1001, 1)), untouched{t}); !errors.Is(err, wire.TooLarge) {
		t.Errorf("got %v, want %v", err, wire.TooLarge)
	}
	l.WantReceipt(key("h", "e"), fixture.Noise(1000, 1), wire.Stored)
}

// TestUploadsTogetherStayAboveTheFloor: each alone would fit.
func TestUploadsTogetherStayAboveTheFloor(t *testing.T) {
	l := newLab(t, func(c *diskbackend.Config) {
		c.DataDir, c.MinFree = fixture.MountTmpfs(t, "size=8m"), 2<<20
	})
	big := fixture.Noise(4<<20, 1)
	arrived, open, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		late := io.MultiReader(backendtest.StopBeforeLast(big[:1], arrived, open), bytes.NewReader(big[1:])) // promised, and not written
		_, err := l.b.Put(t.Context(), uploadOf(key("h", "1"), big), late)
		done <- err
	}()
	fixture.ReceiveWithin(t, 10*time.Second, arrived, "the first upload")
	_, err := l.b.Put(t.Context(), uploadOf(key("h", "2"), big), untouched{t})
	if p, ok := errors.AsType[*wire.Problem](err); !ok || p.Code != wire.Full || p.RetryAfter <= 0 {
		t.Errorf("%v", err)
	}
	if s, err := l.b.Storage(t.Context(), "h"); err != nil || s.FreeBytes > 2<<20 || !s.Accepting {
		t.Errorf("a ping tells %+v, %v", s, err)
	}
	l.WantReceipt(key("h", "3"), fixture.Noise(1<<20, 3), wire.Stored) // a small one fits beside it
	close(open)
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, done, "the first upload"))
	l.WantRefusal(key("h", "2"), big, wire.Full)
	l.WantConsistent(2)
	fixture.Must(t, os.Remove(l.StoredPath(key("h", "1"))))
	if s, _ := l.b.Storage(t.Context(), "h"); s.FreeBytes < 4<<20 {
		t.Errorf("promises are not given back: %+v", s)
	}
}

// TestPromisesAreGivenBack: failed uploads must not use up the space.
func TestPromisesAreGivenBack(t *testing.T) {
	l := newLab(t, func(c *diskbackend.Config) { c.DataDir = fixture.MountTmpfs(t, "size=8m") })
	big := fixture.Noise(5<<20, 1)
	for n := range 10 {
		_, err := l.b.Put(t.Context(), uploadOf(key("h", "e"), big), io.MultiReader(bytes.NewReader(big[:n<<18]), iotest.ErrReader(context.Canceled)))
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("attempt %d: %v", n, err)
		}
	}
	l.WantReceipt(key("h", "e"), big, wire.Stored)
}

// TestRowWithoutSpaceIsWrittenLater fills the disk after the body: the archive is stored, its
// client is told to retry, and then there is one row.
func TestRowWithoutSpaceIsWrittenLater(t *testing.T) {
	for _, healing := range []string{"by the next attempt", "by the next start"} {
		t.Run(healing, func(t *testing.T) {
			l := newLab(t, func(c *diskbackend.Config) { c.DataDir = fixture.MountTmpfs(t, "size=1m") })
			l.WantReceipt(key("i", "other"), fixture.Noise(10, 2), wire.Stored)
			fillIndexPage(t, filepath.Join(l.Data, datadir.IndexFile))
			k, content := key("h", "e"), fixture.Noise(10_000, 1)
			filler := filepath.Join(l.Data, "filler")
			last := readerFunc(func([]byte) (int, error) { fixture.FillDisk(t, filler); return 0, io.EOF })
			_, err := l.b.Put(t.Context(), uploadOf(k, content), io.MultiReader(bytes.NewReader(content), last))
			if p, ok := errors.AsType[*wire.Problem](err); !ok || p.Code != wire.Full {
				t.Fatalf("%v, want %s", err, wire.Full)
			}
			l.WantStaged(1)
			if _, err := os.Stat(l.StoredPath(k)); err != nil {
				t.Error(err)
			}
			l.WantRefusal(k, content, wire.Full) // still no space: nothing is acknowledged
			fixture.Must(t, os.Remove(filler))
			later := l.WantReceipt(key("i", "later"), fixture.Noise(10, 3), wire.Stored)
			if healing == "by the next start" {
				l.restart(func() {})
				l.row(k)
			}
			first := l.WantReceipt(k, content, wire.AlreadyPresent)
			again := l.WantReceipt(k, content, wire.AlreadyPresent)
			row := l.row(k)
			if !row.ReceivedAt.Equal(first.ReceivedAt.Truncate(time.Microsecond)) || first != again {
				t.Errorf("row %v\nfirst %v\nagain %v\n(after %v)", row.ReceivedAt, first.ReceivedAt, again.ReceivedAt, later.ReceivedAt)
			}
			l.WantStaged(0)
		})
	}
}

// fillIndexPage extends the index to the end of a page, so that the next row needs a new one.
func fillIndexPage(tb testing.TB, path string) {
	tb.Helper()
	info, err := os.Stat(path)
	fixture.Must(tb, err)
	row := index.Row{ReceivedAt: time.Now(), Key: key("h", "filler"), SHA256: [32]byte{1}}
	line := string(row.Append(nil)[1:])
	const note, end = `{"note": "`, `", `
	missing := 4096 - (int(info.Size())+len(note+end+line))%4096
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	fixture.Must(tb, err)
	defer f.Close()
	_, err = f.WriteString(note + strings.Repeat("x", missing) + end + line)
	fixture.Must(tb, err)
}

// TestCopyByHandGetsItsRow: a file of which the index knows nothing is not
// acknowledged before it does, also one that was copied with its attributes.
func TestCopyByHandGetsItsRow(t *testing.T) {
	for _, attributes := range []bool{false, true} {
		l := newLab(t, nil)
		content := fixture.Noise(5000, 1)
		l.WantReceipt(key("h", "from"), content, wire.Stored)
		k := key("h", "copy")
		fixture.Must(t, os.WriteFile(l.StoredPath(k), content, 0o640))
		if attributes {
			copyAttributes(t, l.StoredPath(key("h", "from")), l.StoredPath(k))
		}
		l.WantRefusal(k, fixture.Noise(5000, 2), wire.Conflict)
		l.WantReceipt(k, content, wire.AlreadyPresent)
		l.WantReceipt(k, content, wire.AlreadyPresent)
		if rows := l.Rows(); len(rows) != 2 {
			t.Errorf("with attributes %v: %d rows, want 2", attributes, len(rows))
		}
	}
}

func copyAttributes(tb testing.TB, from, to string) {
	tb.Helper()
	names := make([]byte, 1024)
	n, err := unix.Listxattr(from, names)
	fixture.Must(tb, err)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		value := make([]byte, 1024)
		n, err := unix.Getxattr(from, name, value)
		fixture.Must(tb, err)
		fixture.Must(tb, unix.Setxattr(to, name, value[:n], 0))
	}
}

func TestArrivalNeverGoesBack(t *testing.T) {
	for ahead, back := range map[time.Duration]bool{time.Hour: false, 30 * 24 * time.Hour: true} {
		l := newLab(t, nil)
		last := time.Now().Add(ahead).UTC()
		l.restart(func() {
			row := index.Row{ReceivedAt: last, Key: key("h", "future"), SHA256: [32]byte{1}, Size: 1}
			fixture.Must(t, os.WriteFile(filepath.Join(l.Data, datadir.IndexFile), row.Append(nil), 0o640))
		})
		r := l.WantReceipt(key("h", "now"), fixture.Noise(10, 1), wire.Stored)
		if before := r.ReceivedAt.Before(last.Truncate(time.Microsecond)); before != back {
			t.Errorf("%v ahead: the next row is of %v", ahead, r.ReceivedAt)
		}
	}
}

func TestDamagedCopyIsNeverAcknowledged(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("h", "e"), fixture.Noise(100_000, 1)
	l.WantReceipt(k, content, wire.Stored)
	bad := bytes.Clone(content)
	bad[77_777] ^= 1
	f, err := os.OpenFile(l.StoredPath(k), os.O_WRONLY, 0)
	fixture.Must(t, err)
	_, err = f.WriteAt(bad, 0)
	fixture.Must(t, err)
	fixture.Must(t, f.Close())
	l.WantRefusal(k, fixture.Noise(100_000, 2), wire.Conflict) // a corrupt copy does not free the name for other bytes
	l.WantReceipt(k, content, wire.Stored)                     // not already-present: the copy is the new one
	got, err := os.ReadFile(l.StoredPath(k))
	fixture.Must(t, err)
	if !bytes.Equal(got, content) {
		t.Error("the damaged copy is still there")
	}
	aside, err := filepath.Glob(filepath.Join(l.Data, "quarantine", "h", "e~*"))
	fixture.Must(t, err)
	if len(aside) != 1 {
		t.Fatalf("set aside: %q, want one", aside)
	}
	if got, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(got, bad) {
		t.Errorf("what was set aside is not the damaged copy: %v", err)
	}
	var repaired []bool
	for _, row := range l.Rows() {
		repaired = append(repaired, row.Repaired)
	}
	if !slices.Equal(repaired, []bool{false, true}) {
		t.Errorf("repaired in the rows: %v, want the second only", repaired)
	}
	l.WantReceipt(k, content, wire.AlreadyPresent)
	l.WantStaged(0)
}

// A crash between the quarantine and the new name leaves a row without a file: the row of the
// next upload still supersedes it.
func TestRepairIsLoggedAfterACrash(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("h", "e"), fixture.Noise(1000, 1)
	l.WantReceipt(k, content, wire.Stored)
	l.restart(func() {
		fixture.Must(t, os.MkdirAll(filepath.Join(l.Data, "quarantine", "h"), 0o750))
		fixture.Must(t, os.Rename(l.StoredPath(k), filepath.Join(l.Data, "quarantine", "h", "e~aside")))
	})
	l.WantReceipt(k, content, wire.Stored)
	if rows := l.Rows(); len(rows) != 2 || !rows[1].Repaired {
		t.Errorf("rows: %+v", rows)
	}
}
