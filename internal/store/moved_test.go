package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/device"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

// useOnDisk opens the store at path, on a disk with the serial number, for use.
func useOnDisk(tb testing.TB, path, serial string, use func(l *lab)) {
	tb.Helper()
	d, err := durable.Open(path)
	fixture.Must(tb, err)
	defer d.Close()
	s, err := store.Open(d)
	fixture.Must(tb, err)
	defer s.Close()
	episodes, err := os.Open(filepath.Join(path, "episodes"))
	fixture.Must(tb, err)
	defer episodes.Close()
	s.Volumes, err = device.OpenDisk(episodes, serial)
	fixture.Must(tb, err)
	use(&lab{tb, path, s})
}

// archives is the number of archives in the original report.
const archives = 40

func keyNumber(i int) episode.Key { return key("lab-01", fmt.Sprintf("run-%02d", i)) }

// fillStore stores all archives, and verifies them.
func fillStore(l *lab) {
	l.Helper()
	for i := range archives {
		l.put(keyNumber(i), fmt.Sprint("bytes of ", i))
		_, err := l.readBack(keyNumber(i))
		fixture.Must(l, err)
	}
	if settled, verified := l.countMarks(); settled != archives || verified != archives {
		l.Fatalf("%d settled and %d verified", settled, verified)
	}
}

// countMarks returns how many archives have a valid mark that they are indexed, or verified.
func (l *lab) countMarks() (settled, verified int) {
	l.Helper()
	for i := range archives {
		o, err := l.Stat(keyNumber(i))
		fixture.Must(l, err)
		if o.Digest.IsZero() {
			l.Errorf("%s has lost its digest", o.Key)
		}
		if o.Indexed {
			settled++
		}
		if !o.VerifiedAt.IsZero() {
			verified++
		}
	}
	return settled, verified
}

// inodesOf returns the inode numbers of all archives.
func inodesOf(tb testing.TB, data string) map[episode.Key]uint64 {
	tb.Helper()
	numbers := map[episode.Key]uint64{}
	for i := range archives {
		k := keyNumber(i)
		var st unix.Stat_t
		fixture.Must(tb, unix.Stat(filepath.Join(data, "episodes", string(k.Host), string(k.Name)+store.Suffix), &st))
		numbers[k] = st.Ino
	}
	return numbers
}

// reuseInodes makes files in the store at path, to be overwritten by the archives whose inode
// numbers they have. The order in which a file system allocates the numbers is random, so files
// are made until all numbers have occurred, up to a reasonable number.
func reuseInodes(tb testing.TB, numbers map[episode.Key]uint64, path string) {
	tb.Helper()
	wanted := map[uint64]episode.Key{}
	for k, n := range numbers {
		wanted[n] = k
		fixture.Must(tb, os.MkdirAll(filepath.Join(path, "episodes", string(k.Host)), 0o750))
	}
	for i := range 32 { // XFS and ext4 spread folders over the disk, and files with them
		dir := filepath.Join(path, "numbers", fmt.Sprint(i))
		fixture.Must(tb, os.MkdirAll(dir, 0o750))
		for j := 0; j < 256 && len(wanted) > 0; j++ {
			name := filepath.Join(dir, fmt.Sprint(j))
			fixture.Must(tb, os.WriteFile(name, nil, 0o640))
			var st unix.Stat_t
			fixture.Must(tb, unix.Stat(name, &st))
			if k, found := wanted[st.Ino]; found {
				fixture.Must(tb, os.Rename(name, filepath.Join(path, "episodes", string(k.Host), string(k.Name)+store.Suffix)))
				delete(wanted, st.Ino)
			}
		}
	}
}

// TestACopiedStoreWasNeverRead: it was copied file by file with all attributes, as with rsync
// -aX, even where inode numbers coincide.
func TestACopiedStoreWasNeverRead(t *testing.T) {
	for kind := range fixture.FileSystems {
		t.Run(kind, func(t *testing.T) {
			from, _ := fixture.MountImage(t, fixture.MakeImage(t, kind))
			to, _ := fixture.MountImage(t, fixture.MakeImage(t, kind))
			useOnDisk(t, from, "S1", fillStore)
			reuseInodes(t, inodesOf(t, from), to)
			fixture.Must(t, exec.Command("cp", "-a", filepath.Join(from, "episodes"), to).Run())
			coincide, old := 0, inodesOf(t, from)
			for k, n := range inodesOf(t, to) {
				if old[k] == n {
					coincide++
				}
			}
			if coincide == 0 {
				t.Error("no inode number coincides: this test shows nothing")
			}
			for _, serial := range []string{"S1", "S2"} { // the disk's number alone must not count either
				useOnDisk(t, to, serial, func(l *lab) {
					if settled, verified := l.countMarks(); settled != 0 || verified != 0 {
						t.Errorf("on the disk %s %d are settled and %d verified, of files that were never read", serial, settled, verified)
					}
				})
			}
			useOnDisk(t, from, "S1", func(l *lab) {
				if settled, verified := l.countMarks(); settled != archives || verified != archives {
					t.Errorf("where they were read, %d are settled and %d verified", settled, verified)
				}
			})
		})
	}
}

// TestACopiedImageWasNeverRead: UUID, inode numbers and birth times are the same, but the disk
// is not. The files still have their rows: the index was copied too.
func TestACopiedImageWasNeverRead(t *testing.T) {
	for kind := range fixture.FileSystems {
		t.Run(kind, func(t *testing.T) {
			image := fixture.MakeImage(t, kind)
			from, unmount := fixture.MountImage(t, image)
			useOnDisk(t, from, "S1", fillStore)
			unmount()
			copied := filepath.Join(t.TempDir(), "copy")
			fixture.Must(t, exec.Command("cp", "--sparse=always", image, copied).Run())
			to, _ := fixture.MountImage(t, copied)
			useOnDisk(t, to, "S1", func(l *lab) {
				if settled, verified := l.countMarks(); settled != archives || verified != archives {
					t.Errorf("a mount alone voids readings: %d settled, %d verified", settled, verified)
				}
			})
			useOnDisk(t, to, "S2", func(l *lab) {
				if settled, verified := l.countMarks(); settled != archives || verified != 0 {
					t.Errorf("%d are settled and %d verified, on a disk that was never read", settled, verified)
				}
				flipByte(t, l.storedPath(keyNumber(7)))
				if _, err := l.readBack(keyNumber(7)); !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("the flipped byte is not found: %v", err)
				}
				if o, err := l.Stat(keyNumber(7)); err != nil || !o.VerifiedAt.IsZero() {
					t.Errorf("it counts as verified: %+v, %v", o, err)
				}
				if o, err := l.readBack(keyNumber(8)); err != nil || o.VerifiedAt.IsZero() {
					t.Errorf("what is right there: %+v, %v", o, err)
				}
				if _, verified := l.countMarks(); verified != 1 {
					t.Errorf("%d verified, want the one that was read", verified)
				}
			})
		})
	}
}

// TestWhatAnOlderVersionNotedDoesNotCount: it identified a file by its inode number. The digest
// and the time stay, and new marks have a length that it can read.
func TestWhatAnOlderVersionNotedDoesNotCount(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	_, err := l.readBack(k)
	fixture.Must(t, err)
	d := sum("bytes")
	var st unix.Stat_t
	fixture.Must(t, unix.Stat(l.storedPath(k), &st))
	old := binary.BigEndian.AppendUint64(d[:], uint64(arrival.UnixNano()))
	old = binary.BigEndian.AppendUint64(old, st.Ino)
	fixture.Must(t, unix.Setxattr(l.storedPath(k), "user.cis490.receipt", old, 0))
	fixture.Must(t, unix.Setxattr(l.storedPath(k), "user.cis490.verified", append(old[:len(old):len(old)], 1), 0))
	o, err := l.Stat(k)
	if err != nil || o.Indexed || !o.VerifiedAt.IsZero() || o.Digest != d || !o.ReceivedAt.Equal(arrival) {
		t.Errorf("got %+v, %v", o, err)
	}
	fixture.Must(t, l.MarkIndexed(o))
	if o, err = l.Stat(k); err != nil || !o.Indexed || !o.ReceivedAt.Equal(arrival) {
		t.Errorf("after its row was found: %+v, %v", o, err)
	}
	b := make([]byte, 256)
	n, err := unix.Getxattr(l.storedPath(k), "user.cis490.receipt", b)
	if err != nil || n != 48 || digest.Digest(b[:digest.Size]) != d {
		t.Errorf("an older version reads %d bytes: %x, %v", n, b[:n], err)
	}
	_, err = l.readBack(k)
	fixture.Must(t, err)
	if n, err = unix.Getxattr(l.storedPath(k), "user.cis490.verified", b); err != nil || b[n-1] == 1 {
		t.Errorf("an older version takes %x for its own, %v", b[:n], err)
	}
}

// The digest of the contents that a check computed is kept with the reading, and goes
// with it.
func TestContentsAreKeptWithTheReading(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	how := passing
	how.Check = checkReturning("contents", nil)
	if o, err := l.ReadBack(t.Context(), k, digest.Digest{}, how); err != nil || o.Contents != sum("contents") {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := l.Stat(k); err != nil || o.Contents != sum("contents") {
		t.Errorf("Stat says %+v, %v", o, err)
	}
	how.Check = checkReturning("contents", errors.New("no"))
	if o, err := l.ReadBack(t.Context(), k, digest.Digest{}, how); !errors.Is(err, store.ErrUndecodable) || !o.Contents.IsZero() {
		t.Errorf("of what is unfit: %+v, %v", o, err)
	}
	if o, err := l.Stat(k); err != nil || !o.Contents.IsZero() {
		t.Errorf("then Stat says %+v, %v", o, err)
	}
}
