package uplink_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// reporter answers a report with a store, or with an error.
type reporter struct {
	pinger
	err   error
	older bool
	known wire.Store // what the request claimed to know
}

func (r *reporter) SendReport(ctx context.Context, _ wire.Report) (*wire.PingResponse, error) {
	r.known = wire.KnownStore(ctx)
	if r.err != nil || r.older {
		return nil, r.err
	}
	return &wire.PingResponse{Store: r.store}, nil
}

func TestReportIsCheckedLikeAPing(t *testing.T) {
	dir, err := durable.Open(t.TempDir())
	fixture.Must(t, err)
	out := outbox.New(dir)
	t.Cleanup(func() { out.Close() })
	fixture.Must(t, out.AdoptStore(outbox.Store{ID: "STORE1", IndexBytes: 100, IndexTail: "tail"}))
	store := func(id string, bytes int64) *wire.Store { return &wire.Store{ID: id, IndexBytes: bytes} }
	for name, test := range map[string]struct {
		receiver reporter
		other    bool
		fails    bool
		known    int64 // bytes of the index that the next request knows
	}{
		"grown":             {receiver: reporter{pinger: pinger{store("STORE1", 120)}}, known: 120},
		"an older image":    {receiver: reporter{pinger: pinger{store("STORE1", 99)}}, other: true, known: 100},
		"another store":     {receiver: reporter{pinger: pinger{store("STORE2", 200)}}, other: true, known: 100},
		"names none":        {receiver: reporter{}, known: 100},
		"older receiver":    {receiver: reporter{older: true}, known: 100},
		"refuses the host":  {receiver: reporter{err: wire.Refuse(wire.Forbidden, "disabled")}, fails: true, known: 100},
		"refuses its store": {receiver: reporter{err: &wire.Problem{Code: wire.OtherStore, Store: store("STORE1", 130)}}, other: true, known: 100},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := uplink.NewAdoption(nil, out, nil, slog.New(slog.DiscardHandler))
			fixture.Must(t, err)
			_, err = a.Report(t.Context(), &test.receiver, wire.Report{})
			if uplink.IsOtherStore(err) != test.other || (err != nil) != (test.other || test.fails) {
				t.Errorf("got %v, want an error: %v, of another store: %v", err, test.other || test.fails, test.other)
			}
			if got := test.receiver.known; got.ID != "STORE1" || got.IndexBytes != 100 || got.IndexTail != "tail" {
				t.Errorf("the report claims to know %+v, want what was adopted", got)
			}
			next := reporter{err: errors.New("not asked")}
			_, _ = a.Report(t.Context(), &next, wire.Report{})
			if got := next.known.IndexBytes; got != test.known {
				t.Errorf("the next report knows %d bytes of the index, want %d", got, test.known)
			}
		})
	}
}
