package crashtest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// workshopFD is the descriptor of the socket to the parent of the process that [Isolate]
// started. The parent serves the disks that have a volatile cache. It must be outside of the
// namespace: the last process of a mount namespace unmounts everything in it when it ends,
// which waits for the disks, so a process that also serves a disk would deadlock. If the parent
// ends, all its disks fail at once.
const workshopFD = 3

// workshop serves the disks that the process at the other end of conn sends.
func workshop(conn *net.UnixConn) {
	for {
		c, dev, control, err := receive(conn)
		if err != nil {
			return // it has ended
		}
		s := &fuseServer{dev: dev, cache: c}
		go s.listen(control)
		go func() {
			defer control.Close()
			defer unix.Close(dev)
			defer c.medium.Close()
			if err := s.serve(); err != nil {
				fmt.Fprintln(os.Stderr, "crashtest: disk:", err)
			}
		}()
	}
}

// receive receives a disk: the device, the medium and a socket for commands.
func receive(conn *net.UnixConn) (*cache, int, *os.File, error) {
	text, rights := make([]byte, 32), make([]byte, unix.CmsgSpace(3*4))
	n, more, _, _, err := conn.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, 0, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:more])
	if err != nil || len(messages) != 1 {
		return nil, 0, nil, fmt.Errorf("%d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 3 {
		return nil, 0, nil, fmt.Errorf("%d descriptors: %w", len(fds), err)
	}
	grain, err := strconv.ParseInt(string(text[:n]), 10, 64)
	if err != nil {
		return nil, 0, nil, err
	}
	c, err := newCache(os.NewFile(uintptr(fds[1]), "medium"), grain)
	return c, fds[0], os.NewFile(uintptr(fds[2]), "control"), err
}

// listen simulates power loss on command.
func (s *fuseServer) listen(control *os.File) {
	for {
		var seed uint64
		if _, err := fmt.Fscanln(control, &seed); err != nil {
			return
		}
		s.mu.Lock()
		f, err := s.cache.takePower(seed)
		s.mu.Unlock()
		if err != nil {
			fmt.Fprintln(os.Stderr, "crashtest: disk:", err)
			return
		}
		fmt.Fprintln(control, f.Kept, f.Dropped, f.Torn)
	}
}

// volatileDisk is a disk with a volatile cache, which the workshop serves.
type volatileDisk struct {
	file    string // what stands for it
	control *os.File
	out     *bufio.Reader
}

// newVolatile mounts the cached medium over file.
func newVolatile(grain int64, medium, file string) (*volatileDisk, error) {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	m, err := os.OpenFile(medium, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ends[1])
	v := &volatileDisk{file: file, control: os.NewFile(uintptr(ends[0]), "control")}
	v.out = bufio.NewReader(v.control)
	dev, err := mountFile(file)
	if err != nil {
		return nil, errors.Join(err, v.control.Close())
	}
	defer unix.Close(dev)
	rights := unix.UnixRights(dev, int(m.Fd()), ends[1])
	if err := unix.Sendmsg(workshopFD, strconv.AppendInt(nil, grain, 10), rights, nil, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("send a disk to the parent: %w", err), v.unmountFile())
	}
	return v, nil
}

// takePower cuts the disk off, and returns what happened to its cache.
func (v *volatileDisk) takePower(seed uint64) (Fates, error) {
	var f Fates
	if _, err := fmt.Fprintln(v.control, seed); err != nil {
		return f, err
	}
	_, err := fmt.Fscanln(v.out, &f.Kept, &f.Dropped, &f.Torn)
	return f, err
}

// unmountFile also ends the process that serves the file.
func (v *volatileDisk) unmountFile() error {
	return errors.Join(unmount(v.file), v.control.Close())
}

// unmount waits for processes that were killed a moment ago and still use the mount.
func unmount(path string) error {
	for try := 0; ; try++ {
		err := unix.Unmount(path, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || try == 300 {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
