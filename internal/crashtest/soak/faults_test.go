package soak_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// fault is something that goes wrong for a while.
type fault struct {
	kind  string
	disks bool // it needs disks of our own
	do    func(t *testing.T, s *site)
}

// harmless faults end no daemon.
var harmless = []fault{
	{"connections refused", false, func(_ *testing.T, s *site) { s.faultAllConns(labtest.Fault{Refuse: true}) }},
	{"connections hang", false, func(_ *testing.T, s *site) { s.faultAllConns(labtest.Fault{Hang: true}) }},
	{"connections cut", false, func(_ *testing.T, s *site) { s.Proxy.Sever() }},
	{"cut in mid-upload", false, func(_ *testing.T, s *site) {
		s.queueFaults(func() labtest.Fault {
			return labtest.Fault{CutAfter: 1500 + s.random.Int64N(1<<uint(12+s.random.IntN(9)))}
		})
	}},
	{"upload stalls", false, func(_ *testing.T, s *site) {
		s.queueFaults(func() labtest.Fault {
			return labtest.Fault{StallAfter: 1500 + s.random.Int64N(1<<uint(12+s.random.IntN(9)))}
		})
	}},
	{"answer lost", false, func(_ *testing.T, s *site) {
		s.queueFaults(func() labtest.Fault { return labtest.Fault{LoseAnswer: true} })
	}},
	{"answer of something else", false, func(_ *testing.T, s *site) {
		s.queueFaults(func() labtest.Fault { return labtest.Fault{Say: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"} })
	}},
	{"SIGHUP to the receiver", false, func(t *testing.T, s *site) { s.Process().Signal(t, syscall.SIGHUP) }},
	{"SIGHUP to a shipper", false, func(t *testing.T, s *site) { s.shippers[s.randomHost()].Signal(t, syscall.SIGHUP) }},
	{"receiver's disk full", true, func(t *testing.T, s *site) { s.fillDisk(t, "receiver", 0) }},
	{"receiver's disk at its floor", true, func(t *testing.T, s *site) { s.fillDisk(t, "receiver", 512<<10) }},
	{"host's disk full", true, func(t *testing.T, s *site) { s.fillDisk(t, s.hosts[s.randomHost()].Name, 0) }},
	{"host's disk at its floor", true, func(t *testing.T, s *site) { s.fillDisk(t, s.hosts[s.randomHost()].Name, 512<<10) }},
	{"intruder", false, sendHostileRequests},
}

// deadly faults end a daemon, and start it again after a while.
var deadly = []fault{
	{"receiver killed", false, func(_ *testing.T, s *site) { s.Kill(); s.pause(); s.Start() }},
	{"receiver killed at its start", false, func(_ *testing.T, s *site) { s.Kill(); s.StartUnready(); s.pause(); s.Kill(); s.Start() }},
	{"receiver terminated", false, func(_ *testing.T, s *site) { s.Stop(); s.pause(); s.Start() }},
	{"shipper killed", false, func(_ *testing.T, s *site) { s.restartAfter(s.randomHost(), (*site).killShipper) }},
	{"shipper terminated", false, func(t *testing.T, s *site) {
		s.restartAfter(s.randomHost(), func(s *site, i int) { s.shippers[i].Stop(t) })
	}},
	{"all killed", false, func(_ *testing.T, s *site) {
		for i := range s.hosts {
			s.killShipper(i)
		}
		s.Kill()
		s.Start()
		for i, h := range s.hosts {
			s.shippers[i] = h.Daemon()
		}
	}},
}

// randomHost returns the number of a random host.
func (s *site) randomHost() int { return s.random.IntN(len(s.hosts)) }

func (s *site) killShipper(i int) { s.hosts[i].Kill(s.shippers[i]) }

func (s *site) restartAfter(i int, end func(s *site, i int)) {
	end(s, i)
	s.pause()
	s.shippers[i] = s.hosts[i].Daemon()
}

// faultAllConns injects a fault into every new connection for a while.
func (s *site) faultAllConns(f labtest.Fault) {
	s.Proxy.Always(f)
	s.Proxy.Sever()
	s.pause()
	s.Proxy.Always(labtest.Fault{})
	s.Proxy.Sever()
}

// queueFaults injects faults into the next connections.
func (s *site) queueFaults(f func() labtest.Fault) {
	for range 1 + s.random.IntN(4) {
		s.Proxy.Next(f())
	}
	s.Proxy.Sever()
	s.pause()
}

// fillDisk leaves a number of bytes free on a disk for a while.
func (s *site) fillDisk(t *testing.T, whose string, left int64) {
	path := filepath.Join(s.disks[whose], "ballast")
	f, err := os.Create(path)
	fixture.Must(t, err)
	var st unix.Statfs_t
	fixture.Must(t, unix.Fstatfs(int(f.Fd()), &st))
	free := int64(st.Bavail)*st.Bsize - left
	// The file system needs some of them to record which blocks these are.
	for size, step := int64(0), free; step >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, size, step); {
		case err == nil:
			size += step
			step = min(step, free-size)
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			t.Fatal(err)
		}
	}
	fixture.Must(t, f.Close())
	s.pause()
	fixture.Must(t, os.Remove(path))
}

// sendHostileRequests does what a compromised host may try: others' episodes, false digests, and
// silent connections. Nothing may be stored.
func sendHostileRequests(t *testing.T, s *site) {
	c := s.intruder.Client(t)
	defer c.CloseIdleConnections()
	good := "sha-256=:LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=:" // of "x"
	for _, req := range []struct{ path, digest string }{
		{"/v1/episodes/" + s.hosts[0].Name + "/run-1", good},
		{"/v1/episodes/intruder/..%2f" + s.hosts[0].Name + "%2frun-1", good},
		{"/v1/episodes/intruder/liar", strings.Replace(good, "L", "M", 1)},
		{"/v1/episodes/intruder/silent", ""},
	} {
		r, err := http.NewRequest(http.MethodPut, s.URL(req.path), bytes.NewReader([]byte("x")))
		fixture.Must(t, err)
		if req.digest != "" {
			r.Header.Set("Repr-Digest", req.digest)
		}
		resp, err := c.Do(r)
		if err != nil {
			continue // another fault, or the limit of connections
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode/100 == 2 {
			t.Errorf("PUT %s of the intruder: %s", req.path, resp.Status)
		}
	}
	var silent []net.Conn
	for range 60 {
		if conn, err := net.Dial("tcp", s.Proxy.Addr()); err == nil {
			fmt.Fprint(conn, "\x16\x03\x01")
			silent = append(silent, conn)
		}
	}
	s.pause()
	for _, conn := range silent {
		conn.Close()
	}
}
