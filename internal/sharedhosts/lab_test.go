package sharedhosts

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// machine is a data directory of a receiver.
type machine struct {
	t     testing.TB
	dir   string
	data  *durable.Dir
	list  datadir.HostList
	watch *datadir.DisabledWatch
	said  *fixture.Log
}

// newMachine returns a new data directory, whose receiver shares in.
func newMachine(t testing.TB, in bucket.Bucket) *machine {
	t.Helper()
	return openMachine(t, in, t.TempDir())
}

func openMachine(t testing.TB, in bucket.Bucket, dir string) *machine {
	t.Helper()
	m := &machine{t: t, dir: dir, said: new(fixture.Log)}
	var err error
	m.data, err = durable.Open(dir)
	fixture.Must(t, err)
	t.Cleanup(func() { m.data.Close() })
	m.list = datadir.HostList{Dir: dir, Holder: "the test", Shared: NewList(in)}
	m.watch = datadir.WatchCopy(m.data, m.log())
	return m
}

func (m *machine) log() *slog.Logger { return m.said.Logger() }

// follow starts what a receiver does.
func (m *machine) follow(in bucket.Bucket) (*Follower, error) {
	m.t.Helper()
	return Follow(m.t.Context(), NewList(in), m.watch, m.list, m.log())
}

// refuses reports whether the receiver refuses a host.
func (m *machine) refuses(host episode.Name) bool {
	now := m.watch.Current()
	return now.Err != nil || now.Has(host)
}

// put stores an object whatever there is.
func put(t testing.TB, in bucket.Bucket, name, content string) {
	t.Helper()
	fixture.Must(t, in.Put(t.Context(), name, strings.NewReader(content), int64(len(content)), sha256.Sum256([]byte(content))))
}

// newest returns the newest version in a bucket.
func newest(t testing.TB, in *buckettest.Memory) string {
	t.Helper()
	names := slices.DeleteFunc(in.Names(), func(name string) bool { return !strings.HasPrefix(name, accessPrefix) })
	if len(names) == 0 {
		return ""
	}
	r, _, err := in.Open(t.Context(), names[len(names)-1])
	fixture.Must(t, err)
	defer r.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	fixture.Must(t, err)
	return b.String()
}
