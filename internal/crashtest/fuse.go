package crashtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Operations of the FUSE protocol that a file which is a whole file system, and
// its only one, is asked for.
const (
	opForget      = 2
	opGetattr     = 3
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opRelease     = 18
	opFsync       = 20
	opFlush       = 25
	opInit        = 26
	opInterrupt   = 36
	opDestroy     = 38
	opBatchForget = 42
)

const (
	maxWrite   = 128 << 10
	headerIn   = 40 // of a request
	headerOut  = 16 // of an answer
	bigWrites  = 1 << 5
	directIO   = 1 // the kernel keeps no copy
	rootMode   = unix.S_IFREG | 0o600
	fuseMinor  = 31
	sizeInit   = 64
	sizeAttr   = 104
	sizeOpen   = 16
	bodyWrite  = 40 // what stands before the data
	bufferSize = headerIn + bodyWrite + maxWrite + 4096
)

// flushTakes is how long a flush lasts: a good disk's time.
const flushTakes = 5 * time.Millisecond

// server shows a [cache] to the kernel as a file.
type server struct {
	dev   int
	mu    sync.Mutex // guards cache
	cache *cache
}

// mountFile shows the file that /dev/fuse will be asked for in the place of
// path, and returns the device.
func mountFile(path string) (int, error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", dev, rootMode)
	if err := unix.Mount("crashtest", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return -1, errors.Join(fmt.Errorf("mount %s: %w", path, err), unix.Close(dev))
	}
	return dev, nil
}

// serve answers the kernel until the file is unmounted.
func (s *server) serve() error {
	buf := make([]byte, bufferSize)
	for {
		n, err := unix.Read(s.dev, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.ENODEV):
			return nil
		case err != nil:
			return fmt.Errorf("read /dev/fuse: %w", err)
		}
		if err := s.answer(buf[:n]); err != nil {
			return err
		}
	}
}

// answer does what one request asks for.
func (s *server) answer(request []byte) error {
	op, unique := binary.NativeEndian.Uint32(request[4:]), binary.NativeEndian.Uint64(request[8:])
	if op == opForget || op == opBatchForget || op == opInterrupt {
		return nil // they want no answer
	}
	if op == opFsync {
		time.Sleep(flushTakes) // most cuts come while something is on its way
	}
	body, err := s.do(op, request[headerIn:])
	code := int32(0)
	if err != nil {
		body, code = nil, -int32(unix.EIO)
		if no, ok := errors.AsType[unix.Errno](err); ok {
			code = -int32(no)
		} else {
			fmt.Fprintln(os.Stderr, "crashtest: disk:", err)
		}
	}
	out := make([]byte, headerOut, headerOut+len(body))
	binary.NativeEndian.PutUint32(out, uint32(headerOut+len(body)))
	binary.NativeEndian.PutUint32(out[4:], uint32(code))
	binary.NativeEndian.PutUint64(out[8:], unique)
	if _, err := unix.Write(s.dev, append(out, body...)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("answer the kernel: %w", err)
	}
	return nil
}

func (s *server) do(op uint32, in []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := binary.NativeEndian
	switch op {
	case opInit:
		out := make([]byte, sizeInit)
		e.PutUint32(out, 7)
		e.PutUint32(out[4:], fuseMinor)
		e.PutUint32(out[8:], maxWrite) // read ahead
		e.PutUint32(out[12:], bigWrites)
		e.PutUint32(out[20:], maxWrite)
		e.PutUint32(out[24:], 1) // nanoseconds
		return out, nil
	case opGetattr:
		out := make([]byte, sizeAttr)
		e.PutUint64(out, 3600) // seconds that it holds
		e.PutUint64(out[16:], 1)
		e.PutUint64(out[24:], uint64(s.cache.size))
		e.PutUint32(out[76:], rootMode)
		e.PutUint32(out[80:], 1)
		e.PutUint32(out[96:], 4096)
		return out, nil
	case opOpen:
		out := make([]byte, sizeOpen)
		e.PutUint32(out[8:], directIO)
		return out, nil
	case opRead:
		out := make([]byte, e.Uint32(in[16:]))
		n, err := s.cache.read(int64(e.Uint64(in[8:])), out)
		return out[:n], err
	case opWrite:
		n := e.Uint32(in[16:])
		if err := s.cache.write(int64(e.Uint64(in[8:])), slices.Clone(in[bodyWrite:bodyWrite+n])); err != nil {
			return nil, err
		}
		return e.AppendUint64(nil, uint64(n)), nil
	case opFsync:
		return nil, s.cache.flush()
	case opRelease, opFlush, opDestroy: // a close is no flush of the disk
		return nil, nil
	}
	return nil, unix.ENOSYS
}
