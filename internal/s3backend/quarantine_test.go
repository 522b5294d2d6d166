package s3backend

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// An archive that one receiver reads well, and another one quarantines meanwhile, is quarantined for
// everybody: its host must not delete the only good copy.
func TestAQuarantineOutlastsAVerification(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault buckettest.Fault // of the verification
	}{
		{"recorded after it", buckettest.None},
		{"recorded long after it", buckettest.Late},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := newBucket()
				b, _ := openScrubber(t, in)
				defer b.Close()
				uploads, _ := storeArchives(t, b, 1)
				u, c := uploads[0], commitOf(t, b, uploads[0])
				in.Fault = func(op, name string) buckettest.Fault {
					if op != buckettest.OpPut || name != nameBeside(verifiedPrefix, c) {
						return buckettest.None
					}
					if err := b.quarantineArchive(t.Context(), c, errCorrupt); err != nil {
						t.Error(err)
					}
					return tt.fault
				}
				got, err := b.scrubPass(t.Context())
				if err != nil || got.Damaged != 1 || got.Quarantined != 1 {
					t.Errorf("the pass: got %+v, %v, want the archive damaged", got, err)
				}
				if all := names(t, in, verifiedPrefix); len(all) != 0 {
					t.Errorf("got %q, want no verification", all)
				}
				in.Release()
				if e := examineOne(t, b, u); e.State != wire.Absent || e.VerifiedAt != nil {
					t.Errorf("its host is told %+v, want it absent", e)
				}
				time.Sleep(25 * time.Hour)
				if got, err := b.scrubPass(t.Context()); err != nil || got.Missing != 1 || got.Objects != 0 {
					t.Errorf("the next pass: got %+v, %v, want one missing", got, err)
				}
			})
		})
	}
}

// A host whose upload another receiver has committed, and then quarantined, keeps its copy.
func TestAQuarantinedArchiveIsNotAcknowledged(t *testing.T) {
	in := newBucket()
	b, other := openBackend(t, in), openBackend(t, in)
	archive := noise(1, 3000)
	u := uploadOf("host-1", "run-1", archive)
	raced := false
	in.Fault = func(op, name string) buckettest.Fault {
		if op != buckettest.OpCreate || !strings.HasPrefix(name, commitsPrefix) || raced {
			return buckettest.None
		}
		raced = true
		_, err := put(other, u, archive)
		if err == nil {
			err = other.quarantineArchive(t.Context(), commitOf(t, other, u), errCorrupt)
		}
		if err != nil {
			t.Error(err)
		}
		return buckettest.None
	}
	if got, err := put(b, u, archive); !errors.Is(err, wire.Damaged) {
		t.Errorf("got %+v, %v, want %s", got, err, wire.Damaged)
	}
	got, err := put(b, u, archive)
	fixture.Must(t, err)
	if got.Status != wire.Stored {
		t.Errorf("sent again: got %s, want %s", got.Status, wire.Stored)
	}
	checkCustody(t, in, []wire.Receipt{got})
}

// Archives that an engine does not return do not keep those behind them from being read, as long as it
// returns anything else.
func TestUnreadableArchivesDoNotStopTheScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		b, _ := openScrubber(t, in)
		defer b.Close()
		uploads, _ := storeArchives(t, b, 8)
		lost := make(map[string]bool)
		for _, u := range uploads[1:7] {
			lost[archiveName(u.Key, u.Digest, 1)] = true
		}
		in.Fault = func(op, name string) buckettest.Fault {
			if op == buckettest.OpOpen && lost[name] {
				return buckettest.LostAfter
			}
			return buckettest.None
		}
		var logged strings.Builder
		b.log = slog.New(slog.NewTextHandler(&logged, nil))
		got, err := b.scrubPass(t.Context())
		if text := logged.String(); !strings.Contains(text, unreadableHint) || strings.Contains(text, "smartctl") {
			t.Errorf("logged:\n%s\nwant the hint of an object store", text)
		}
		if err != nil || got.Objects != 8 || got.Unreadable != 6 || got.NotOpened != 6 || len(names(t, in, quarantinePrefix)) != 0 {
			t.Errorf("got %+v, %v, want 8 archives, 6 of them unreadable", got, err)
		}
		if e := examineOne(t, b, uploads[7]); e.VerifiedAt == nil {
			t.Errorf("the last archive: got %+v, want it verified", e)
		}
	})
}

// A batch of the index that is lost hides its own archives, and none behind them. The pass is not complete.
func TestALostBatchIsNoEndOfAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		b, _ := openScrubber(t, in)
		defer b.Close()
		storeArchives(t, b, 4)
		in.Tamper(batchlog.Name(1), nil, "")
		shown := int64(0)
		once, err := ScrubOnce(t.Context(), in, scrub.Options{Progress: func(n int) { shown += int64(n) }}, b.log)
		fixture.Must(t, err)
		if shown != once.Bytes {
			t.Errorf("got %d bytes while it read, want %d", shown, once.Bytes)
		}
		pass, err := b.scrubPass(t.Context())
		fixture.Must(t, err)
		for _, got := range []scrub.Progress{once, pass} {
			if got.Objects != 3 || got.NotOpened != 1 || !got.WholeSince.IsZero() {
				t.Errorf("got %+v, want 3 archives, and one batch that was not opened", got)
			}
		}
	})
}
