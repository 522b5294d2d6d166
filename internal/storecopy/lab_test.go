package storecopy

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"cis490/internal/backendtest"
	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/datadir"
	"cis490/internal/digest"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/index"
	"cis490/internal/indextest"
	"cis490/internal/s3backend"
	"cis490/internal/wire"
)

// place is what the tests call the bucket, and disk the data directory.
const (
	place = "the bucket lab"
	disk  = "/srv/data"
)

type silent struct{}

func (silent) NoteStored(index.Row, time.Duration)                    {}
func (silent) NoteRecovered(index.Row)                                {}
func (silent) NoteConflict(episode.Key, digest.Digest, digest.Digest) {}
func (silent) NoteDamage(episode.Key, string, bool)                   {}

// openDisk starts a receiver with a data directory. It stops at the end of the test, or before.
func openDisk(t testing.TB, dir string) (b *diskbackend.Backend, stop func()) {
	t.Helper()
	data, err := durable.Create(dir)
	fixture.Must(t, err)
	lock, err := datadir.Lock(data, "receiver")
	fixture.Must(t, err)
	ctx, end := context.WithCancel(context.Background())
	stopped := false
	b, err = diskbackend.Open(ctx, data, diskbackend.Config{
		DataDir: dir, ArchiveBytes: 1 << 30, Uploads: 16, UploadsPerHost: 16, UnfinishedAge: time.Hour,
	}, silent{}, slog.New(slog.DiscardHandler))
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		end()
		if b != nil {
			fixture.Must(t, b.Close())
		}
		fixture.Must(t, lock.Unlock())
		fixture.Must(t, data.Close())
	}
	t.Cleanup(stop)
	fixture.Must(t, err)
	fixture.Must(t, b.Recover(ctx, nil))
	return b, stop
}

// openReceiver starts a receiver with a bucket.
func openReceiver(t testing.TB, in bucket.Bucket) *s3backend.Backend {
	t.Helper()
	b, err := openBucket(t, in)
	fixture.Must(t, err)
	return b
}

func openBucket(t testing.TB, in bucket.Bucket) (*s3backend.Backend, error) {
	b, err := s3backend.Open(context.Background(), in, s3backend.Options{
		Limits:        wire.Limits{MaxSize: 1 << 30, Uploads: 64, UploadsPerHost: 16, UnfinishedAge: time.Hour},
		MaxUploadWait: 10 * time.Second, SpoolDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		t.Cleanup(func() { b.Close() })
	}
	return b, err
}

// put stores an archive.
func put(t testing.TB, b wire.Backend, host, name string, archive []byte, change ...func(*wire.Upload)) wire.Receipt {
	t.Helper()
	u := backendtest.UploadOf(backendtest.Key(host, name), archive)
	for _, c := range change {
		c(&u)
	}
	got, err := b.Put(context.Background(), u, bytes.NewReader(archive))
	fixture.Must(t, err)
	return got
}

func resent(u *wire.Upload)  { u.Resent = true }
func skipped(u *wire.Upload) { u.Skipped = 3 }

// archive returns an archive, the same one for a seed.
func archive(seed byte) []byte { return backendtest.PackNoise(2000+int(seed), seed) }

func archivePath(dir, host, name string) string {
	return filepath.Join(dir, "episodes", host, name+".tar.zst")
}

// newStore returns a data directory in which each kind of row is, and the number of archives that its
// index has. No receiver runs.
func newStore(t testing.TB) (dir string, archives int) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	b, stop := openDisk(t, dir)
	put(t, b, "host-1", "run-1", archive(1))
	put(t, b, "host-2", "run-1", archive(2), skipped)
	put(t, b, "host-1", "run-1.receiver-copy", archive(3)) // kept both
	put(t, b, "host-1", "repaired", archive(4))
	put(t, b, "host-1", "other", archive(5))
	fixture.Must(t, os.Remove(archivePath(dir, "host-1", "repaired")))
	fixture.Must(t, os.Remove(archivePath(dir, "host-1", "other")))
	put(t, b, "host-1", "repaired", archive(4), resent)
	put(t, b, "host-1", "other", archive(6), resent) // its host packed it again
	put(t, b, "host-2", "large", backendtest.PackNoise(300_000, 7))
	stop()
	fixture.WriteFile(t, archivePath(dir, "host-2", "by-hand"), string(archive(8)))
	_, err := fsck.Backfill(t.Context(), fsck.Options{EpisodesRoot: filepath.Join(dir, "episodes"), Index: filepath.Join(dir, "index.jsonl")})
	fixture.Must(t, err)
	// A row as another program wrote it, with a member that is not known here.
	fixture.WriteFile(t, archivePath(dir, "host-2", "foreign"), string(archive(9)))
	d := backendtest.UploadOf(backendtest.Key("host-2", "foreign"), archive(9)).Digest
	_, err = (datadir.HostList{Dir: dir, Holder: "the test"}).Disable(t.Context(), []episode.Name{"host-9"}, time.Now())
	fixture.Must(t, err)
	appendIndex(t, dir, `{"note":"x","episode_id":"foreign","host_id":"host-2","received_at_wall":"2026-01-02T03:04:05+00:00","sha256":"`+d.String()+`","size_bytes":`+strconv.Itoa(len(archive(9)))+`}`+"\n")
	return dir, 8
}

func appendIndex(t testing.TB, dir, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "index.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	fixture.Must(t, err)
	_, err = f.WriteString(text)
	fixture.Must(t, err)
	fixture.Must(t, f.Close())
}

func indexOf(t testing.TB, dir string) string {
	t.Helper()
	return fixture.ReadFile(t, filepath.Join(dir, "index.jsonl"))
}

// exported returns the index of a bucket.
func exported(t testing.TB, in bucket.Bucket) string {
	t.Helper()
	var all []byte
	_, err := batchlog.Export(context.Background(), in, 1, func(rows []byte) error {
		all = append(all, rows...)
		return nil
	})
	fixture.Must(t, err)
	return string(all)
}

// copyToBucket runs a copy.
func copyToBucket(t testing.TB, ctx context.Context, dir string, in bucket.Bucket, change ...func(*Options)) (Report, error) {
	t.Helper()
	opts := Options{From: disk, To: place, Holder: "copy"}
	for _, c := range change {
		c(&opts)
	}
	return ToBucket(ctx, indextest.OpenDir(t, dir), in, opts)
}

func final(o *Options)         { o.Final = true }
func acceptMissing(o *Options) { o.AcceptMissing = true }

// findings returns what 'receiver index verify --deep' finds in a bucket.
func findings(t testing.TB, in bucket.Bucket) []string {
	t.Helper()
	var all []string
	_, err := s3backend.Verify(context.Background(), in, fsck.Options{Deep: true}, func(f fsck.Finding) {
		all = append(all, string(f.Kind)+" "+string(f.Host)+"/"+string(f.Episode))
	})
	fixture.Must(t, err)
	return all
}
