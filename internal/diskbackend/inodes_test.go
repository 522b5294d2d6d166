package diskbackend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cis490/internal/diskbackend"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// limitInodes puts the store on a disk with 400 inodes, an eighth of which stay free.
func limitInodes(t *testing.T) func(*diskbackend.Config) {
	disk := fixture.MountTmpfs(t, "size=64m,nr_inodes=400")
	return func(c *diskbackend.Config) { c.DataDir = disk }
}

// freeInodes returns the number of free inodes of the lab's disk.
func (l *lab) freeInodes() int {
	l.Helper()
	var s syscall.Statfs_t
	fixture.Must(l, syscall.Statfs(l.Data, &s))
	return int(s.Ffree)
}

// exhaustInodes creates foreign files until no more can be created. It returns a function that
// removes them.
func (l *lab) exhaustInodes() (remove func()) {
	l.Helper()
	dir := filepath.Join(l.Data, "others")
	fixture.Must(l, os.Mkdir(dir, 0o700))
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return func() { fixture.Must(l, os.RemoveAll(dir)) }
		}
		fixture.Must(l, f.Close())
	}
}

// TestUploadsLeaveInodes: archives of a few bytes use up inodes long before bytes.
func TestUploadsLeaveInodes(t *testing.T) {
	l := newLab(t, limitInodes(t))
	var refused *wire.Problem
	stored := 0
	for i := range 400 {
		k, content := key(fmt.Sprint("h", i%3), fmt.Sprint("e", i)), fixture.Noise(10, byte(i))
		r, err := l.Put(k, content)
		if err == nil && r.Status == wire.Stored {
			stored++
			continue
		}
		refused = l.WantRefusal(k, content, wire.Full)
		break
	}
	if refused == nil || refused.Detail != "the receiver's disk has no free inodes above min_free_inodes: it holds too many files" {
		t.Errorf("refused with %v after %d archives", refused, stored)
	}
	if free := l.freeInodes(); stored < 298 || free < 400/8 {
		t.Errorf("%d archives are stored, and %d inodes are free, want at least 298, and 50", stored, free)
	}
	s, err := l.b.Storage(t.Context(), "other")
	if err != nil || s.Accepting || s.FreeInodes == nil || *s.FreeInodes > 3 || s.FreeBytes == 0 || s.Detail != refused.Detail {
		t.Errorf("a ping is told %+v, %v", s, err)
	}
	l.WantConsistent(stored)
}

// TestReceiverStartsWithoutAFreeInode and reports it. It serves what it has.
func TestReceiverStartsWithoutAFreeInode(t *testing.T) {
	l := newLab(t, limitInodes(t))
	l.WantReceipt(key("h", "1"), fixture.Noise(10, 1), wire.Stored)
	var remove func()
	l.restart(func() { remove = l.exhaustInodes() })
	if free := l.freeInodes(); free != 0 {
		t.Fatalf("%d inodes are free", free)
	}
	l.WantReceipt(key("h", "1"), fixture.Noise(10, 1), wire.AlreadyPresent)
	l.WantRefusal(key("h", "2"), fixture.Noise(10, 2), wire.Full)
	st, err := diskbackend.InspectStatus(l.cfg, time.Now())
	if err != nil || st.FreeInodes == nil || *st.FreeInodes != 0 || st.MinFreeInodes != 50 || len(st.Problems) != 1 {
		t.Errorf("status says %+v, %v", st, err)
	}
	remove()
	l.WantReceipt(key("h", "2"), fixture.Noise(10, 2), wire.Stored)
	l.WantConsistent(2)
}
