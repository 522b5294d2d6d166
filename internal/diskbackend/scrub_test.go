package diskbackend_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/backendtest"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// scrubOnce returns what a scrub from the command line finds, as "damaged run-7".
func (l *lab) scrubOnce(o scrub.Options) (scrub.Progress, string) {
	l.Helper()
	var found []string
	o.Found = func(f scrub.Finding) {
		s := f.Finding + " " + string(f.Episode)
		if f.Quarantined {
			s += " aside"
		}
		found = append(found, s)
	}
	p, err := diskbackend.ScrubOnce(l.Context(), l.cfg, "me", o)
	fixture.Must(l, err)
	return p, strings.Join(found, ", ")
}

func (l *lab) countQuarantined() int {
	l.Helper()
	paths, err := filepath.Glob(filepath.Join(l.Data, "quarantine", "*", "*"))
	fixture.Must(l, err)
	return len(paths)
}

func TestScrubFindsFlippedBytesAndVanishedFiles(t *testing.T) {
	l := newLab(t, nil)
	good, bad, gone := key("lab-01", "good"), key("lab-01", "bad"), key("lab-02", "gone")
	total := int64(0)
	for i, k := range []episode.Key{good, bad, gone} {
		content := packNoise(3<<20, byte(i))
		l.WantReceipt(k, content, wire.Stored)
		total += int64(len(content))
	}
	if p, found := l.scrubOnce(scrub.Options{}); found != "" || p.Objects != 3 || p.Bytes != total {
		t.Fatalf("of a good store: %q, %+v", found, p)
	}
	l.CorruptStored(bad)
	fixture.Must(t, os.Remove(l.StoredPath(gone)))
	p, found := l.scrubOnce(scrub.Options{})
	if want := "damaged bad, missing gone"; found != want || p.Damaged != 1 || p.Missing != 1 || p.Objects != 2 {
		t.Errorf("found %q, %+v, want %q", found, p, want)
	}
	if _, err := os.Stat(l.StoredPath(bad)); err != nil || l.countQuarantined() != 0 {
		t.Errorf("a scrub beside the receiver moved something: %v", err)
	}
	if p, found := l.scrubOnce(scrub.Options{Host: "lab-02"}); found != "missing gone" || p.Objects != 0 {
		t.Errorf("of one host: %q, %+v", found, p)
	}
}

// TestScrubDecodes: what its host has packed wrongly has the right sha256. It stays
// where it is, it does not count as verified, and each scrub reports it again.
func TestScrubDecodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		content := packNoise(1000, 7)
		content[len(content)-1] ^= 1 // of the frame's checksum
		l.WantReceipt(key("lab-01", "run-7"), content, wire.Stored)
		l.WantReceipt(key("lab-01", "run-8"), packNoise(1000, 8), wire.Stored)
		p, found := l.scrubOnce(scrub.Options{})
		if found != "undecodable run-7" || p.Undecodable != 1 || p.Objects != 2 {
			t.Errorf("found %q, %+v", found, p)
		}
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		if st := l.inspect(); st.Scrub.Undecodable != 1 || st.Scrub.Damaged != 0 || l.countQuarantined() != 0 {
			t.Errorf("in the background: %+v, %d set aside", st.Scrub, l.countQuarantined())
		}
		if h := l.queryInventory(queryFor("run-7", content), true); h.State != wire.Present || !h.Undecodable || h.VerifiedAt != nil {
			t.Errorf("its host is told %+v", h)
		}
		if h := l.queryInventory(queryFor("run-7", content), false); h.State != wire.Present || h.Undecodable || h.VerifiedAt != nil {
			t.Errorf("without reading: %+v", h)
		}
		if h := l.queryInventory(queryFor("run-8", packNoise(1000, 8)), false); h.VerifiedAt == nil {
			t.Errorf("its neighbour: %+v", h)
		}
		l.stop()
		if _, found := l.scrubOnce(scrub.Options{Quarantine: true}); found != "undecodable run-7" || l.countQuarantined() != 0 {
			t.Errorf("alone: %q, %d set aside", found, l.countQuarantined())
		}
	})
}

// TestABombCostsTheScrubTime, as if it had been read: 64 MiB, of zeros or of headers, in some
// kilobytes, take 64 s at 64 KiB/s and sixteen decoded bytes for one. One that fails to decode
// at its end is decoded twice.
func TestABombCostsTheScrubTime(t *testing.T) {
	for _, of := range []struct {
		looks   int64
		members int
		size    int64
	}{{1, 1, 64 << 20}, {2, 1, 64 << 20}, {1, 128 << 10, 0}} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = 64 << 10 })
			bomb := packBomb(t, of.members, of.size)
			bomb[len(bomb)-1] ^= byte(of.looks - 1)
			l.WantReceipt(key("lab-01", "bomb"), bomb, wire.Stored)
			l.WantReceipt(key("lab-01", "run-7"), packNoise(1000, 7), wire.Stored)
			stop := l.startScrub()
			time.Sleep(5*time.Minute + time.Duration(of.looks)*55*time.Second)
			if st := l.inspect(); st.Scrub.Objects != 0 {
				t.Errorf("%d bytes that hold 64 MiB were decoded %d times within %d s", len(bomb), of.looks, of.looks*55)
			}
			time.Sleep(time.Duration(of.looks) * 20 * time.Second)
			stop()
			if st := l.inspect(); st.Scrub.Objects != 2 || st.Scrub.Undecodable != of.looks-1 {
				t.Errorf("after %d s: %+v", of.looks*75, st.Scrub)
			}
		})
	}
}

// TestAnOlderScrubHasReadNothing: it has decoded nothing.
func TestAnOlderScrubHasReadNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.WantReceipt(key("lab-01", "a"), packNoise(1000, 1), wire.Stored)
		const older = `{"started":"1999-12-31T00:00:00Z","ended":"1999-12-31T01:00:00Z","whole_since":"1999-12-31T00:00:00Z"}`
		fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "scrub.json"), []byte(older), 0o640))
		if st := l.inspect(); st.OldestRead != nil {
			t.Errorf("it counts as read: %+v", st)
		}
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		if st := l.inspect(); st.Scrub.Objects != 1 || st.Scrub.WholeSince.Year() != 2000 {
			t.Errorf("it is not begun anew: %+v", st.Scrub)
		}
	})
}

// TestTwoLooksThatDisagreeAreFollowedByAThird.
func TestTwoLooksThatDisagreeAreFollowedByAThird(t *testing.T) {
	l := newLab(t, nil)
	content := packNoise(1000, 7)
	content[len(content)-1] ^= 1
	l.WantReceipt(key("lab-01", "run-7"), content, wire.Stored)
	reads := 0
	l.setDisk(func(d *durable.Dir, name string) (io.ReadCloser, error) {
		reads++
		if reads == 2 {
			return io.NopCloser(bytes.NewReader(packNoise(1000, 8))), nil
		}
		return d.OpenUncached(name)
	})
	if h := l.queryInventory(queryFor("run-7", content), true); reads != 3 || h.State != wire.Present || !h.Undecodable || l.countQuarantined() != 0 {
		t.Errorf("%d looks, %+v, %d set aside", reads, h, l.countQuarantined())
	}
}

// packBomb returns an archive of members files, each of size zeros.
func packBomb(tb testing.TB, members int, size int64) []byte {
	tb.Helper()
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	fixture.Must(tb, err)
	w := tar.NewWriter(enc)
	for range members {
		fixture.Must(tb, w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}))
		_, err = io.Copy(w, bytes.NewReader(make([]byte, size)))
		fixture.Must(tb, err)
	}
	fixture.Must(tb, errors.Join(w.Close(), enc.Close()))
	return b.Bytes()
}

func TestScrubMovesNothingWhileAReceiverRuns(t *testing.T) {
	l := newLab(t, nil)
	k := key("lab-01", "run-7")
	l.WantReceipt(k, packNoise(1000, 7), wire.Stored)
	l.CorruptStored(k)
	_, err := diskbackend.ScrubOnce(t.Context(), l.cfg, "me", scrub.Options{Quarantine: true})
	if _, locked := errors.AsType[*durable.LockedError](err); !locked || l.countQuarantined() != 0 {
		t.Errorf("got %v, want a LockedError", err)
	}
	l.stop()
	p, found := l.scrubOnce(scrub.Options{Quarantine: true})
	if found != "damaged run-7 aside" || p.Quarantined != 1 || p.Damaged != 1 || l.countQuarantined() != 1 {
		t.Errorf("found %q, %+v; %d in quarantine", found, p, l.countQuarantined())
	}
	l.start()
	l.WantReceipt(k, packNoise(1000, 7), wire.Stored)
	if rows := l.Rows(); len(rows) != 2 || !rows[1].Repaired {
		t.Errorf("rows: %+v", rows)
	}
}

// The background scrub quarantines a corrupt copy, so that its host's next
// attempt is stored as a repair.
func TestScrubQuarantinesACorruptArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		good, bad := key("lab-01", "good"), key("lab-02", "bad")
		l.WantReceipt(good, packNoise(1<<20, 1), wire.Stored)
		l.WantReceipt(bad, packNoise(1<<20, 2), wire.Stored)
		l.CorruptStored(bad)
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		st := l.inspect()
		if l.countQuarantined() != 1 || st.Quarantined != 1 || st.Scrub.Damaged != 1 || st.Scrub.Objects != 2 || st.Scrub.Missing != 0 {
			t.Errorf("got %+v", st)
		}
		if st.OldestRead == nil || *st.OldestRead < 60 || *st.OldestRead > 600 {
			t.Errorf("the oldest reading lies %v back", st.OldestRead)
		}
		l.WantReceipt(bad, packNoise(1<<20, 2), wire.Stored)
		if rows := l.Rows(); len(rows) != 3 || !rows[2].Repaired {
			t.Errorf("rows: %+v", rows)
		}
	})
}

// A flipped byte is found within one interval, in every interval.
func TestScrubStartsOverEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		k := key("lab-01", "run-7")
		l.WantReceipt(k, packNoise(1<<20, 1), wire.Stored)
		stop := l.startScrub()
		time.Sleep(time.Hour)
		l.CorruptStored(k)
		time.Sleep(l.cfg.Scrub.Interval.Std() - 2*time.Hour)
		if l.countQuarantined() != 0 {
			t.Error("a round began before its time")
		}
		time.Sleep(2 * time.Hour)
		if l.countQuarantined() != 1 {
			t.Error("the flipped byte was not found in the second round")
		}
		stop()
	})
}

// An interrupted pass continues after the last archive that it read, as slowly as configured: 1
// MiB at 64 KiB/s takes 16 s.
func TestScrubIsSlowAndResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = 64 << 10 })
		for i, name := range []string{"a", "b", "c", "d"} {
			l.WantReceipt(key("lab-01", name), packNoise(1<<20, byte(i)), wire.Stored)
		}
		stop := l.startScrub()
		time.Sleep(5*time.Minute + 40*time.Second)
		stop()
		st := l.inspect()
		if st.Scrub.Objects != 2 || st.Scrub.Episode != "b" || !st.Scrub.WholeSince.IsZero() || st.OldestRead != nil {
			t.Fatalf("after 40 s: %+v", st.Scrub)
		}
		l.CorruptStored(key("lab-01", "a")) // before the position: left to the next pass
		l.restart(func() {})
		stop = l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		if st := l.inspect(); st.Scrub.Objects != 4 || st.Scrub.Skipped != 0 || st.Scrub.Damaged != 0 || st.Scrub.Ended.IsZero() || !st.Scrub.WholeSince.Equal(st.Scrub.Started) {
			t.Errorf("after the second start: %+v", st.Scrub)
		}
	})
}

func TestScrubYieldsToUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = 64 << 10 })
		l.WantReceipt(key("lab-01", "a"), packNoise(1<<20, 1), wire.Stored)
		arrived, open := make(chan struct{}, 1), make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := l.b.Put(t.Context(), uploadOf(key("lab-02", "slow"), []byte("slow")), backendtest.StopBeforeLast([]byte("slow"), arrived, open))
			done <- err
		}()
		<-arrived
		stop := l.startScrub()
		time.Sleep(5*time.Minute + 60*time.Second)
		if st := l.inspect(); st.Scrub.Objects != 0 {
			t.Errorf("read %d archives at full speed beside an upload", st.Scrub.Objects)
		}
		time.Sleep(4 * time.Minute)
		stop()
		if st := l.inspect(); st.Scrub.Objects != 1 {
			t.Errorf("read %d archives beside an upload that does not end, want 1: it must not starve", st.Scrub.Objects)
		}
		close(open)
		fixture.Must(t, <-done)
	})
}

func TestScrubOfRateZeroReadsNothing(t *testing.T) {
	l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = 0 })
	fixture.Must(t, l.b.RunScrub(t.Context()))
}

// Whatever a crash or an operator left in scrub.json, the pass continues.
func TestScrubSurvivesItsOwnFile(t *testing.T) {
	for what, text := range map[string]string{
		"empty": "", "no JSON": "x", "a name that is none": `{"started":"2026-01-01T00:00:00Z","host_id":"../x"}`,
		"a clock that was wrong": `{"started":"2190-01-01T00:00:00Z","ended":"2190-01-01T00:00:00Z"}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, nil)
			l.WantReceipt(key("lab-01", "a"), packNoise(1000, 1), wire.Stored)
			fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "scrub.json"), []byte(text), 0o640))
			stop := l.startScrub()
			time.Sleep(10 * time.Minute)
			stop()
			if st := l.inspect(); st.Scrub.Objects != 1 || st.Scrub.Ended.IsZero() {
				t.Errorf("%s: %+v", what, st.Scrub)
			}
		})
	}
}

// One wrong reading is no proof, and a disk that returns nothing must not empty the store.
func TestOneWrongReadingIsNoProof(t *testing.T) {
	l := newLab(t, nil)
	k := key("lab-01", "run-7")
	l.WantReceipt(k, packNoise(1000, 7), wire.Stored)
	reads := 0
	l.setDisk(func(d *durable.Dir, name string) (io.ReadCloser, error) {
		reads++
		if reads == 1 {
			return io.NopCloser(bytes.NewReader(packNoise(1000, 8))), nil
		}
		return d.OpenUncached(name)
	})
	got, err := l.b.Inventory(t.Context(), "lab-01", []wire.InventoryQuery{queryFor("run-7", packNoise(1000, 7))}, true)
	fixture.Must(t, err)
	if reads != 2 || l.countQuarantined() != 0 || got[0].State != wire.Present || got[0].VerifiedAt == nil {
		t.Errorf("%d reads, %d set aside, %+v", reads, l.countQuarantined(), got)
	}
}

func TestAFailingDiskDoesNotEmptyTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		for i := range 10 {
			l.WantReceipt(key("lab-01", string(rune('a'+i))), packNoise(1000, byte(i)), wire.Stored)
		}
		l.setDisk(func(*durable.Dir, string) (io.ReadCloser, error) { return nil, errors.New("no medium") })
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		if n := l.countQuarantined(); n == 0 || n > 3 {
			t.Errorf("%d archives were set aside for the disk's fault", n)
		}
		if st := l.inspect(); !st.Scrub.WholeSince.IsZero() {
			t.Errorf("the store counts as read: %+v", st.Scrub)
		}
	})
}

// startScrub runs the background scrub until stop is called.
func (l *lab) startScrub() (stop func()) {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	done := make(chan error, 1)
	go func() { done <- l.b.RunScrub(ctx) }()
	return func() {
		l.Helper()
		cancel()
		fixture.Must(l, <-done)
	}
}

func (l *lab) inspect() diskbackend.Status {
	l.Helper()
	st, err := diskbackend.InspectStatus(l.cfg, time.Now())
	fixture.Must(l, err)
	return st
}
