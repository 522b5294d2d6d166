package diskbackend_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/backendtest"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/device"
	"cis490/internal/digest"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// lab is a backend in its data directory, as a receiver opens it.
type lab struct {
	backendtest.Lab
	cfg diskbackend.Config
	log slog.Handler // of the next start; nil is Stops

	b    *diskbackend.Backend
	end  context.CancelCauseFunc // of what continues after its sender has disconnected
	stop func()
}

// newLab opens a backend in a data directory, which change may replace.
func newLab(tb testing.TB, change func(*diskbackend.Config)) *lab {
	tb.Helper()
	l := &lab{Lab: backendtest.Lab{TB: tb}, stop: func() {}}
	l.cfg = diskbackend.Config{
		MinFreeInodes: 1024, ArchiveBytes: 32 << 30, Uploads: 64, UploadsPerHost: 16, UnfinishedAge: 7 * 24 * time.Hour,
		Scrub: scrub.Config{Rate: 20 << 20, Interval: config.Duration(30 * 24 * time.Hour)},
	}
	if change != nil {
		change(&l.cfg)
	}
	if l.cfg.DataDir == "" {
		l.cfg.DataDir = fixture.MemoryDir(tb)
	}
	l.Data = l.cfg.DataDir
	l.start()
	tb.Cleanup(func() { l.stop() })
	return l
}

func (l *lab) start() {
	l.Helper()
	fixture.Must(l, l.open())
	l.Backend = l.b
	fixture.Must(l, l.b.Recover(l.Context(), nil))
}

// open opens the backend, which must be stopped also if the error is not nil.
func (l *lab) open() error {
	l.Helper()
	data, err := durable.Create(l.Data)
	fixture.Must(l, err)
	lock, err := datadir.Lock(data, "the lab")
	fixture.Must(l, err)
	log := l.log
	if log == nil {
		log = &l.Stops
	}
	ctx, end := context.WithCancelCause(context.WithoutCancel(l.Context()))
	b, err := diskbackend.Open(ctx, data, l.cfg, silent{}, slog.New(log))
	l.b, l.end = b, end
	l.stop = func() {
		l.stop = func() {}
		end(nil)
		if b != nil {
			fixture.Must(l, b.Close())
		}
		fixture.Must(l, errors.Join(lock.Unlock(), data.Close()))
	}
	return err
}

// restart closes the backend, changes what is on the disk and opens it again.
func (l *lab) restart(meanwhile func()) {
	l.Helper()
	l.stop()
	meanwhile()
	l.start()
}

// silent is an observer that does nothing.
type silent struct{}

func (silent) NoteStored(index.Row, time.Duration)                      {}
func (silent) NoteRecovered(index.Row)                                  {}
func (silent) NoteConflict(episode.Key, digest.Digest, digest.Digest)   {}
func (silent) NoteDamage(key episode.Key, finding string, removed bool) {}

func key(host, name string) episode.Key { return backendtest.Key(host, name) }

func uploadOf(k episode.Key, content []byte) wire.Upload { return backendtest.UploadOf(k, content) }

func packNoise(n int, seed byte) []byte { return backendtest.PackNoise(n, seed) }

// setDisk replaces the disk from which stored archives are read.
func (l *lab) setDisk(open func(*durable.Dir, string) (io.ReadCloser, error)) {
	l.b.Archives().Uncached = open
}

// setDiskSerial puts the store on a disk with a serial number.
func (l *lab) setDiskSerial(serial string) {
	l.Helper()
	episodes, err := os.Open(filepath.Join(l.Data, "episodes"))
	fixture.Must(l, err)
	defer episodes.Close()
	l.b.Archives().Volumes, err = device.OpenDisk(episodes, serial)
	fixture.Must(l, err)
}

func (l *lab) stagedPath(k episode.Key) string {
	return filepath.Join(l.Data, "staging", string(k.Host), string(k.Name)+"~CRASH")
}

// row returns the only row of a key.
func (l *lab) row(k episode.Key) index.Row {
	l.Helper()
	var found []index.Row
	for _, r := range l.Rows() {
		if r.Key == k {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		l.Fatalf("%s has %d rows, want 1", k, len(found))
	}
	return found[0]
}
