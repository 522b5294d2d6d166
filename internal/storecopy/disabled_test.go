package storecopy

import (
	"crypto/sha256"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/sharedhosts"
)

// hostsOf is the list of disabled hosts in a directory, and hostsIn that in a bucket.
func hostsOf(dir string) datadir.HostList { return datadir.HostList{Dir: dir, Holder: "the test"} }

func hostsIn(t testing.TB, in *buckettest.Memory) datadir.HostList {
	return datadir.HostList{Dir: filepath.Join(t.TempDir(), "none"), Holder: "the test", Shared: sharedhosts.NewList(in)}
}

func disable(t testing.TB, l datadir.HostList, hosts ...episode.Name) {
	t.Helper()
	_, err := l.Disable(t.Context(), hosts, time.Now())
	fixture.Must(t, err)
}

// listIn returns the newest version of the list in a bucket, and listOf the list in a directory.
func listIn(t testing.TB, in *buckettest.Memory) string {
	t.Helper()
	_, newest, err := sharedhosts.NewList(in).Newest(t.Context())
	fixture.Must(t, err)
	return string(newest)
}

func listOf(t testing.TB, dir string) string {
	t.Helper()
	return fixture.ReadFile(t, filepath.Join(dir, "disabled-hosts.json"))
}

func checkHosts(t testing.TB, where, list string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(list, text) {
			t.Errorf("%s: got %s, want %s", where, list, text)
		}
	}
}

// No host that is disabled at the old place at the moment of the switch, or at the new one, is served after it.
// So are certificates that have ended.
func TestDisabledHostsMoveWithTheStore(t *testing.T) {
	dir, _ := newStore(t)
	disable(t, hostsOf(dir), "on-disk", "removed")
	_, err := hostsOf(dir).Remove(t.Context(), []episode.Name{"removed"}, time.Now())
	fixture.Must(t, err)
	in := new(buckettest.Memory)
	_, err = copyToBucket(t, t.Context(), dir, in)
	fixture.Must(t, err)
	if got := listIn(t, in); got != "" {
		t.Errorf("before the switch: got %s, want no list: hosts may be enabled again", got)
	}
	disable(t, hostsIn(t, in), "in-bucket", "removed")
	_, err = hostsOf(dir).Enable(t.Context(), []episode.Name{"host-9"})
	fixture.Must(t, err)
	last := false
	in.Fault = func(op, name string) buckettest.Fault {
		switch {
		case op == buckettest.OpList && !last: // the final run has begun
			last = true
			disable(t, hostsOf(dir), "at-last")
		case op == buckettest.OpCreate && name == "store.json": // the disk is given up, and its list was read
			_, err := hostsOf(dir).Disable(t.Context(), []episode.Name{"late"}, time.Now())
			if _, moved := errors.AsType[*datadir.MovedError](err); !moved {
				t.Errorf("a command after the switch: got %v, want that the store has moved", err)
			}
		}
		return buckettest.None
	}
	_, err = copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	in.Fault = nil
	got := listIn(t, in)
	checkHosts(t, "in the bucket", got, `"on-disk"`, `"in-bucket"`, `"at-last"`, `"removed":true`)
	if strings.Contains(got, "host-9") || strings.Contains(got, "late") {
		t.Errorf("in the bucket: got %s, want neither host-9 nor late", got)
	}

	// And back.
	shared := hostsIn(t, in)
	fixture.Must(t, shared.Readmit(t.Context(), "again", "0B", time.Now()))
	disable(t, shared, "later")
	_, err = copyToDisk(t, t.Context(), in, dir)
	fixture.Must(t, err)
	disable(t, shared, "beside")
	_, err = copyToDisk(t, t.Context(), in, dir, final)
	fixture.Must(t, err)
	got = listOf(t, dir)
	checkHosts(t, "on the disk", got, `"on-disk"`, `"in-bucket"`, `"at-last"`, `"removed": true`, `"later"`, `"beside"`, `"by": "0B"`)
	if strings.Contains(got, `"version"`) {
		t.Errorf("on the disk: got %s, want no version: the list is not shared", got)
	}
	disable(t, hostsOf(dir), "and-on")
}

// A list that cannot be read keeps the store where it is.
func TestAStoreWithADamagedListOfDisabledHostsStays(t *testing.T) {
	dir, _ := newStore(t)
	path := filepath.Join(dir, "disabled-hosts.json")
	fixture.WriteFile(t, path, "x")
	in := new(buckettest.Memory)
	got, err := copyToBucket(t, t.Context(), dir, in, final)
	if !errors.Is(err, datadir.ErrDisabledList) || got.Moved {
		t.Errorf("to a bucket: got %+v, %v, want %v", got, err, datadir.ErrDisabledList)
	}
	if err := datadir.CheckHere(dir); err != nil {
		t.Errorf("a receiver of the disk: got %v, want that it starts", err)
	}
	fixture.WriteFile(t, path, `{"schema_version":1,"disabled":[]}`)
	_, err = copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	const newer = "of a newer release"
	fixture.Must(t, in.Put(t.Context(), "hosts/access/0000000001.json", strings.NewReader(newer), int64(len(newer)), sha256.Sum256([]byte(newer))))
	got, err = copyToDisk(t, t.Context(), in, dir, final)
	if !errors.Is(err, datadir.ErrDisabledList) || got.Moved {
		t.Errorf("to a disk: got %+v, %v, want %v", got, err, datadir.ErrDisabledList)
	}
	fixture.Must(t, in.Remove(t.Context(), "hosts/access/0000000001.json"))
	got, err = copyToDisk(t, t.Context(), in, dir, final)
	if err != nil || !got.Moved {
		t.Errorf("to a disk, repaired: got %+v, %v", got, err)
	}
}

// A list that was a copy of another bucket's counts as one that was never shared, at both places.
func TestAListOfAnotherBucketMoves(t *testing.T) {
	const list = `{"schema_version":1,"disabled":[{"host_id":"old","since":"2026-11-30T00:00:00Z"}],"version":7,"change":"OTHER"}`
	dir, _ := newStore(t)
	path := filepath.Join(dir, "disabled-hosts.json")
	fixture.WriteFile(t, path, list)
	in := new(buckettest.Memory)
	_, err := copyToBucket(t, t.Context(), dir, in, final)
	fixture.Must(t, err)
	checkHosts(t, "in the bucket", listIn(t, in), `"old"`, `"version":1`)
	fixture.WriteFile(t, path, list)
	_, err = copyToDisk(t, t.Context(), in, dir, final)
	fixture.Must(t, err)
	if got := listOf(t, dir); !strings.Contains(got, `"old"`) || strings.Contains(got, `"version"`) {
		t.Errorf("on the disk: got %s, want the host without a version", got)
	}
}
