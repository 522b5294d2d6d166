package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// TestPathMTUFindsTheLargestPacketThatArrives, and tells a black hole from a firewall.
func TestPathMTUFindsTheLargestPacketThatArrives(t *testing.T) {
	wg := Route{Interface: "wg0", MTU: 1420, WireGuard: true}
	for _, c := range []struct {
		name    string
		route   Route
		send    func(packet int) (probeOutcome, int, error)
		verdict Verdict
		text    string
	}{
		{"all arrive", wg, func(int) (probeOutcome, int, error) { return arrived, 0, nil }, OK, "packets of 1420 bytes"},
		{"a router reports it", wg, func(n int) (probeOutcome, int, error) {
			if n > 1300 {
				return tooLarge, 1300, nil
			}
			return arrived, 0, nil
		}, OK, "1300 bytes, reported by a router"},
		{"no answer", wg, func(int) (probeOutcome, int, error) { return unanswered, 0, nil }, Skipped, "TLS below"},
		{"refused", wg, func(int) (probeOutcome, int, error) { return rejected, 0, unix.EHOSTUNREACH }, Skipped, "no route to host"},
		{"a black hole", wg, func(n int) (probeOutcome, int, error) {
			if n > 1280 {
				return unanswered, 0, nil
			}
			return arrived, 0, nil
		}, Failed, "ip link set dev wg0 mtu 12"},
		{"a black hole without WireGuard", Route{Interface: "eth0", MTU: 1500}, func(n int) (probeOutcome, int, error) {
			if n > 1280 {
				return unanswered, 0, nil
			}
			return arrived, 0, nil
		}, Failed, "let ICMP pass"},
		{"a black hole of an unknown interface", Route{MTU: 1500}, func(n int) (probeOutcome, int, error) {
			if n > 1280 {
				return unanswered, 0, nil
			}
			return arrived, 0, nil
		}, Failed, "lower the MTU of the interface to 12"},
	} {
		sent := 0
		got := searchPathMTU(t.Context(), c.route, 92, func(n int) (probeOutcome, int, error) {
			sent++
			return c.send(n)
		})
		checkFinding(t, c.name, got, c.verdict, c.text)
		if sent > 3*probeTries+maxSearch {
			t.Errorf("%s: %d probes", c.name, sent)
		}
		if c.verdict == Failed && c.route.Interface != "" {
			var mtu int
			if _, err := fmt.Sscanf(got.Remedy[strings.Index(got.Remedy, " mtu "):], " mtu %d", &mtu); err != nil || mtu > 1280 || mtu < 1240 {
				t.Errorf("%s: MTU %d, %v, want nearly 1280", c.name, mtu, err)
			}
		}
	}
}

// TestLostProbeIsSentAgain: one packet that is lost proves nothing.
func TestLostProbeIsSentAgain(t *testing.T) {
	lost := map[int]bool{}
	got := searchPathMTU(t.Context(), Route{MTU: 1500}, 92, func(n int) (probeOutcome, int, error) {
		if !lost[n] {
			lost[n] = true
			return unanswered, 0, nil
		}
		return arrived, 0, nil
	})
	checkFinding(t, "each first one is lost", got, OK, "1500")
}

// TestLossIsNotABlackHole: a full packet that arrives at last clears the path.
func TestLossIsNotABlackHole(t *testing.T) {
	full := 0
	got := searchPathMTU(t.Context(), Route{MTU: 1500}, 92, func(n int) (probeOutcome, int, error) {
		if n == 1500 {
			full++
		}
		if n > 1400 && full <= probeTries {
			return unanswered, 0, nil
		}
		return arrived, 0, nil
	})
	checkFinding(t, "full packets arrive later", got, OK, "some are lost")
}

// TestBlackHoleNeedsALostHello: with MSS clamping, TCP works where large datagrams vanish.
func TestBlackHoleNeedsALostHello(t *testing.T) {
	hole := markNetwork(Failedf("path MTU", "run x", "a black hole"))
	checkFinding(t, "lost", ConfirmBlackHole(hole, HelloLost), Failed, "a black hole do: run x")
	checkFinding(t, "arrived", ConfirmBlackHole(hole, HelloArrived), Warning, "TCP works nevertheless: a router adapts its segments do: only if uploads hang: run x")
	checkFinding(t, "not tried", ConfirmBlackHole(hole, HelloUnknown), Warning, "not known")
	checkFinding(t, "all is well", ConfirmBlackHole(OKf("path MTU", "fine"), HelloLost), OK, "fine")
	for _, c := range []struct {
		err  error
		want HelloOutcome
	}{
		{nil, HelloArrived},
		{fmt.Errorf("tls handshake: %w", os.ErrDeadlineExceeded), HelloLost},
		{fmt.Errorf("tls handshake: %w", unix.ECONNRESET), HelloLost},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, HelloUnknown},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, HelloArrived},
		{&tls.CertificateVerificationError{Err: errors.New("x509")}, HelloArrived},
		{fmt.Errorf("tls handshake: %w", io.EOF), HelloLost},
		{unix.EPIPE, HelloUnknown},
		{context.Canceled, HelloUnknown},
	} {
		if got := judgeHello(t.Context(), c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}

// TestLargeHelloIsTriedTwice before its size is to blame.
func TestLargeHelloIsTriedTwice(t *testing.T) {
	for _, c := range []struct {
		lost    int // large hellos
		err     error
		dials   int
		verdict Verdict
	}{{1, unix.ECONNRESET, 3, OK}, {2, unix.ECONNRESET, 3, Failed}, {1, unix.EPIPE, 2, Failed}} {
		large, dials := 0, 0
		found, _, _ := CheckTLS(t.Context(), func(_ context.Context, groups ...tls.CurveID) (net.Conn, error) {
			dials++
			if len(groups) > 1 {
				large++
				if large <= c.lost {
					return nil, c.err
				}
			}
			conn, other := net.Pipe()
			t.Cleanup(func() { other.Close() })
			return conn, nil
		}, Route{Interface: "eth0"}, true)
		if found[0].Verdict != c.verdict || dials != c.dials || strings.Contains(found[0].Remedy, "mtu") {
			t.Errorf("%+v: %d dials, got %+v", c, dials, found)
		}
		if blamed := strings.Contains(found[0].Remedy, "tlsmlkem"); blamed != (c.lost == 2) {
			t.Errorf("%+v: the size is to blame: %t", c, blamed)
		}
	}
}

// TestProbesReachAClosedPort of this machine, whose kernel refuses them. One that does not fit is
// reported.
func TestProbesReachAClosedPort(t *testing.T) {
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	open := l.LocalAddr().(*net.UDPAddr).AddrPort()
	// A bound socket that nothing reads does not answer.
	if outcome, _, err := sendProbe(Route{To: open}, 64); outcome != unanswered || err != nil {
		t.Errorf("an open port: %v, %v", outcome, err)
	}
	l.Close()
	f, r := CheckRoute([]netip.AddrPort{open})
	checkFinding(t, "route", f, OK, "from 127.0.0.1 through lo, MTU ")
	checkFinding(t, "path MTU", CheckPathMTU(t.Context(), r), OK, "arrive")
	if outcome, _, _ := sendProbe(r, 65507); outcome == arrived && r.MTU < 65535 {
		t.Error("a packet beyond the MTU arrived")
	}
}

func TestRouteAndNameFailWithAHint(t *testing.T) {
	f, addrs := CheckName(t.Context(), "no-such-name.invalid:8443")
	checkFinding(t, "name", f, Failed, "does not resolve")
	if len(addrs) != 0 || !f.Network {
		t.Errorf("got %v, %+v", addrs, f)
	}
	f, addrs = CheckName(t.Context(), "[::1]:8443")
	checkFinding(t, "an address", f, OK, "::1 is an address")
	if want := netip.MustParseAddrPort("[::1]:8443"); len(addrs) != 1 || addrs[0] != want {
		t.Errorf("got %v", addrs)
	}
	f, _ = CheckRoute([]netip.AddrPort{netip.MustParseAddrPort("[fe80::1]:1")}) // it lacks the zone
	if f.Verdict != Failed || !f.Network || f.Remedy == "" {
		t.Errorf("got %+v", f)
	}
}

func TestConnectionSaysWhyItFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, to := CheckConnection(t.Context(), wire.Dial, l.Addr().String())
	checkFinding(t, "an open port", f, OK, "round trip")
	if to.String() != l.Addr().String() {
		t.Errorf("connected to %v", to)
	}
	l.Close()
	f, _ = CheckConnection(t.Context(), wire.Dial, l.Addr().String())
	checkFinding(t, "a closed port", f, Failed, "nothing listens there")
}

// TestTLSTellsALostPacketFromARefusal: the size is to blame only if the small hello works.
func TestTLSTellsALostPacketFromARefusal(t *testing.T) {
	timeout := fmt.Errorf("tls handshake: %w", os.ErrDeadlineExceeded)
	route := Route{Interface: "wg0", WireGuard: true}
	for _, c := range []struct {
		name           string
		large, small   error
		first, second  Verdict
		firstT, secndT string
	}{
		{"both work", nil, nil, OK, OK, "two packets", "small hello"},
		{"the large one is lost", timeout, nil, Failed, OK, "GODEBUG=tlsmlkem=0", "small hello"},
		{"both are lost", timeout, timeout, Failed, Skipped, "no answer in time", "same way"},
		{"different errors", timeout, unix.ECONNREFUSED, Failed, Failed, "no answer in time", "nothing listens"},
		{"interrupted", context.Canceled, context.Canceled, Skipped, Skipped, "interrupted", "interrupted"},
	} {
		h := handshakeResult{version: tls.VersionTLS13, group: tls.X25519MLKEM768, took: time.Millisecond}
		got := judgeTLS(route, false, h, h, c.large, c.small)
		checkFinding(t, c.name, got[0], c.first, c.firstT)
		checkFinding(t, c.name, got[1], c.second, c.secndT)
		if c.name == "the large one is lost" {
			checkFinding(t, c.name, got[0], Failed, "ip link set dev wg0 mtu 1280")
		}
	}
}

// TestThroughputTakesALongerProbeOfAFastLink, and gives up in time.
func TestThroughputTakesALongerProbeOfAFastLink(t *testing.T) {
	for _, c := range []struct {
		name    string
		rate    int64 // bytes per second
		err     error
		verdict Verdict
		text    string
	}{
		{"fast", 64 << 20, nil, OK, "64 MiB/s to the receiver (8.0 MiB in 125 ms)"},
		{"slow", 200 << 10, nil, OK, "200 KiB/s to the receiver (256 KiB in 1.3 s)"},
		{"too long for the second", 300 << 10, nil, OK, "300 KiB/s to the receiver (256 KiB in 853 ms)"},
		{"slow to the end", 15 << 10, nil, Warning, "15 KiB/s to the receiver (256 KiB in 17.1 s) do: use a faster link, or"},
		{"too slow", 8 << 10, nil, Failed, "fewer than 256 KiB in 20s"},
		{"below the receiver's rate", 0, wire.Refuse(wire.Stalled, "x"), Failed, "min_rate"},
		{"an old receiver", 0, wire.NotFound, Skipped, "too old"},
		{"busy", 0, wire.Busy, Skipped, ""},
		{"broken", 0, unix.ECONNRESET, Failed, "the connection broke"},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			got := CheckThroughput(t.Context(), func(ctx context.Context, size int64) (time.Duration, error) {
				if c.err != nil {
					return 0, c.err
				}
				took := time.Duration(float64(size) / float64(c.rate) * float64(time.Second))
				select {
				case <-time.After(took):
					return took, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			})
			checkFinding(t, c.name, got, c.verdict, c.text)
			if took := time.Since(began); took > throughputLimit {
				t.Errorf("%s: took %v", c.name, took)
			}
		})
	}
}

// TestPacketsToThisMachineStayInIt: whatever interface has the address. Those of the loopback interface
// cannot show that: packets to all of them come from 127.0.0.1.
func TestPacketsToThisMachineStayInIt(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		f, _ := CheckRoute([]netip.AddrPort{netip.AddrPortFrom(p.Addr(), 1)})
		checkFinding(t, a.String(), f, OK, "through lo, ")
		return
	}
	fixture.Skip(t, errors.New("this machine has no address but those of its loopback interface"))
}
