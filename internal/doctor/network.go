package doctor

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/hint"
	"cis490/internal/wire"
)

// networkTimeout bounds one step of a check of the network.
const networkTimeout = 10 * time.Second

// failedByNetwork returns the finding of a network check that failed.
func failedByNetwork(check string, err error) Finding {
	return FromNetworkError(check, err, "check the network, and receiver.url")
}

// FromNetworkError returns the finding of a check that failed because of the network or the other end.
// It never splits the error into fact and advice: the other end chooses a part of the text, and could
// make an operator run a command. The remedy is the hint for the error, or else the given one.
func FromNetworkError(check string, err error, remedy string) Finding {
	if f, is := CheckCanceled(check, err); is {
		return f
	}
	if h := hint.For(err); h != "" {
		remedy = h
	}
	return markNetwork(Failedf(check, remedy, "%v", err))
}

// markNetwork marks a finding as one of the network.
func markNetwork(f Finding) Finding {
	f.Network = true
	return f
}

// isRemote reports whether an error comes from the network or from the other end.
func isRemote(err error) bool {
	if e, is := errors.AsType[*net.OpError](err); is {
		return e.Op != "listen"
	}
	_, code := errors.AsType[wire.Code](err) // also that of a Problem
	_, unexpected := errors.AsType[*wire.UnexpectedResponseError](err)
	_, request := errors.AsType[*url.Error](err)
	_, name := errors.AsType[x509.HostnameError](err)
	return code || unexpected || request || name || errors.Is(err, net.ErrClosed)
}

// CheckName resolves the name in an address of the form host:port.
func CheckName(ctx context.Context, address string) (Finding, []netip.AddrPort) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return failedByNetwork("name", err), nil
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return failedByNetwork("name", err), nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return OKf("name", "%s is an address, and needs no resolver", host), []netip.AddrPort{netip.AddrPortFrom(addr, uint16(number))}
	}
	ctx, cancel := context.WithTimeout(ctx, networkTimeout)
	defer cancel()
	began := time.Now()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return failedByNetwork("name", err), nil
	}
	var addrs []netip.AddrPort
	var texts []string
	for _, a := range found {
		addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), uint16(number)))
		texts = append(texts, a.Unmap().String())
	}
	return OKf("name", "%s is %s (%s)", host, strings.Join(texts, ", "), formatSince(began)), addrs
}

// Route is how packets to an address leave this machine.
type Route struct {
	To        netip.AddrPort
	From      netip.Addr
	Interface string // empty if it is not known
	MTU       int    // of the interface or, if that is not known, of the route
	WireGuard bool
}

// CheckRoute finds the route to the first address that has one.
func CheckRoute(addrs []netip.AddrPort) (Finding, Route) {
	var errs []error
	for _, to := range addrs {
		r, err := findRoute(to)
		if err == nil {
			kind := r.Interface
			if r.WireGuard {
				kind += " (WireGuard)"
			}
			if kind == "" {
				kind = "an unknown interface"
			}
			return OKf("route", "from %s through %s, MTU %d", r.From, kind, r.MTU), r
		}
		errs = append(errs, err)
	}
	return failedByNetwork("route", errors.Join(errs...)), Route{}
}

// findRoute connects a UDP socket, which sends nothing, and looks up the interface that has its
// address.
func findRoute(to netip.AddrPort) (Route, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return Route{}, err
	}
	defer conn.Close()
	from := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	r := Route{To: to, From: from.WithZone("")}
	if r.MTU, err = readRouteMTU(conn, to.Addr()); err != nil {
		return r, err
	}
	if from == to.Addr() { // packets of a machine to itself pass the loopback interface
		r.From = from
		r.setInterface(func(i net.Interface) bool { return i.Flags&net.FlagLoopback != 0 })
		return r, nil
	}
	r.setInterface(func(i net.Interface) bool { return hasAddress(i, r.From) })
	return r, nil
}

func (r *Route) setInterface(is func(net.Interface) bool) {
	all, err := net.Interfaces()
	if err != nil {
		return // a sandbox; the MTU of the route is known
	}
	for _, i := range all {
		if is(i) {
			r.Interface, r.MTU, r.WireGuard = i.Name, i.MTU, isWireGuard(i.Name)
			return
		}
	}
}

func hasAddress(i net.Interface, a netip.Addr) bool {
	addrs, err := i.Addrs()
	if err != nil {
		return false
	}
	for _, have := range addrs {
		if p, err := netip.ParsePrefix(have.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

func isWireGuard(name string) bool {
	text, err := os.ReadFile(filepath.Join("/sys/class/net", filepath.Base(name), "uevent"))
	return err == nil && bytes.Contains(text, []byte("DEVTYPE=wireguard\n"))
}

// readRouteMTU returns the MTU that the kernel knows for the path of a connected socket.
func readRouteMTU(conn syscall.Conn, to netip.Addr) (mtu int, err error) {
	level, name := unix.IPPROTO_IP, unix.IP_MTU
	if !to.Unmap().Is4() {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	cerr := withFD(conn, func(fd int) { mtu, err = unix.GetsockoptInt(fd, level, name) })
	return mtu, errors.Join(cerr, err)
}

func withFD(conn syscall.Conn, do func(fd int)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { do(int(fd)) })
}

// Dial opens a TCP connection, as [net.Dialer.DialContext] does.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// CheckConnection opens a TCP connection. It also returns which address has answered, because a name may
// have several, or an invalid one.
func CheckConnection(ctx context.Context, dial Dial, address string) (Finding, netip.AddrPort) {
	ctx, cancel := context.WithTimeout(ctx, networkTimeout)
	defer cancel()
	began := time.Now()
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return failedByNetwork("connection", err), netip.AddrPort{}
	}
	defer conn.Close()
	elapsed := formatSince(began)
	var to netip.AddrPort
	if a, is := conn.RemoteAddr().(*net.TCPAddr); is {
		to = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	fact := fmt.Sprintf("to %s in %s", to, elapsed)
	if raw, is := conn.(syscall.Conn); is {
		var info *unix.TCPInfo
		var ierr error
		cerr := withFD(raw, func(fd int) { info, ierr = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO) })
		if cerr == nil && ierr == nil {
			fact += fmt.Sprintf(", round trip %s, path MTU %d", formatTime(time.Duration(info.Rtt)*time.Microsecond), info.Pmtu)
		}
	}
	return OKf("connection", "%s", fact), to
}
