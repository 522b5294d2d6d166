package crashtest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// TestFailedSyncIsNeverAcknowledged uses a real fault: the receiver's file system is on a
// sparse file in a full memory file system, so a write succeeds and its writeback fails. Thin
// volumes, worn cards and pulled cables behave like this. The receiver ends with 74. What it
// had acknowledged is still there when it starts again, on a disk that was given space and
// mounted again.
func TestFailedSyncIsNeverAcknowledged(t *testing.T) {
	needMounts(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			s, thin := newThinSite(t, fs)
			s.Start()
			s.runUploads(200 * time.Millisecond)
			h := s.hosts[0]
			h.Once().MustExit(t, 0)
			// Nothing may be in flight now: the loop device reports success for a write of
			// which only a part fit.
			fixture.Must(t, s.store.Sync())
			thin.fillPool(t)
			s.runUploads(time.Hour) // until the first error
			if code := s.Process().Wait(t); code != 74 {
				t.Errorf("the receiver ended with %d, want 74\n%s", code, s.Process().Output())
			}
			promised := s.acknowledged(nil)
			h.Episode("run-away")
			h.Once().MustExit(t, 4)

			fixture.Must(t, os.Remove(thin.ballast)) // the operator's fix, and a reboot
			fixture.Must(t, s.store.Reattach())
			s.Start()
			s.checkPromises(t, promised)
			h.Once().MustExit(t, 0)
			s.wire.sendWaiting(t)
			s.Settled(t)
			fmt.Printf("%-5s a real fsync error: exit code 74, %d acknowledgements before it, %d lost\n", fs, len(promised), s.toll.losses)
		})
	}
}

// runUploads uploads for a time, or until the receiver stops answering.
func (s *site) runUploads(most time.Duration) {
	var all sync.WaitGroup
	stop := make(chan struct{})
	timer := time.AfterFunc(most, func() { close(stop) })
	defer timer.Stop()
	s.wire.start(stop, &all)
	all.Wait()
}

// thinPool is a memory file system of its own for one image. Another file in it can take the
// remaining space.
type thinPool struct {
	dir, ballast string
}

func newThinSite(t *testing.T, fs string) (*site, *thinPool) {
	s := &site{Lab: labtest.New(t, labtest.Unstarted()), random: newRandom(0), acked: make(map[string]string)}
	s.toll = &cutStats{fs: fs, cuts: make(map[string]int)}
	dir := s.Path("thin")
	fixture.Must(t, os.Mkdir(dir, 0o755))
	fixture.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m"))
	t.Cleanup(func() { fixture.Must(t, unix.Unmount(dir, 0)) })
	s.store = s.mountDisk(t, fs, "thin/store.img", s.Path("data"))
	s.wire = newUploadClient(t, s.Lab, newRandom(1))
	h := s.Host("lab-01")
	h.Episode("run-1")
	s.hosts = []*labtest.Host{h}
	return s, &thinPool{dir, filepath.Join(dir, "ballast")}
}

// fillPool fills the file system below the image, so that the image cannot grow.
func (th *thinPool) fillPool(t *testing.T) {
	t.Helper()
	f, err := os.Create(th.ballast)
	fixture.Must(t, err)
	defer f.Close()
	size := int64(0)
	for _, step := range []int64{1 << 20, int64(os.Getpagesize())} {
		for {
			err := unix.Fallocate(int(f.Fd()), 0, size, step)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			fixture.Must(t, err)
			size += step
		}
	}
}
