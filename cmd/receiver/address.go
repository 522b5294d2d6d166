package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cis490/internal/printable"
	"cis490/internal/receiver"
	"cis490/internal/systemd"
)

const (
	socketUnit  = "cis490-receiver.socket"
	serviceUnit = "cis490-receiver.service"
)

// listenFacts is where a receiver is reached, and what decides that.
type listenFacts struct {
	Address string `json:"address"`      // what is listened on, or will be
	From    string `json:"address_from"` // "listen", or the socket unit
	Port    string `json:"port"`         // the state of the port, in words
	Hint    string `json:"address_hint,omitempty"`

	bindErr error // from an attempt to bind the address
}

// findAddress returns the address of a receiver with a configuration file. Under systemd
// the socket unit decides, and the key listen is not used. It must be called before the
// process becomes the service user.
func findAddress(ctx context.Context, file, listen string) listenFacts {
	a := listenFacts{Address: listen, From: "listen"}
	if systemd.IsRunning() {
		a.askSystemd(ctx, file)
	}
	if a.Port == "" {
		a.Port, a.bindErr = "free", tryBind(a.Address)
	}
	if strings.HasSuffix(a.Address, ":0") {
		a.Hint = "port 0 is a different port at each start: no host can find it"
	}
	return a
}

// askSystemd finds out whether the socket unit decides the address.
func (a *listenFacts) askSystemd(ctx context.Context, file string) {
	service, err := systemd.ShowUnit(ctx, serviceUnit, "LoadState", "ExecStart")
	if err == nil && !service.RunsConfig(file, receiver.DefaultConfigFile) {
		return // a start by hand: no unit starts a receiver with this file
	}
	socket, serr := systemd.ShowUnit(ctx, socketUnit, "LoadState", "ActiveState", "UnitFileState", "Listen")
	if err := cmp.Or(err, serr); err != nil {
		a.Hint = fmt.Sprintf("the address may be that of %s instead, if it is enabled (%v)", socketUnit, err)
		return
	}
	a.useSocket(socket)
}

// useSocket sets the address of the socket unit, if the unit is in use.
func (a *listenFacts) useSocket(socket systemd.UnitState) {
	active := socket.FirstValue("ActiveState") == "active"
	if socket.FirstValue("LoadState") != "loaded" || !active && socket.FirstValue("UnitFileState") != "enabled" {
		return
	}
	at := socket.FirstValue("Listen") // "[::]:8443 (Stream)"
	at, _, _ = strings.Cut(at, " ")
	configured := a.Address
	a.Address, a.From = at, socketUnit
	if active {
		a.Port = "held by systemd for the receiver"
	}
	switch {
	case len(socket["Listen"]) > 1:
		a.Hint = fmt.Sprintf("%s has %d addresses, but the receiver supports one: keep one ListenStream=", socketUnit, len(socket["Listen"]))
	case !sameAddress(configured, at) && configured != receiver.DefaultConfig().Listen:
		a.Hint = fmt.Sprintf("listen = %q is not used: change the address with 'systemctl edit %s'", configured, socketUnit)
	}
}

// sameAddress reports whether two addresses are one, all addresses of the machine in any
// spelling.
func sameAddress(a, b string) bool {
	x, xport, xerr := net.SplitHostPort(a)
	y, yport, yerr := net.SplitHostPort(b)
	isAll := func(host string) bool { return host == "" || host == "::" || host == "0.0.0.0" }
	return xerr == nil && yerr == nil && xport == yport && (x == y || isAll(x) && isAll(y))
}

// tryBind returns the error with which the daemon would fail to listen on an address, or
// nil. It binds a socket and does not listen on it: no client can connect, and a daemon that
// starts at the same time still gets the address.
func tryBind(at string) error {
	addr, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		return listenError(&net.OpError{Op: "listen", Net: "tcp", Err: err})
	}
	if err := bindSocket(addr); err != nil {
		return listenError(&net.OpError{Op: "listen", Net: "tcp", Addr: addr, Err: os.NewSyscallError("bind", err)})
	}
	return nil
}

func bindSocket(addr *net.TCPAddr) error {
	family, sa := socketAddress(addr)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if family == unix.AF_INET6 && addr.IP == nil && errors.Is(err, unix.EAFNOSUPPORT) {
		return bindSocket(&net.TCPAddr{IP: net.IPv4zero, Port: addr.Port}) // a machine without IPv6
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// As package net does: what the last daemon left in TIME_WAIT is not in the way.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		only := 0
		if addr.IP != nil {
			only = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	return unix.Bind(fd, sa)
}

func socketAddress(addr *net.TCPAddr) (family int, sa unix.Sockaddr) {
	if ip := addr.IP.To4(); ip != nil {
		return unix.AF_INET, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(ip)}
	}
	v6 := &unix.SockaddrInet6{Port: addr.Port}
	copy(v6.Addr[:], addr.IP.To16())
	if zone, err := net.InterfaceByName(addr.Zone); err == nil {
		v6.ZoneId = uint32(zone.Index)
	}
	return unix.AF_INET6, v6
}

// describePort sets the state of the port, given which process holds the data directory. It
// returns an error if the port cannot be used and no receiver can be using it.
func (a *listenFacts) describePort(holder string, unknown bool) error {
	switch {
	case a.bindErr == nil:
		return nil
	case errors.Is(a.bindErr, syscall.EADDRINUSE) && holder != "":
		a.Port = "in use by a running receiver: " + printable.Text(holder)
	case errors.Is(a.bindErr, syscall.EADDRINUSE) && unknown:
		a.Port = "in use, perhaps by a receiver: only root and the receiver's user can tell"
	default:
		a.Port = "cannot be used"
		return a.bindErr
	}
	return nil
}

// warnListen logs that listen is not used, if systemd gave the receiver another address.
func warnListen(log *slog.Logger, listen string, ln net.Addr) {
	if listen != receiver.DefaultConfig().Listen && !sameAddress(listen, ln.String()) {
		log.Warn("listen is not used", "listen", listen, "address", ln.String(),
			"hint", "change the address with 'systemctl edit "+socketUnit+"'")
	}
}
