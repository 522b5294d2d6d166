package diskbackend_test

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// partAttr is the attribute with the offset of a partial upload.
const partAttr = "user.cis490.upload"

// leavePartial leaves 300000 bytes of an upload, and returns it and its file.
func (l *lab) leavePartial() (wire.Upload, string) {
	l.Helper()
	u := uploadOf(partKey, resumed)
	l.sendInterrupted(l.wantAnnounced(u, 0), resumed, 300_000)
	staged, err := filepath.Glob(filepath.Join(l.Data, "staging", "lab-01", "part~*"))
	fixture.Must(l, err)
	if len(staged) != 1 {
		l.Fatalf("staging has %q", staged)
	}
	return u, staged[0]
}

// TestPartThatLiesIsDropped at a start: whatever its attribute says, no upload is attached to a
// part that cannot be continued.
func TestPartThatLiesIsDropped(t *testing.T) {
	t.Parallel()
	number := func(at int, n uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], n); return b }
	}
	const length, skipped, offset, state = 34, 42, 50, 58
	for what, lie := range map[string]func(b []byte) []byte{
		"nothing":            func([]byte) []byte { return nil },
		"a beginning":        func(b []byte) []byte { return b[:offset] },
		"no state":           func(b []byte) []byte { return b[:state] },
		"half a state":       func(b []byte) []byte { return b[:state+20] },
		"another state":      func(b []byte) []byte { b[state] ^= 1; return b },
		"another version":    func(b []byte) []byte { b[0]++; return b },
		"noise":              func(b []byte) []byte { return fixture.Noise(len(b), 3) },
		"more than the file": number(offset, 300_001),
		"more than all":      number(offset, 1<<20+1),
		"less than nothing":  number(offset, 1<<64-1),
		"a small archive":    number(length, 299_999),
		"a negative archive": number(length, 1<<63),
		"negative skipped":   number(skipped, 1<<63),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, nil)
			u, path := l.leavePartial()
			l.restart(func() {
				b := make([]byte, 512)
				n, err := unix.Getxattr(path, partAttr, b)
				fixture.Must(t, err)
				fixture.Must(t, unix.Setxattr(path, partAttr, lie(b[:n]), 0))
			})
			l.WantStaged(0)
			l.sendRest(u, l.wantAnnounced(u, 0), resumed, wire.Stored)
			l.WantConsistent(1)
		})
	}
}

// TestPartThatLostItsEndIsDropped: a file that is shorter than what was durable.
func TestPartThatLostItsEndIsDropped(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u, path := l.leavePartial()
	l.restart(func() { fixture.Must(t, os.Truncate(path, 299_999)) })
	l.WantStaged(0)
	l.sendRest(u, l.wantAnnounced(u, 0), resumed, wire.Stored)
	l.WantConsistent(1)
}

// TestStateOfOtherBytesIsSeen: the attribute is valid, and belongs to another part. The end
// does not have the digest, nothing is stored, and the host begins again.
func TestStateOfOtherBytesIsSeen(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u, path := l.leavePartial()
	l.restart(func() {
		b := make([]byte, 512)
		n, err := unix.Getxattr(path, partAttr, b)
		fixture.Must(t, err)
		binary.BigEndian.PutUint64(b[50:], 200_000)
		fixture.Must(t, unix.Setxattr(path, partAttr, b[:n], 0))
	})
	_, _, err := l.sendPiece(l.wantAnnounced(u, 200_000), resumed, 200_000, len(resumed), true)
	l.wantCode("the end", err, wire.DigestMismatch)
	l.WantConsistent(0)
	l.sendRest(u, l.wantAnnounced(u, 0), resumed, wire.Stored)
	l.WantConsistent(1)
}

// TestDamagedPartIsNeverAcknowledged: while no receiver ran, a byte below the offset was
// flipped or became unreadable. The state of the sha256 does not show it.
func TestDamagedPartIsNeverAcknowledged(t *testing.T) {
	t.Parallel()
	for what, unreadable := range map[string]bool{"flipped": false, "lost": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, nil)
			u, path := l.leavePartial()
			l.restart(func() {
				if !unreadable {
					flipByte(t, path, 1000)
				}
			})
			if unreadable {
				l.setDisk(func(*durable.Dir, string) (io.ReadCloser, error) {
					return io.NopCloser(readerFunc(func([]byte) (int, error) { return 0, unix.EIO })), nil
				})
			}
			_, _, err := l.sendPiece(l.wantAnnounced(u, 300_000), resumed, 300_000, len(resumed), true)
			l.wantCode("the end", err, wire.DigestMismatch)
			l.WantConsistent(0)
			l.sendRest(u, l.wantAnnounced(u, 0), resumed, wire.Stored)
			l.WantConsistent(1)
		})
	}
}

func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	fixture.Must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	fixture.Must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	fixture.Must(t, err)
}

// TestPartThatWasRemovedIsStartedOver: an operator removed files from staging while the receiver
// ran. The host must not be refused until the next start.
func TestPartThatWasRemovedIsStartedOver(t *testing.T) {
	t.Parallel()
	for what, tidy := range map[string]func(path string) error{
		"removed":  os.Remove,
		"emptied":  func(path string) error { return os.Truncate(path, 0) },
		"replaced": func(path string) error { return os.Rename(path, path+".old") },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, nil)
			u, path := l.leavePartial()
			fixture.Must(t, tidy(path))
			_, _, err := l.sendPiece(l.wantAnnounced(u, 300_000), resumed, 300_000, len(resumed), true)
			l.wantCode("the end", err, wire.NoUpload)
			l.sendRest(u, l.wantAnnounced(u, 0), resumed, wire.Stored)
		})
	}
}
