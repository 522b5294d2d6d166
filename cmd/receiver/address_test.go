package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/cli"
	"cis490/internal/fixture"
	"cis490/internal/serviceuser"
	"cis490/internal/systemd"
	"cis490/internal/terminal"
)

// TestSocketUnitDecidesAboutTheAddress: with a socket the key listen is not used.
func TestSocketUnitDecidesAboutTheAddress(t *testing.T) {
	unit := func(load, active, enabled string, listen ...string) systemd.UnitState {
		return systemd.UnitState{"LoadState": {load}, "ActiveState": {active}, "UnitFileState": {enabled}, "Listen": listen}
	}
	for _, c := range []struct {
		name          string
		listen        string
		socket        systemd.UnitState
		address, port string
		ours          bool // the socket unit's
		hint          string
	}{
		{"no unit", ":9000", unit("not-found", "inactive", ""), ":9000", "", false, ""},
		{"neither enabled nor active", ":9000", unit("loaded", "inactive", "disabled", "[::]:8443 (Stream)"), ":9000", "", false, ""},
		{"as installed", ":8443", unit("loaded", "active", "enabled", "[::]:8443 (Stream)"), "[::]:8443", "held by systemd for the receiver", true, ""},
		{"edited, and listen is the default", ":8443", unit("loaded", "active", "enabled", "10.0.0.1:8443 (Stream)"), "10.0.0.1:8443", "held by systemd for the receiver", true, ""},
		{"listen is not used", "10.0.0.1:9000", unit("loaded", "active", "enabled", "[::]:8443 (Stream)"), "[::]:8443", "held by systemd for the receiver", true, `listen = "10.0.0.1:9000" is not used`},
		{"both say the same", "0.0.0.0:9000", unit("loaded", "active", "enabled", "[::]:9000 (Stream)"), "[::]:9000", "held by systemd for the receiver", true, ""},
		{"started by hand", ":8443", unit("loaded", "active", "disabled", "[::]:8443 (Stream)"), "[::]:8443", "held by systemd for the receiver", true, ""},
		{"enabled and stopped", ":8443", unit("loaded", "inactive", "enabled", "[::]:8443 (Stream)"), "[::]:8443", "", true, ""},
		{"two addresses", ":8443", unit("loaded", "active", "enabled", "[::]:8443 (Stream)", "[::]:8444 (Stream)"), "[::]:8443", "held by systemd for the receiver", true, "keep one ListenStream="},
	} {
		a := listenFacts{Address: c.listen, From: "listen"}
		a.useSocket(c.socket)
		if a.Address != c.address || a.Port != c.port || (a.From == socketUnit) != c.ours || !strings.Contains(a.Hint, c.hint) || (c.hint == "") != (a.Hint == "") {
			t.Errorf("%s: got %+v", c.name, a)
		}
	}
}

// TestPortIsTriedAndNotTaken: the next program that listens gets the port, even while a
// connection of the last receiver is in TIME_WAIT. A program that already listens keeps it.
func TestPortIsTriedAndNotTaken(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "", "0.0.0.0", "localhost"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		fixture.Must(t, err)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		at := net.JoinHostPort(host, port)
		if err := tryBind(at); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "listen: listen tcp") {
			t.Errorf("%q in use: %v", at, err)
		}
		host, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		fixture.Must(t, err)
		defer host.Close()
		peer, err := l.Accept()
		fixture.Must(t, err)
		peer.Close() // first, which leaves it waiting
		l.Close()
		if err := tryBind(at); err != nil {
			t.Errorf("%q free: %v", at, err)
		}
	}
	for at, want := range map[string]string{
		"192.0.2.1:8443":    "no interface has that address yet",
		"nonsense":          `listen must be "ADDRESS:PORT" or ":PORT"`,
		"no.such.host.:1":   "the name in listen cannot be resolved",
		"127.0.0.1:notport": "",
	} {
		if err := tryBind(at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", at, err, want)
		}
		if ln, err := listenOn(at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: the daemon says %v, %v", at, ln, err)
		}
	}
}

// TestPortOfTheReceiverItselfIsNoFault: only a port of another program is.
func TestPortOfTheReceiverItselfIsNoFault(t *testing.T) {
	inUse := fmt.Errorf("listen: %w", syscall.EADDRINUSE)
	for _, c := range []struct {
		taken   error
		holder  string
		unknown bool
		port    string
		fault   bool
	}{
		{nil, "", false, "free", false},
		{inUse, "pid 7 (receiver)", false, "in use by a running receiver: pid 7 (receiver)", false},
		{inUse, "", true, "in use, perhaps by a receiver: only root and the receiver's user can tell", false},
		{inUse, "", false, "cannot be used", true},
		{syscall.EADDRNOTAVAIL, "pid 7 (receiver)", false, "cannot be used", true},
	} {
		a := listenFacts{Port: "free", bindErr: c.taken}
		if err := a.describePort(c.holder, c.unknown); (err != nil) != c.fault || a.Port != c.port {
			t.Errorf("%+v: %v, port %q", c, err, a.Port)
		}
	}
}

// TestFactsFitATerminal: with the paths of an installation.
func TestFactsFitATerminal(t *testing.T) {
	free := int64(123456789)
	pki := []string{"/etc/cis490/pki/server.crt", "/etc/cis490/pki/server.key", "/etc/cis490/pki/hosts-ca.crt", "/etc/cis490/pki/hosts.crl", "/etc/cis490/tokens"}
	f := checkFacts{
		Config: "/etc/cis490/receiver.toml", CertNotAfter: time.Unix(2e9, 0), User: "cis490", Files: pki,
		Disk:        "no file system UUID and no boot ID: a restart voids what was read back",
		listenFacts: &listenFacts{Address: "[fd00:1234:5678:9abc:def0:1234:5678:9abc]:8443", From: socketUnit, Port: "in use, perhaps by a receiver: only root and the receiver's user can tell"},
		CheckReport: &cli.CheckReport{
			AdminListen: "127.0.0.1:9490",
			Folders:     []serviceuser.Folder{{Path: "/var/lib/cis490", Exists: true, Owner: "cis490:cis490-lab", Mode: "2750"}},
			Secrets:     []serviceuser.Secret{{Path: pki[1], Owner: "root:cis490", Mode: "0640"}},
			Space:       &cli.Space{FreeBytes: 1 << 40, MinFree: 256 << 20, FreeInodes: &free, MinFreeInodes: 1024},
		},
	}
	var out bytes.Buffer
	fixture.Must(t, printFacts(&out, terminal.Painter{}, f))
	golden := filepath.Join("testdata", "check.golden")
	if *update {
		fixture.Must(t, os.WriteFile(golden, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != out.String() {
		t.Errorf("got\n%swant\n%s%v", out.String(), want, err)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}

// TestStartWarnsOfListenThatIsNotUsed, but not of the default, which most files have.
func TestStartWarnsOfListenThatIsNotUsed(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv6unspecified, Port: 9000}
	for listen, warns := range map[string]bool{":8443": false, ":9000": false, "0.0.0.0:9000": false, "10.0.0.1:9000": true, ":9001": true} {
		var out bytes.Buffer
		warnListen(slog.New(slog.NewTextHandler(&out, nil)), listen, at)
		if got := strings.Contains(out.String(), `listen is not used" listen=`+listen+` address=[::]:9000`); got != warns {
			t.Errorf("%s: it said %q", listen, out.String())
		}
	}
}
