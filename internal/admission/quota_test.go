package admission_test

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/admission"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// TestAFileCostsItsBlocksAndItsInode, at least 4 KiB.
func TestAFileCostsItsBlocksAndItsInode(t *testing.T) {
	for size, want := range map[int64]int64{
		0: 4096, 1: 4096 + 512, 4096: 4096 + 512, 4097: 8192 + 512, 1 << 30: 1<<30 + 512, 1<<63 - 1: 1<<63 - 1,
	} {
		if got := admission.FileCost(size); got != want {
			t.Errorf("a file of %d bytes costs %d, want %d", size, got, want)
		}
	}
}

// TestCountingTakesAPartOfTheTime, however often a host that has used up its quota returns.
func TestCountingTakesAPartOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counts := 0
		quota := &admission.Quota{Max: 1, Log: slog.New(slog.DiscardHandler), Count: func(episode.Name) (int64, error) {
			counts++
			time.Sleep(30 * time.Second)
			return 1, nil
		}}
		plenty := admission.Space{Bytes: 1 << 40, Inodes: 1 << 20}
		disk := admission.NewDisk(func() (admission.Space, error) { return plenty, nil }, quota)
		end := time.Now().Add(2 * time.Hour)
		for time.Now().Before(end) {
			if err := disk.CheckReserve("h", 0, 1); !errors.Is(err, admission.QuotaSpent) {
				t.Fatalf("got %v, want QuotaSpent", err)
			}
			time.Sleep(time.Second)
		}
		if counts < 10 || counts > 12 {
			t.Errorf("counted %d times in 2 h, 30 s each, want at most a twentieth of the time", counts)
		}
	})
}

// TestReservationsFillTheDiskOnce: bytes and inodes, and unused ones are returned.
func TestReservationsFillTheDiskOnce(t *testing.T) {
	free := admission.Space{Bytes: 10 * 4608, Inodes: 7}
	disk := admission.NewDisk(func() (admission.Space, error) { return free, nil }, new(admission.Quota))
	first, err := disk.Reserve("a", 0, 1)
	fixture.Must(t, err)
	second, err := disk.Reserve("b", 0, 1)
	fixture.Must(t, err)
	if err := disk.CheckReserve("c", 0, 1); !errors.Is(err, admission.DiskFull) {
		t.Errorf("a third file, beside one inode: %v, want DiskFull", err)
	}
	fixture.Must(t, disk.CheckReserve("c", 1, 4096)) // a file that exists has its inode
	if err := disk.CheckReserve("c", 1, 1<<20); !errors.Is(err, admission.DiskFull) {
		t.Errorf("1 MiB more: %v, want DiskFull", err)
	}
	first.RecordWritten(1)
	first.Release()
	second.Release()
	if left, err := disk.SpaceLeft("c"); err != nil || left != free {
		t.Errorf("%+v is left, %v, want %+v", left, err, free)
	}
}
