package admission

import (
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
)

// TestOneAddressLeavesConnectionsToOthers, whatever is configured.
func TestOneAddressLeavesConnectionsToOthers(t *testing.T) {
	for _, uploads := range []int{1, 64, 512, 4096} {
		c, err := NewConns(uploads, 8, 1<<20)
		fixture.Must(t, err)
		if c.perAddress < minUnidentified || 4*c.perAddress > c.max {
			t.Errorf("%d uploads: one address may have %d of %d connections", uploads, c.perAddress, c.max)
		}
	}
}

// TestConnectionsFitIntoTheLimitOfOpenFiles, with the files of uploads.
func TestConnectionsFitIntoTheLimitOfOpenFiles(t *testing.T) {
	for _, c := range []struct {
		uploads   int
		openFiles uint64
		want      int // per listener; 0: refused
	}{
		{64, 4096, 2*64 + 1024},
		{64, 1 << 62, 2*64 + 1024},
		{64, 1024, (1024 - 96 - 4*64) / 2},
		{64, 416, 32},
		{64, 415, 0},
		{4096, 4096, 0},
	} {
		conns, err := NewConns(c.uploads, 16, c.openFiles)
		if err != nil {
			if c.want != 0 {
				t.Errorf("%d uploads, %d files: %v", c.uploads, c.openFiles, err)
			}
			continue
		}
		if conns.max != c.want {
			t.Errorf("%d uploads, %d files: %d connections, want %d", c.uploads, c.openFiles, conns.max, c.want)
		}
	}
}

// TestHandshakesOfAnAddressAreBounded over time, and another address is not affected.
func TestHandshakesOfAnAddressAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewConns(64, 16, 4096)
		fixture.Must(t, err)
		l := c.LimitListener(nil).(*limitListener)
		connect := func(address string, times int) (admitted int) {
			for range times {
				conn := &trackedConn{listener: l, address: address}
				if c.addConn(conn) {
					admitted++
					c.removeConn(conn)
				}
			}
			return admitted
		}
		if got := connect("10.0.0.7", 5000); got != arrivalBurst {
			t.Errorf("%d connections at once, want %d", got, arrivalBurst)
		}
		if got := connect("10.0.0.8", 10); got != 10 {
			t.Errorf("%d of 10 connections of another address", got)
		}
		time.Sleep(time.Second)
		if got := connect("10.0.0.7", 5000); got != arrivalsPerSecond {
			t.Errorf("%d connections a second later, want %d", got, arrivalsPerSecond)
		}
	})
}

// TestAddressesAreForgotten once they have their full burst again.
func TestAddressesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewConns(64, 16, 4096)
		fixture.Must(t, err)
		l := c.LimitListener(nil).(*limitListener)
		for i := range maxArrivals + 1 {
			conn := &trackedConn{listener: l, address: string(rune(i + 1))}
			if want := i < maxArrivals; c.addConn(conn) != want {
				t.Fatalf("address %d: not %v", i, want)
			}
			c.removeConn(conn)
		}
		time.Sleep(time.Second)
		if conn := (&trackedConn{listener: l, address: "new"}); !c.addConn(conn) || len(c.arrivals) != 1 {
			t.Errorf("%d addresses are remembered, want 1", len(c.arrivals))
		}
	})
}
