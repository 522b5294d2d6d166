package diskbackend_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backendtest"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

func queryFor(name string, content []byte) wire.InventoryQuery {
	return wire.InventoryQuery{Episode: episode.Name(name), Digest: sha256.Sum256(content)}
}

// queryInventory asks about one episode of lab-01.
func (l *lab) queryInventory(c wire.InventoryQuery, readBack bool) wire.InventoryEntry {
	l.Helper()
	got, err := l.b.Inventory(l.Context(), "lab-01", []wire.InventoryQuery{c}, readBack)
	fixture.Must(l, err)
	if len(got) != 1 || got[0].Episode != c.Episode {
		l.Fatalf("got %+v, want 1 of them and Episode %v", got, c.Episode)
	}
	return got[0]
}

func TestInventoryTellsWhatIsStored(t *testing.T) {
	l := newLab(t, nil)
	l.WantReceipt(key("lab-01", "run-1"), []byte("one"), wire.Stored)
	l.WantReceipt(key("lab-02", "run-2"), []byte("two"), wire.Stored)
	got, err := l.b.Inventory(t.Context(), "lab-01", []wire.InventoryQuery{queryFor("run-2", []byte("two")), queryFor("run-1", []byte("one")), queryFor("run-1", []byte("other"))}, false)
	fixture.Must(t, err)
	if len(got) != 3 || got[0].State != wire.Absent || got[0].Digest != nil {
		t.Fatalf("another host's episode: %+v", got)
	}
	if h := got[1]; h.State != wire.Present || *h.Digest != sha256.Sum256([]byte("one")) || h.Size != 3 || h.VerifiedAt != nil || h.ReceivedAt == nil {
		t.Errorf("what is there: %+v", h)
	}
	if h := got[2]; h.State != wire.Divergent || *h.Digest != sha256.Sum256([]byte("one")) {
		t.Errorf("other bytes: %+v", h)
	}
}

func TestReadBackIsOfTheDisk(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("lab-01", "run-7"), packNoise(1<<20, 7)
	begun := time.Now().Truncate(time.Microsecond)
	l.WantReceipt(k, content, wire.Stored)
	if h := l.queryInventory(queryFor("run-7", content), true); h.State != wire.Present || h.VerifiedAt == nil || h.VerifiedAt.Before(begun) || !h.VerifiedAt.After(h.ReceivedAt.Time) {
		t.Errorf("got %+v", h)
	}
	if h := l.queryInventory(queryFor("run-7", content), false); h.VerifiedAt == nil {
		t.Errorf("it is forgotten: %+v", h)
	}
	l.CorruptStored(k)
	if h := l.queryInventory(queryFor("run-7", content), false); h.State != wire.Present {
		t.Errorf("without reading: %+v", h)
	}
	if h := l.queryInventory(queryFor("run-7", content), true); h.State != wire.StateDamaged || h.VerifiedAt != nil || l.countQuarantined() != 1 {
		t.Errorf("a damaged copy: %+v, %d in quarantine", h, l.countQuarantined())
	}
	if h := l.queryInventory(queryFor("run-7", content), true); h.State != wire.Absent {
		t.Errorf("after it was set aside: %+v", h)
	}
	l.WantReceipt(k, content, wire.Stored)
	if h := l.queryInventory(queryFor("run-7", content), false); h.State != wire.Present || h.VerifiedAt != nil {
		t.Errorf("the new copy was not read yet: %+v", h)
	}
}

func TestReadBackIsBounded(t *testing.T) {
	l := newLab(t, func(c *diskbackend.Config) { c.UploadsPerHost = 2 })
	k, content := key("lab-01", "run-7"), packNoise(1000, 7)
	l.WantReceipt(k, content, wire.Stored)
	arrived, open := make(chan struct{}), make(chan struct{})
	l.setDisk(func(d *durable.Dir, name string) (io.ReadCloser, error) {
		arrived <- struct{}{}
		<-open
		return d.OpenUncached(name)
	})
	l.b.Uploads().MaxWait = 0
	release, err := l.b.Admit(t.Context(), "lab-01")
	fixture.Must(t, err)
	done := make(chan error, 1)
	go func() {
		defer release()
		_, err := l.b.Inventory(t.Context(), "lab-01", []wire.InventoryQuery{queryFor("run-7", content)}, true)
		done <- err
	}()
	<-arrived
	if _, err := l.b.Inventory(t.Context(), "lab-01", []wire.InventoryQuery{queryFor("run-7", content)}, true); !errors.Is(err, wire.HostBusy) {
		t.Errorf("a second one at once: %v, want HostBusy", err)
	}
	if h := l.queryInventory(queryFor("run-7", content), false); h.State != wire.Present {
		t.Errorf("asking beside it: %+v", h)
	}
	gate, come := make(chan struct{}), make(chan struct{}, 1)
	put := make(chan error, 1)
	go func() {
		_, err := l.b.Put(t.Context(), uploadOf(key("lab-01", "run-8"), []byte("slow")), backendtest.StopBeforeLast([]byte("slow"), come, gate))
		put <- err
	}()
	<-come
	if _, err := l.b.Admit(t.Context(), "lab-01"); !errors.Is(err, wire.HostBusy) {
		t.Errorf("a third thing under way: %v, want HostBusy", err)
	}
	close(open)
	close(gate)
	fixture.Must(t, fixture.ReceiveWithin(t, time.Minute, done, "the reading"))
	fixture.Must(t, fixture.ReceiveWithin(t, time.Minute, put, "the upload"))
}

// Where files have no attribute, the row decides, and without one the bytes, but a single
// question must not read a thousand files.
func TestInventoryOfWhatWasCopiedInByHand(t *testing.T) {
	l := newLab(t, nil)
	l.WantReceipt(key("lab-01", "run-1"), []byte("x"), wire.Stored)
	fixture.Must(t, unix.Removexattr(l.StoredPath(key("lab-01", "run-1")), "user.cis490.receipt"))
	if h := l.queryInventory(queryFor("run-1", []byte("x")), false); h.State != wire.Present || h.VerifiedAt != nil {
		t.Errorf("by its row: %+v", h)
	}
	fixture.Must(t, os.WriteFile(l.StoredPath(key("lab-01", "by-hand")), []byte("by hand"), 0o640))
	if h := l.queryInventory(queryFor("by-hand", []byte("by hand")), false); h.State != wire.Absent {
		t.Errorf("without row: %+v", h)
	}
	if h := l.queryInventory(queryFor("by-hand", []byte("by hand")), true); h.State != wire.Present {
		t.Errorf("its bytes: %+v", h)
	}
	if h := l.queryInventory(queryFor("by-hand", []byte("other")), true); h.State != wire.Divergent {
		t.Errorf("other bytes: %+v", h)
	}
}
