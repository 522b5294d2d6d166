package uplink_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// pinger answers a ping like a receiver that ignores what the request claims to know.
type pinger struct{ store *wire.Store }

func (p pinger) Ping(context.Context) (wire.PingResponse, error) {
	return wire.PingResponse{Store: p.store}, nil
}

func (p pinger) Inventory(context.Context, []wire.InventoryQuery, bool) ([]wire.InventoryEntry, *wire.Store, error) {
	return nil, p.store, errors.New("not asked")
}

func TestPingOfAnotherStoreSaysSo(t *testing.T) {
	c := hostdir.Config{Outbox: config.Path(t.TempDir())}
	dir, err := durable.Open(string(c.Outbox))
	fixture.Must(t, err)
	out := outbox.New(dir)
	fixture.Must(t, out.AdoptStore(outbox.Store{ID: "STORE1", IndexBytes: 100}))
	fixture.Must(t, out.Close())
	adopted, err := uplink.AdoptedBy(c)
	fixture.Must(t, err)
	for _, test := range []struct {
		store *wire.Store
		other bool
	}{
		{nil, false},
		{&wire.Store{ID: "STORE1", IndexBytes: 100}, false},
		{&wire.Store{ID: "STORE1", IndexBytes: 99}, true},
		{&wire.Store{ID: "STORE2"}, true},
		{&wire.Store{ID: "STORE2", Replaces: []string{"STORE1"}}, false},
	} {
		_, err := uplink.Ping(t.Context(), c, pinger{test.store}, adopted)
		if other := uplink.IsOtherStore(err); other != test.other {
			t.Errorf("%+v: got %v, want another store: %v", test.store, err, test.other)
		}
	}
	if got, err := uplink.AdoptedBy(c); err != nil || got != adopted || got.ID != "STORE1" {
		t.Errorf("after pings %+v is adopted, %v, want %+v", got, err, adopted)
	}
}

// A host whose directories are broken still learns whether the receiver can be reached.
func TestPingDoesNotDependOnTheDirectories(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	fixture.WriteFile(t, file, "")
	c := hostdir.Config{Episodes: config.Path(filepath.Join(file, "episodes"))}
	store := &wire.Store{ID: "STORE1"}
	for _, adopted := range []outbox.Store{{}, {ID: "STORE1"}} {
		pong, err := uplink.Ping(t.Context(), c, pinger{store}, adopted)
		if pong.Store != store {
			t.Errorf("%+v: got the response %+v, want that of the receiver", adopted, pong)
		}
		if broken := err != nil; broken != (adopted.ID == "") {
			t.Errorf("%+v: got %v, want an error only while no store is adopted", adopted, err)
		}
	}
}
