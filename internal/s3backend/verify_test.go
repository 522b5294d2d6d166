package s3backend

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/wire"
)

// verify returns the kinds of the findings, an hour after everything was stored.
func verify(t *testing.T, in *buckettest.Memory, opts fsck.Options) ([]fsck.FindingKind, fsck.VerifyReport) {
	t.Helper()
	var kinds []fsck.FindingKind
	report, err := Verify(t.Context(), in, opts, func(f fsck.Finding) { kinds = append(kinds, f.Kind) })
	fixture.Must(t, err)
	return kinds, report
}

// storeSome stores archives of two hosts.
func storeSome(t *testing.T, in *buckettest.Memory) {
	t.Helper()
	b := openFaulty(t, in, t.TempDir())
	for i := range 4 {
		archive := noise(uint64(i), 2000)
		_, err := put(b, uploadOf(fmt.Sprintf("host-%d", i%2), fmt.Sprintf("run-%d", i), archive), archive)
		fixture.Must(t, err)
	}
	fixture.Must(t, b.Close())
}

func TestVerifyFindsWhatDiffers(t *testing.T) {
	second := noise(1, 2000)
	u := uploadOf("host-1", "run-1", second)
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, in *buckettest.Memory)
		want   []fsck.FindingKind
	}{
		{"nothing", func(*testing.T, *buckettest.Memory) {}, nil},
		{"an archive is lost", func(t *testing.T, in *buckettest.Memory) {
			fixture.Must(t, in.Remove(t.Context(), archiveName(u.Key, u.Digest, 1)))
		}, []fsck.FindingKind{fsck.DigestDiffers}},
		{"a commit is lost", func(t *testing.T, in *buckettest.Memory) {
			fixture.Must(t, in.Remove(t.Context(), commitName(u.Key, 1)))
		}, []fsck.FindingKind{fsck.Stray}},
		{"both are lost", func(t *testing.T, in *buckettest.Memory) {
			fixture.Must(t, in.Remove(t.Context(), commitName(u.Key, 1)))
			fixture.Must(t, in.Remove(t.Context(), archiveName(u.Key, u.Digest, 1)))
		}, []fsck.FindingKind{fsck.RowWithoutFile}},
		{"the last row is lost", func(t *testing.T, in *buckettest.Memory) {
			fixture.Must(t, in.Remove(t.Context(), batchlog.Name(4)))
		}, []fsck.FindingKind{fsck.FileWithoutRow}},
		{"a row is there twice", func(t *testing.T, in *buckettest.Memory) {
			l, err := batchlog.Open(t.Context(), in, slog.New(slog.DiscardHandler))
			fixture.Must(t, err)
			_, err = l.Ensure(t.Context(), indexOf(t, in)[1], l.Head())
			fixture.Must(t, err)
			fixture.Must(t, l.Close())
		}, []fsck.FindingKind{fsck.DuplicateRow}},
		{"archives that no commit names", func(t *testing.T, in *buckettest.Memory) {
			for _, suffix := range []string{".AAAAAAAA.tar.zst", ".BBBBBBBB.tar.zst"} { // of receivers that died before their commits
				fixture.Must(t, in.Put(t.Context(), archiveDir(u.Key)+u.Digest.String()+suffix, bytes.NewReader(second), u.Size, u.Digest))
			}
		}, []fsck.FindingKind{fsck.Stray, fsck.Stray}},
		{"archives of an episode that was never committed", func(t *testing.T, in *buckettest.Memory) {
			never := uploadOf("host-1", "run-9", second)
			for _, suffix := range []string{".AAAAAAAA.tar.zst", ".BBBBBBBB.tar.zst"} {
				fixture.Must(t, in.Put(t.Context(), archiveDir(never.Key)+u.Digest.String()+suffix, bytes.NewReader(second), u.Size, u.Digest))
			}
		}, []fsck.FindingKind{fsck.Stray, fsck.Stray}},
		{"somebody else's object", func(t *testing.T, in *buckettest.Memory) {
			fixture.Must(t, in.Put(t.Context(), "episodes/holiday.jpg", bytes.NewReader(nil), 0, sha256.Sum256(nil)))
		}, []fsck.FindingKind{fsck.Stray}},
	} {
		for _, page := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s, %d", tt.name, page), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					in := newBucket()
					storeSome(t, in)
					tt.damage(t, in)
					time.Sleep(time.Hour)
					got, report := verify(t, in, fsck.Options{Batch: page})
					if !slices.Equal(got, tt.want) {
						t.Errorf("findings: got %q, want %q; %+v", got, tt.want, report)
					}
				})
			})
		}
	}
}

// An archive that is sent again does not count as stray before its commit follows.
func TestVerifyLeavesARepairInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		storeSome(t, in)
		time.Sleep(time.Hour)
		archive := noise(1, 2000)
		u := uploadOf("host-1", "run-1", archive)
		fixture.Must(t, in.Put(t.Context(), archiveName(u.Key, u.Digest, 2), bytes.NewReader(archive), u.Size, u.Digest))
		if got, report := verify(t, in, fsck.Options{}); len(got) > 0 {
			t.Errorf("findings: got %q, want none; %+v", got, report)
		}
	})
}

func TestDeepVerifyReadsAndDecodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		storeSome(t, in) // noise, which no decoder accepts
		time.Sleep(time.Hour)
		got, report := verify(t, in, fsck.Options{Deep: true, Host: "host-1"})
		if want := []fsck.FindingKind{fsck.Damaged, fsck.Damaged}; !slices.Equal(got, want) || report.Read != 2 {
			t.Errorf("findings: got %q, want %q; %+v", got, want, report)
		}
	})
}

// A commit that cannot be read is a finding, and the others are read. An object store that does not answer ends
// both.
func TestACommitThatCannotBeReadIsAFinding(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(in *buckettest.Memory, commit string)
	}{
		{"other bytes", func(in *buckettest.Memory, commit string) { in.Tamper(commit, []byte("{"), "") }},
		{"the object store returns an error for it", func(in *buckettest.Memory, commit string) {
			in.Fault = func(op, name string) buckettest.Fault {
				if op == buckettest.OpOpen && name == commit {
					return buckettest.LostBefore
				}
				return buckettest.None
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := newBucket()
				storeSome(t, in) // noise, which no decoder accepts
				time.Sleep(time.Hour)
				tt.fault(in, commitName(uploadOf("host-1", "run-1", nil).Key, 1))
				got, report := verify(t, in, fsck.Options{Deep: true})
				if want := []fsck.FindingKind{fsck.Damaged, fsck.Damaged, fsck.Unreadable, fsck.Damaged}; !slices.Equal(got, want) || report.Read != 3 {
					t.Errorf("findings: got %q, want %q; %+v", got, want, report)
				}
				stray := uploadOf("host-1", "run-1", []byte("stray"))
				fixture.Must(t, in.Put(t.Context(), archiveName(stray.Key, stray.Digest, 2), strings.NewReader("stray"), stray.Size, stray.Digest))
				if got, _ := verify(t, in, fsck.Options{}); !slices.Equal(got, []fsck.FindingKind{fsck.Unreadable}) {
					t.Errorf("which archives it names is unknown: got %q, want %q", got, fsck.Unreadable)
				}
				for n := range int64(4) {
					fixture.Must(t, in.Remove(t.Context(), batchlog.Name(n+1)))
				}
				var bad []string
				opts := fsck.Options{DryRun: true, Bad: func(err error) { bad = append(bad, err.Error()) }}
				filled, err := Backfill(t.Context(), in, opts, slog.New(slog.DiscardHandler))
				fixture.Must(t, err)
				if len(filled.Rows) != 3 || filled.Bad != 1 || filled.Missing != 4 || len(bad) != 1 {
					t.Errorf("backfill: got %+v, %q, want 3 rows and one bad", filled, bad)
				}
				in.Fault = func(op, name string) buckettest.Fault {
					if op == buckettest.OpOpen && (name == identityName || strings.HasPrefix(name, commitsPrefix)) {
						return buckettest.LostBefore
					}
					return buckettest.None
				}
				if _, err := Verify(t.Context(), in, fsck.Options{Deep: true}, func(fsck.Finding) {}); err == nil {
					t.Error("an object store that does not answer: got no error of verify")
				}
				if _, err := Backfill(t.Context(), in, fsck.Options{}, slog.New(slog.DiscardHandler)); err == nil {
					t.Error("an object store that does not answer: got no error of backfill")
				}
			})
		})
	}
}

// A commit whose sender never comes back gets its row.
func TestBackfillAddsTheRowsThatAreMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newBucket()
		storeSome(t, in)
		want := indexOf(t, in)
		fixture.Must(t, in.Remove(t.Context(), batchlog.Name(4)))
		dry, err := Backfill(t.Context(), in, fsck.Options{DryRun: true}, slog.New(slog.DiscardHandler))
		fixture.Must(t, err)
		if dry.Missing != 1 || len(dry.Rows) != 1 || dry.Written != 0 || len(indexOf(t, in)) != 3 {
			t.Errorf("dry run: got %+v", dry)
		}
		got, err := Backfill(t.Context(), in, fsck.Options{}, slog.New(slog.DiscardHandler))
		fixture.Must(t, err)
		if got.Scanned != 4 || got.Indexed != 3 || got.Written != 1 {
			t.Errorf("got %+v, want 4 scanned and 1 written", got)
		}
		again, err := Backfill(t.Context(), in, fsck.Options{}, slog.New(slog.DiscardHandler))
		fixture.Must(t, err)
		if rows := indexOf(t, in); again.Written != 0 || len(rows) != 4 || rows[3].Key != want[3].Key || rows[3].SHA256 != want[3].SHA256 {
			t.Errorf("again: got %+v and %v, want %v", again, rows, want)
		}
		checkCustody(t, in, []wire.Receipt{})
	})
}
