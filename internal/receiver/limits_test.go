package receiver_test

import (
	"errors"
	"testing"

	"cis490/internal/episode"
	"cis490/internal/receiver"
	"cis490/internal/wire"
)

// TestHostsShareThePlaces: hosts that have more than their share must give way
// when others come, and nobody else.
func TestHostsShareThePlaces(t *testing.T) {
	p := receiver.NewPlaces(16, 8)
	held := map[episode.Name][]func(){}
	take := func(host episode.Name, want error) {
		t.Helper()
		free, err := p.Take(host)
		if !errors.Is(err, want) {
			t.Fatalf("%s, who has %d: %v, want %v", host, len(held[host]), err, want)
		}
		if err == nil {
			held[host] = append(held[host], free)
		}
	}
	release := func(host episode.Name) {
		held[host][0]()
		held[host] = held[host][1:]
	}
	for range 8 {
		take("a", nil)
	}
	take("a", wire.HostBusy)
	for range 8 {
		take("b", nil)
	}
	take("c", wire.Busy) // nothing is left
	release("a")
	take("a", wire.Busy) // of which it has its share
	take("c", nil)
	for range 3 {
		release("b")
		take("b", wire.Busy) // it has more than a third of all
		take("c", nil)
	}
	release("a")
	take("a", wire.Busy)
	take("b", wire.Busy)
	take("c", nil) // who has the least
	if a, b, c := len(held["a"]), len(held["b"]), len(held["c"]); a != 6 || b != 5 || c != 5 {
		t.Errorf("a has %d, b has %d, c has %d, want 6, 5 and 5", a, b, c)
	}
	// A host that is alone has all that one may have.
	alone := receiver.NewPlaces(16, 8)
	for i := range 8 {
		if _, err := alone.Take("a"); err != nil {
			t.Errorf("place %d of a host that is alone: %v", i, err)
		}
	}
}
