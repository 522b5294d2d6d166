package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How [CheckPathMTU] probes. Sizes are of whole IP packets.
const (
	probeTimeout  = time.Second
	probeTries    = 2  // a packet may be lost
	maxSearch     = 6  // probes for the largest size that arrives
	smallPayload  = 64 // bytes
	maxPacket     = 65535
	headerBytes   = 20 + 8 // of IPv4 and UDP
	headerBytesV6 = 40 + 8
)

// probeOutcome is what happened to a datagram.
type probeOutcome int

const (
	unanswered probeOutcome = iota
	arrived                 // the other end refused it, because no program listens there
	tooLarge                // this machine or a router said so
	rejected                // something on the path refuses such packets
)

// CheckPathMTU sends padded datagrams to the receiver's port. A machine without a program at that UDP
// port says so by ICMP, and so proves that the packet arrived. If small packets arrive and those that
// fill the MTU vanish, the check has failed. Connections then hang as soon as they send a full packet,
// unless a router clamps their segments: [ConfirmBlackHole] decides that by the result of TLS.
func CheckPathMTU(ctx context.Context, r Route) Finding {
	header := headerBytes
	if !r.To.Addr().Unmap().Is4() {
		header = headerBytesV6
	}
	return searchPathMTU(ctx, r, header+smallPayload, func(packet int) (probeOutcome, int, error) {
		return sendProbe(r, packet-header)
	})
}

// searchPathMTU is CheckPathMTU with a function that sends a packet of a size, and returns the path
// MTU of the kernel with tooLarge, and an error with rejected.
func searchPathMTU(ctx context.Context, r Route, small int, send func(packet int) (probeOutcome, int, error)) Finding {
	const check = "path MTU"
	outcome, _, err := trySend(ctx, small, send)
	switch {
	case ctx.Err() != nil:
		return Skippedf(check, "interrupted")
	case outcome == rejected:
		return Skippedf(check, "probes are refused (%v); TLS below sends large packets too", err)
	case outcome != arrived:
		return Skippedf(check, "probes get no answer: a firewall drops UDP or ICMP; TLS below sends large packets too")
	}
	full := min(r.MTU, maxPacket)
	outcome, mtu, _ := trySend(ctx, full, send)
	switch {
	case outcome == arrived:
		return OKf(check, "packets of %d bytes, the MTU of the route, arrive", full)
	case outcome == tooLarge:
		return OKf(check, "%d bytes, reported by a router: connections adapt to it", mtu)
	}
	fits, above := small, full
	for range maxSearch {
		if ctx.Err() != nil {
			return Skippedf(check, "interrupted")
		}
		middle := (fits + above) / 2
		if outcome, _, _ := send(middle); outcome == arrived {
			fits = middle
		} else {
			above = middle
		}
	}
	if outcome, _, _ := trySend(ctx, full, send); outcome == arrived { // a link that loses packets of any size is not a black hole
		return OKf(check, "packets of %d bytes, the MTU of the route, arrive, and some are lost", full)
	}
	if ctx.Err() != nil {
		return Skippedf(check, "interrupted")
	}
	return markNetwork(Failedf(check, r.mtuRemedy(fits),
		"a black hole: packets of %d bytes arrive, those of %d bytes, the MTU of %s, vanish", fits, full, r.interfaceName()))
}

// ConfirmBlackHole returns the finding of [CheckPathMTU] after a handshake. With MSS clamping, jumbo
// frames or a filter of large datagrams, TCP works although such datagrams vanish. Then it is only a
// warning, as it is if there was no handshake.
func ConfirmBlackHole(f Finding, hello HelloOutcome) Finding {
	if f.Verdict != Failed || hello == HelloLost {
		return f
	}
	f.Verdict = Warning
	if hello == HelloArrived {
		f.Fact += "; TCP works nevertheless: a router adapts its segments"
	} else {
		f.Fact += "; whether TCP works is not known"
	}
	f.Remedy = "only if uploads hang: " + f.Remedy
	return f
}

// trySend sends a packet until there is an answer, or for probeTries times.
func trySend(ctx context.Context, packet int, send func(int) (probeOutcome, int, error)) (outcome probeOutcome, mtu int, err error) {
	for range probeTries {
		if outcome, mtu, err = send(packet); outcome != unanswered || ctx.Err() != nil {
			break
		}
	}
	return outcome, mtu, err
}

func (r Route) interfaceName() string {
	if r.Interface == "" {
		return "the interface"
	}
	return r.Interface
}

// mtuRemedy returns how to set the MTU of the route's interface.
func (r Route) mtuRemedy(mtu int) string {
	name := r.interfaceName()
	if r.Interface == "" {
		return fmt.Sprintf("lower the MTU of the interface to %d, on both ends", mtu)
	}
	if r.WireGuard {
		return fmt.Sprintf("run 'ip link set dev %[1]s mtu %[2]d', and write MTU = %[2]d in [Interface] of /etc/wireguard/%[1]s.conf, on both ends", name, mtu)
	}
	return fmt.Sprintf("run 'ip link set dev %s mtu %d', on both ends, or let ICMP pass ('fragmentation needed', 'packet too big')", name, mtu)
}

// sendProbe sends a datagram that must not be fragmented, and waits for an answer. Each one has a
// socket of its own, so that an answer that comes late does not count for the next.
func sendProbe(r Route, payload int) (outcome probeOutcome, mtu int, err error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.To))
	if err != nil {
		return rejected, 0, err
	}
	defer conn.Close()
	level, name, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if !r.To.Addr().Unmap().Is4() {
		level, name, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	}
	cerr := withFD(conn, func(fd int) { err = unix.SetsockoptInt(fd, level, name, value) })
	if err = errors.Join(cerr, err, conn.SetDeadline(time.Now().Add(probeTimeout))); err != nil {
		return rejected, 0, err
	}
	if _, err = conn.Write(make([]byte, payload)); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	switch {
	case err == nil, errors.Is(err, unix.ECONNREFUSED): // a program that answers has received it too
		return arrived, 0, nil
	case errors.Is(err, unix.EMSGSIZE):
		mtu, err := readRouteMTU(conn, r.To.Addr())
		return tooLarge, mtu, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return unanswered, 0, nil
	}
	return rejected, 0, err
}
