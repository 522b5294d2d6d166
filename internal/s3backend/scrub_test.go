package s3backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/backendtest"
	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/config"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// damages is an observer that keeps reports of damage.
type damages struct {
	mu  sync.Mutex
	all []string
}

func (*damages) NoteStored(index.Row, time.Duration)                    {}
func (*damages) NoteConflict(episode.Key, digest.Digest, digest.Digest) {}
func (d *damages) NoteDamage(key episode.Key, finding string, quarantined bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := finding + " " + string(key.Name)
	if quarantined {
		text += " aside"
	}
	d.all = append(d.all, text)
}

func (d *damages) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.all, ", ")
}

// openScrubber opens the backend of a receiver that scrubs. Its configuration has no limit on the rate.
func openScrubber(t *testing.T, in bucket.Bucket) (*Backend, *damages) {
	t.Helper()
	seen := new(damages)
	b, err := Open(t.Context(), in, Options{
		Name: "receiver", Limits: wire.Limits{MaxSize: 1 << 30, Uploads: 64, UploadsPerHost: 16},
		SpoolDir: t.TempDir(), Observer: seen, Log: slog.New(slog.DiscardHandler),
		Scrub: scrub.Config{Interval: config.Duration(24 * time.Hour)},
	})
	fixture.Must(t, err)
	b.minPart = testPart
	return b, seen
}

// storeArchives stores archives that can be decoded, run-0 and so on, each in a batch of its own.
func storeArchives(t *testing.T, b *Backend, n int) (uploads []wire.Upload, archives [][]byte) {
	t.Helper()
	for i := range n {
		archive := backendtest.PackNoise(3000, byte(i+1))
		u := uploadOf(fmt.Sprintf("host-%d", i%2), fmt.Sprintf("run-%d", i), archive)
		_, err := put(b, u, archive)
		fixture.Must(t, err)
		uploads, archives = append(uploads, u), append(archives, archive)
	}
	return uploads, archives
}

// flip returns a copy of an archive with one bit changed.
func flip(archive []byte) []byte {
	changed := bytes.Clone(archive)
	changed[len(changed)/2] ^= 1
	return changed
}

// scrubCase is what happens to the second of three archives, and what a scrub finds.
type scrubCase struct {
	name    string
	harm    func(in *buckettest.Memory, name string, archive []byte)
	fault   func(n int) buckettest.Fault // of the nth reading of the archive
	want    scrub.Progress
	events  string
	state   wire.State
	aside   int
	opened  int
	isKnown bool // as verified
}

const reads = 2 // of an archive before it is judged

var scrubCases = []scrubCase{
	{name: "nothing", want: scrub.Progress{Objects: 3}, state: wire.Present, opened: 1, isKnown: true},
	{
		name: "a bit", harm: func(in *buckettest.Memory, name string, archive []byte) { in.Tamper(name, flip(archive), "") },
		want: scrub.Progress{Objects: 3, Damaged: 1, Quarantined: 1}, events: "damaged run-1 aside", state: wire.Absent, aside: 1, opened: reads,
	},
	{
		name: "truncated", harm: func(in *buckettest.Memory, name string, archive []byte) { in.Tamper(name, archive[:100], "") },
		want: scrub.Progress{Objects: 3, Damaged: 1, Quarantined: 1}, events: "damaged run-1 aside", state: wire.Absent, aside: 1, opened: reads,
	},
	{
		name: "longer", harm: func(in *buckettest.Memory, name string, archive []byte) {
			in.Tamper(name, append(archive[:len(archive):len(archive)], 0), "")
		},
		want: scrub.Progress{Objects: 3, Damaged: 1, Quarantined: 1}, events: "damaged run-1 aside", state: wire.Absent, aside: 1, opened: reads,
	},
	{
		name: "missing", harm: func(in *buckettest.Memory, name string, _ []byte) { in.Tamper(name, nil, "") },
		want: scrub.Progress{Objects: 2, Missing: 1}, events: "missing run-1", state: wire.Absent, opened: 1,
	},
	{
		name: "the engine fails once", fault: func(n int) buckettest.Fault {
			return map[int]buckettest.Fault{1: buckettest.LostAfter}[n]
		},
		want: scrub.Progress{Objects: 3}, state: wire.Present, opened: reads, isKnown: true,
	},
	{
		name: "the engine fails", fault: func(int) buckettest.Fault { return buckettest.LostAfter },
		want: scrub.Progress{Objects: 3, Unreadable: 1, NotOpened: 1}, state: wire.Present, opened: reads,
	},
}

// examineOne returns what the host of an archive is told, without reading.
func examineOne(t *testing.T, b *Backend, u wire.Upload) wire.InventoryEntry {
	t.Helper()
	entries, err := b.Inventory(t.Context(), u.Key.Host, []wire.InventoryQuery{{Episode: u.Key.Name, Digest: u.Digest}}, false)
	fixture.Must(t, err)
	return entries[0]
}

func TestScrubOfABucket(t *testing.T) {
	for _, tt := range scrubCases {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := newBucket()
				b, seen := openScrubber(t, in)
				defer b.Close()
				uploads, archives := storeArchives(t, b, 3)
				u, name := uploads[1], archiveName(uploads[1].Key, uploads[1].Digest, 1)
				if tt.harm != nil {
					tt.harm(in, name, archives[1])
				}
				opened := 0
				in.Fault = func(op, of string) buckettest.Fault {
					if op != buckettest.OpOpen || of != name {
						return buckettest.None
					}
					opened++
					if tt.fault != nil {
						return tt.fault(opened)
					}
					return buckettest.None
				}
				got, err := b.scrubPass(t.Context())
				fixture.Must(t, err)
				want := tt.want
				want.Started, want.Ended, want.Bytes, want.Decoded, want.WholeSince = got.Started, got.Ended, got.Bytes, true, got.WholeSince
				if fmt.Sprint(got) != fmt.Sprint(want) || got.Ended.IsZero() || got.WholeSince.IsZero() != (want.NotOpened > 0) {
					t.Errorf("progress: got %+v, want %+v", got, want)
				}
				if seen.String() != tt.events {
					t.Errorf("events: got %q, want %q", seen, tt.events)
				}
				if n := len(names(t, in, quarantinePrefix)); n != tt.aside {
					t.Errorf("quarantined: got %d, want %d", n, tt.aside)
				}
				if opened != tt.opened {
					t.Errorf("readings: got %d, want %d", opened, tt.opened)
				}
				if e := examineOne(t, b, u); e.State != tt.state || (e.VerifiedAt != nil) != tt.isKnown {
					t.Errorf("its host is told %+v, want %s, verified: %t", e, tt.state, tt.isKnown)
				}
				if e := examineOne(t, b, uploads[2]); e.State != wire.Present || e.VerifiedAt == nil {
					t.Errorf("the next archive: got %+v, want it verified", e)
				}
			})
		})
	}
}

// What its host has packed wrongly stays, is not verified, and is reported by each pass.
func TestScrubOfABucketDecodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		b, seen := openScrubber(t, in)
		defer b.Close()
		archive := noise(1, 3000)
		u := uploadOf("host-1", "run-1", archive)
		_, err := put(b, u, archive)
		fixture.Must(t, err)
		for range 2 {
			got, err := b.scrubPass(t.Context())
			fixture.Must(t, err)
			if got.Undecodable != 1 || got.Damaged != 0 || seen.String() != "" || len(names(t, in, quarantinePrefix)) != 0 {
				t.Errorf("got %+v and %q, want one undecodable archive", got, seen)
			}
			time.Sleep(25 * time.Hour)
		}
		if e := examineOne(t, b, u); e.State != wire.Present || e.VerifiedAt != nil {
			t.Errorf("its host is told %+v", e)
		}
	})
}

// An archive that was verified and becomes corrupt counts as verified no more, and is sent again as the next
// generation. The next pass verifies that.
func TestADamagedArchiveIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		b, seen := openScrubber(t, in)
		defer b.Close()
		uploads, archives := storeArchives(t, b, 2)
		u, archive := uploads[1], archives[1]
		_, err := b.scrubPass(t.Context())
		fixture.Must(t, err)
		in.Tamper(archiveName(u.Key, u.Digest, 1), flip(archive), "")
		if e := examineOne(t, b, u); e.VerifiedAt == nil {
			t.Fatalf("before the second pass: got %+v", e)
		}
		time.Sleep(25 * time.Hour)
		_, err = b.scrubPass(t.Context())
		fixture.Must(t, err)
		if e := examineOne(t, b, u); e.State != wire.Absent {
			t.Errorf("after the second pass: got %+v, want it absent", e)
		}
		if _, err := b.Stat(t.Context(), u.Key); !errors.Is(err, wire.NotFound) {
			t.Errorf("HEAD: got %v, want NotFound", err)
		}
		time.Sleep(25 * time.Hour)
		if got, err := b.scrubPass(t.Context()); err != nil || got.Missing != 1 || got.Damaged != 0 || got.Objects != 1 {
			t.Errorf("a pass before the repair: got %+v, %v, want one missing", got, err)
		}
		if want := "damaged run-1 aside, missing run-1"; seen.String() != want {
			t.Errorf("events: got %q, want %q", seen, want)
		}
		in.Tamper(archiveName(u.Key, u.Digest, 1), archive, "") // the engine returns it again: too late
		got, err := put(b, u, archive)
		if err != nil || got.Status != wire.Stored {
			t.Errorf("sent again: got %+v, %v, want it stored", got, err)
		}
		rows := indexOf(t, in)
		if len(rows) != 3 || !rows[2].Repaired || rows[2].Key != u.Key {
			t.Errorf("rows: got %+v, want a third one with repaired", rows)
		}
		time.Sleep(25 * time.Hour)
		p, err := b.scrubPass(t.Context())
		if err != nil || p.Objects != 2 || p.Missing+p.Damaged != 0 {
			t.Errorf("a pass after the repair: got %+v, %v, want two archives", p, err)
		}
		if e := examineOne(t, b, u); e.State != wire.Present || e.VerifiedAt == nil {
			t.Errorf("after the repair: got %+v, want it verified", e)
		}
		checkCustody(t, in, []wire.Receipt{got})
	})
}

// A host that asks for its archive has it quarantined as the scrub does.
func TestAHostFindsDamage(t *testing.T) {
	in := newBucket()
	b, seen := openScrubber(t, in)
	defer b.Close()
	uploads, archives := storeArchives(t, b, 1)
	u := uploads[0]
	in.Tamper(archiveName(u.Key, u.Digest, 1), flip(archives[0]), "")
	for _, want := range []wire.State{wire.StateDamaged, wire.Absent} {
		got, err := b.Inventory(t.Context(), u.Key.Host, []wire.InventoryQuery{{Episode: u.Key.Name, Digest: u.Digest}}, true)
		fixture.Must(t, err)
		if got[0].State != want {
			t.Errorf("got %+v, want %s", got[0], want)
		}
	}
	if want := "damaged run-0 aside"; seen.String() != want {
		t.Errorf("events: got %q, want %q", seen, want)
	}
}

// An engine that is down says nothing about archives.
func TestAnEngineThatFailsIsNoDamage(t *testing.T) {
	const maxUnreadable = 3 // in a row, before the engine is considered to be bad
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		b, seen := openScrubber(t, in)
		defer b.Close()
		uploads, _ := storeArchives(t, b, 8)
		down := true
		in.Fault = func(op, name string) buckettest.Fault {
			if down && op == buckettest.OpOpen && (strings.HasPrefix(name, episodesPrefix) || name == identityName) {
				return buckettest.LostBefore
			}
			return buckettest.None
		}
		if got, err := b.scrubPass(t.Context()); !errors.Is(err, errEngine) {
			t.Errorf("got %+v, %v, want errEngine", got, err)
		}
		if n := len(names(t, in, quarantinePrefix)); n != 0 || seen.String() != "" {
			t.Errorf("got %d quarantined, and %q, want nothing", n, seen)
		}
		down = false
		in.Tamper(commitName(uploads[maxUnreadable].Key, 1), nil, "") // what it does not read next says nothing either
		got, err := b.scrubPass(t.Context())
		if err != nil || got.Objects != 7 || got.Missing != 1 || got.Unreadable == 0 || !got.WholeSince.IsZero() {
			t.Errorf("once it answers again: got %+v, %v, want the pass to end incomplete", got, err)
		}
		if e := examineOne(t, b, uploads[7]); e.VerifiedAt == nil {
			t.Errorf("the last archive: got %+v, want it verified", e)
		}
	})
}

// The verification names the object that was read, not one that was there before or after.
func TestAVerificationIsOfTheObjectThatWasRead(t *testing.T) {
	in := newBucket()
	b, _ := openScrubber(t, in)
	defer b.Close()
	uploads, archives := storeArchives(t, b, 1)
	u, name := uploads[0], archiveName(uploads[0].Key, uploads[0].Digest, 1)
	in.Tamper(name, flip(archives[0]), "first")
	opened := 0
	in.Fault = func(op, of string) buckettest.Fault {
		if op == buckettest.OpOpen && of == name {
			opened++
			if opened == 2 {
				in.Tamper(name, archives[0], "second")
			}
		}
		return buckettest.None
	}
	p, err := ScrubOnce(t.Context(), in, scrub.Options{Quarantine: true, Found: func(f scrub.Finding) { t.Errorf("found %+v", f) }}, b.log)
	fixture.Must(t, err)
	if v, known, err := b.readVerification(t.Context(), commitOf(t, b, u)); err != nil || !known || v.ETag != "second" || opened != 2 {
		t.Errorf("got %+v, %v, %v after %d readings, want the second ETag; %+v", v, known, err, opened, p)
	}
	in.Tamper(name, archives[0], "third")
	if e := examineOne(t, b, u); e.VerifiedAt != nil {
		t.Errorf("of another object: got %+v, want it not verified", e)
	}
	if p, err := ScrubOnce(t.Context(), in, scrub.Options{OlderThan: time.Hour}, b.log); err != nil || p.Objects != 1 || p.Skipped != 0 {
		t.Errorf("of another object: got %+v, %v, want it read", p, err)
	}
	if p, err := ScrubOnce(t.Context(), in, scrub.Options{OlderThan: time.Hour}, b.log); err != nil || p.Objects != 0 || p.Skipped != 1 {
		t.Errorf("of the same object: got %+v, %v, want it skipped", p, err)
	}
}

func commitOf(t *testing.T, b *Backend, u wire.Upload) commit {
	t.Helper()
	c, err := b.newestCommit(t.Context(), u.Key)
	fixture.Must(t, err)
	return c
}

// A scrub beside receivers that may not quarantine takes back what was noted of an earlier reading.
func TestScrubWithoutQuarantineOnlyReports(t *testing.T) {
	in := newBucket()
	b, _ := openScrubber(t, in)
	defer b.Close()
	uploads, archives := storeArchives(t, b, 3)
	_, err := ScrubOnce(t.Context(), in, scrub.Options{}, b.log)
	fixture.Must(t, err)
	in.Tamper(archiveName(uploads[1].Key, uploads[1].Digest, 1), flip(archives[1]), "")
	var found []string
	p, err := ScrubOnce(t.Context(), in, scrub.Options{Host: "host-1", Found: func(f scrub.Finding) {
		found = append(found, fmt.Sprint(f.Finding, " ", f.Episode, " ", f.Quarantined))
	}}, b.log)
	if err != nil || strings.Join(found, ", ") != "damaged run-1 false" || p.Objects != 1 || p.Damaged != 1 {
		t.Errorf("got %q, %+v, %v", found, p, err)
	}
	if e := examineOne(t, b, uploads[1]); e.State != wire.Present || e.VerifiedAt != nil {
		t.Errorf("its host is told %+v, want it present and not verified", e)
	}
}

// slowBucket takes time to return archives, and counts how often it does. When it is dead, nothing gets
// through.
type slowBucket struct {
	bucket.Bucket
	reads map[string]int // of all receivers
	mu    *sync.Mutex
	own   int
	dead  func(read int) bool // after as many archives
}

var errDead = errors.New("the receiver was killed")

func (s *slowBucket) isDead() bool { return s.dead != nil && s.dead(s.own) }

func (s *slowBucket) Open(ctx context.Context, name string) (io.ReadCloser, bucket.Info, error) {
	if s.isDead() {
		return nil, bucket.Info{}, errDead
	}
	if strings.HasPrefix(name, episodesPrefix) {
		time.Sleep(time.Second)
		s.mu.Lock()
		s.reads[name]++
		s.own++
		s.mu.Unlock()
	}
	return s.Bucket.Open(ctx, name)
}

func (s *slowBucket) Put(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	if s.isDead() {
		return errDead
	}
	return s.Bucket.Put(ctx, name, body, size, d)
}

func (s *slowBucket) Create(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error {
	if s.isDead() {
		return errDead
	}
	return s.Bucket.Create(ctx, name, body, size, d)
}

func (s *slowBucket) Remove(ctx context.Context, name string) error {
	if s.isDead() {
		return errDead
	}
	return s.Bucket.Remove(ctx, name)
}

func TestReceiversShareAScrub(t *testing.T) {
	const archives = 150 // more than there are shards
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed: %t", kill), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, reads, mu := newBucket(), map[string]int{}, new(sync.Mutex)
				var receivers []*Backend
				var buckets []*slowBucket
				for range 3 {
					one := &slowBucket{Bucket: in, reads: reads, mu: mu}
					b, _ := openScrubber(t, one)
					defer b.Close()
					receivers, buckets = append(receivers, b), append(buckets, one)
				}
				storeArchives(t, receivers[0], archives)
				if kill {
					buckets[1].dead = func(read int) bool { return read > 12 } // in the middle of a shard
				}
				var running sync.WaitGroup
				for i, b := range receivers {
					running.Go(func() {
						got, err := b.scrubPass(t.Context())
						if kill && i == 1 {
							if err == nil {
								t.Error("the receiver that was killed ended the pass")
							}
							return
						}
						if err != nil || got.Objects != archives || got.Ended.IsZero() || got.WholeSince.IsZero() {
							t.Errorf("receiver %d: got %+v, %v, want a pass over %d archives", i, got, err, archives)
						}
					})
				}
				running.Wait()
				total := 0
				for name, n := range reads {
					total += n
					if n > 1 && !kill {
						t.Errorf("%s: got %d readings, want 1", name, n)
					}
				}
				if len(reads) != archives || total > archives+3 {
					t.Errorf("got %d readings of %d archives, want about one of each of %d", total, len(reads), archives)
				}
				for i, b := range buckets {
					if b.own < archives/3-40 {
						t.Errorf("receiver %d has read %d archives, want about a third of %d", i, b.own, archives)
					}
				}
			})
		})
	}
}

// A receiver scrubs by itself, at the rate of its configuration, once in each interval.
func TestTheScrubRunsInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		b, _ := openScrubber(t, in)
		defer b.Close()
		b.opts.Scrub.Rate = 8 << 10
		storeArchives(t, b, 30)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		begun := time.Now()
		go func() { ended <- b.runScrub(ctx) }()
		for pass := range 3 {
			time.Sleep(time.Hour)
			synctest.Wait()
			all := names(t, in, "scrub/ended/")
			r, _, err := in.Open(t.Context(), all[len(all)-1])
			fixture.Must(t, err)
			text, err := io.ReadAll(r)
			fixture.Must(t, err)
			if want := fmt.Sprintf("scrub/ended/%08d.json", pass+1); len(all) != 1 || all[0] != want || !strings.Contains(string(text), `"objects":30`) {
				t.Errorf("after %v: got %q, %s, want only %s", time.Since(begun), all, text, want)
			}
			time.Sleep(23 * time.Hour)
		}
		stop()
		fixture.Must(t, <-ended)
		if n := len(names(t, in, "scrub/")); n > 2*(1+2*30+2) {
			t.Errorf("got %d objects of scrubs, want those of two passes at most", n)
		}
	})
}

// A receiver that stops gives its shard up: the next one need not wait for its claim to become stale.
func TestAStoppedScrubIsContinuedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		one := &slowBucket{Bucket: in, reads: map[string]int{}, mu: new(sync.Mutex)}
		b, _ := openScrubber(t, one)
		defer b.Close()
		storeArchives(t, b, 10)
		ctx, stop := context.WithTimeout(t.Context(), 4500*time.Millisecond)
		defer stop()
		if _, err := b.scrubPass(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of its context", err)
		}
		begun := time.Now()
		got, err := b.scrubPass(t.Context())
		if err != nil || got.Objects != 10 || time.Since(begun) > time.Minute {
			t.Errorf("got %+v, %v after %v, want 10 archives within a minute", got, err, time.Since(begun))
		}
		for name, n := range one.reads {
			if n > 2 || n == 2 && one.own != 11 {
				t.Errorf("%s: got %d readings of %d", name, n, one.own)
			}
		}
	})
}

func TestScrubOfAnEmptyBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := openScrubber(t, newBucket())
		defer b.Close()
		if got, err := b.scrubPass(t.Context()); err != nil || got.Ended.IsZero() || got.Objects != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}
