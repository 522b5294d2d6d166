package linktest_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cis490/internal/labtest"
	"cis490/internal/linktest"
)

// The overhead on the network besides the archive: headers of IP, TCP and TLS, and the
// handshakes.
const plainOverhead = 1.08

// What a broken connection may have had in flight, of an archive of [archiveSize].
const inFlight = 0.25

// TestBlackHoleOutlastsAConnection: in mid-upload packets vanish, and neither end notices. The
// link comes back when both ends have given the connection up. The daemon logs one line, sends
// nothing but pings, and continues at its offset. This test comes first, because it waits for
// the kernel.
func TestBlackHoleOutlastsAConnection(t *testing.T) {
	var w *linktest.Wire
	s := newSite(t, joinByWire(&w, linktest.Faults{Delay: 5 * time.Millisecond}))
	d := s.host.Daemon()
	s.waitHalf(t)
	w.Set(linktest.Faults{Dead: true})
	began := time.Now()
	labtest.Within(t, 4*time.Minute, "the shipper gives it up", func() bool {
		return strings.Contains(d.Output(), "receiver unavailable")
	})
	// A minute and a half for the connection, and a ping that is not answered.
	if took := time.Since(began); took > 115*time.Second {
		t.Errorf("the shipper noticed after %v", took)
	}
	before := s.receivedBytes()
	if before < archiveSize/2 {
		t.Errorf("%d bytes are left of the upload", before)
	}
	w.Set(linktest.Faults{})
	labtest.Within(t, time.Minute, "the episode is home", func() bool { return s.host.IsShipped("run-1") })
	s.host.WaitEmpty()
	if n := strings.Count(d.Output(), "receiver is back"); n != 1 {
		t.Errorf("%d lines say that the receiver is back", n)
	}
	d.Stop(t)
	s.wantDelivered(t, plainOverhead+inFlight)
}

// joinByWire connects two sides by a wire with faults.
func joinByWire(w **linktest.Wire, f linktest.Faults) func(*linktest.Net) error {
	return func(n *linktest.Net) error {
		made, err := n.Wire(1)
		if err == nil {
			made.Set(f)
			*w = made
		}
		return err
	}
}

// TestShortBlackHoleCostsLittle: the connection survives, or the receiver closes it as idle and
// the upload continues on another.
func TestShortBlackHoleCostsLittle(t *testing.T) {
	var w *linktest.Wire
	s := newSite(t, joinByWire(&w, linktest.Faults{Delay: 5 * time.Millisecond}))
	p := s.host.Launch("--once")
	s.waitHalf(t)
	w.Set(linktest.Faults{Dead: true})
	s.waitIdle(t)
	w.Set(linktest.Faults{})
	s.waitDelivered(t, p)
	s.wantDelivered(t, plainOverhead+inFlight)
}

// waitDelivered waits for the end of a pass that delivers the episode.
func (s *site) waitDelivered(t *testing.T, p *labtest.Process) {
	t.Helper()
	labtest.Within(t, 2*time.Minute, "the pass ends", func() bool { return !p.Running() })
	if code := p.Wait(t); code != 0 {
		t.Errorf("the pass ended with %d", code)
	}
}

// TestSlowLinkIsNoFault: one attempt, however long it takes.
func TestSlowLinkIsNoFault(t *testing.T) {
	s := newSite(t, (*linktest.Net).Veth)
	s.runCommand(t, linktest.Host, "tc qdisc add dev DEV root tbf rate 16mbit burst 32kb latency 50ms")
	s.host.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if took := time.Since(s.begun); took < 10*time.Second {
		t.Errorf("24 MB took %v at 2 MB a second", took)
	}
	s.wantDelivered(t, plainOverhead)
}

// TestLossCostsWhatIsLost.
func TestLossCostsWhatIsLost(t *testing.T) {
	var w *linktest.Wire
	s := newSite(t, joinByWire(&w, linktest.Faults{Loss: 0.05}))
	s.host.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if n := w.Lost(); n < 500 {
		t.Errorf("%d packets were lost", n)
	}
	s.wantDelivered(t, plainOverhead+0.07)
}

// TestLongWayWithLoss has a round-trip time of 100 ms.
func TestLongWayWithLoss(t *testing.T) {
	var w *linktest.Wire
	s := newSite(t, joinByWire(&w, linktest.Faults{Delay: 45 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.001}))
	s.host.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if w.Lost() == 0 {
		t.Error("nothing was lost")
	}
	s.wantDelivered(t, plainOverhead+0.02)
}

// TestLinkThatGoesDownComesBack: a cable is pulled out of the receiver in
// mid-upload, and put back.
func TestLinkThatGoesDownComesBack(t *testing.T) {
	s := newSite(t, (*linktest.Net).Veth)
	s.runCommand(t, linktest.Host, "tc qdisc add dev DEV root tbf rate 40mbit burst 32kb latency 50ms")
	p := s.host.Launch("--once")
	s.waitHalf(t)
	s.runCommand(t, linktest.Receiver, "ip link set DEV down")
	s.waitIdle(t)
	s.runCommand(t, linktest.Receiver, "ip link set DEV up")
	s.waitDelivered(t, p)
	s.wantDelivered(t, plainOverhead+inFlight)
}

// TestSmallMTUPassesABlackHole: packets of full size vanish in mid-upload, as in a tunnel within
// a tunnel. A ping, whose handshake has such a packet, reports that the link is bad. The advice
// of docs/install.md lets the same upload continue.
func TestSmallMTUPassesABlackHole(t *testing.T) {
	s := newSite(t, (*linktest.Net).Veth)
	s.runCommand(t, linktest.Host, "tc qdisc add dev DEV root tbf rate 40mbit burst 32kb latency 50ms")
	p := s.host.Launch("--once")
	s.waitHalf(t)
	for _, side := range []linktest.Side{linktest.Host, linktest.Receiver} {
		s.runCommand(t, side, "iptables -A INPUT -m length --length 1281: -j DROP")
	}
	s.waitIdle(t)
	if r := s.host.Run("--ping"); r.Code != 4 {
		t.Errorf("a ping through the hole: exit code %d, want 4\n%s", r.Code, r.Stderr)
	}
	for _, side := range []linktest.Side{linktest.Host, linktest.Receiver} {
		s.runCommand(t, side, "ip link set DEV mtu 1280")
	}
	s.host.Run("--ping").MustExit(t, 0)
	s.waitDelivered(t, p)
	if n, err := s.Counted(linktest.Receiver); err != nil || n == 0 {
		t.Errorf("%d packets were too large (%v)", n, err)
	}
	s.wantDelivered(t, plainOverhead+inFlight)
}

// TestDoctorFindsTheMTUOfABlackHole: it names the largest size, and with that the host is healthy.
func TestDoctorFindsTheMTUOfABlackHole(t *testing.T) {
	s := newSite(t, (*linktest.Net).Veth)
	s.host.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	s.host.Run("doctor").MustExit(t, 0)
	for _, side := range []linktest.Side{linktest.Host, linktest.Receiver} {
		s.runCommand(t, side, "iptables -A INPUT -m length --length 1281: -j DROP")
	}
	r := s.host.Run("doctor").MustExit(t, 4)
	found := regexp.MustCompile(`FAILED +path MTU +a black hole: packets of (\d+) bytes`).FindStringSubmatch(r.Stdout)
	if found == nil || !strings.Contains(r.Stdout, "ip link set dev lab0 mtu "+found[1]) {
		t.Fatalf("no black hole, or no remedy: %s", r.Stdout)
	}
	if mtu, err := strconv.Atoi(found[1]); err != nil || mtu > 1280 || mtu < 1240 {
		t.Errorf("MTU %d, want nearly 1280", mtu)
	}
	for _, side := range []linktest.Side{linktest.Host, linktest.Receiver} {
		s.runCommand(t, side, "ip link set DEV mtu "+found[1])
	}
	s.host.Run("doctor").MustExit(t, 0)
}

// TestUploadContinuesAfterAResetInMidTransfer: a middlebox resets each connection after 5 MB, at the host
// only. The receiver's end stays half open until the next request for the upload ends it.
func TestUploadContinuesAfterAResetInMidTransfer(t *testing.T) {
	s := newSite(t, (*linktest.Net).Veth)
	s.runCommand(t, linktest.Host, "tc qdisc add dev DEV root tbf rate 100mbit burst 32kb latency 50ms")
	s.runCommand(t, linktest.Receiver, "iptables -A INPUT -p tcp -m connbytes --connbytes 5000000: --connbytes-dir original --connbytes-mode bytes -j REJECT --reject-with tcp-reset")
	s.host.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if n, err := s.Counted(linktest.Receiver); err != nil || n < 4 {
		t.Errorf("%d packets were answered with a reset (%v), want 4 connections or more to end so", n, err)
	}
	s.wantDelivered(t, plainOverhead+inFlight)
}
