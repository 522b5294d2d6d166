package linktest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Faults is what happens to packets on a [Wire]. The zero value passes them on.
type Faults struct {
	Delay  time.Duration // each way
	Jitter time.Duration // maximum added delay; packets keep their order
	Loss   float64       // how many of them
	Dead   bool          // drop all packets silently
}

// Wire joins the two sides of a [Net] in user space.
type Wire struct {
	ends [2]*os.File
	all  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	faults Faults
	random *rand.Rand
	lost   int64 // packets
}

// Wire connects the sides by a wire in user space. The same seed loses the same packets again,
// if the same packets come.
func (n *Net) Wire(seed uint64) (*Wire, error) {
	w := &Wire{random: rand.New(rand.NewPCG(seed, 0))}
	for _, side := range []Side{Host, Receiver} {
		f, err := openTUN("/run/netns/" + n.namespace(side))
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.ends[side] = f
	}
	n.wire = w
	if err := n.configureAddrs("txqueuelen 1000"); err != nil {
		return nil, err
	}
	w.all.Go(func() { w.forwardPackets(w.ends[Host], w.ends[Receiver]) })
	w.all.Go(func() { w.forwardPackets(w.ends[Receiver], w.ends[Host]) })
	return w, nil
}

// openTUN makes the interface of a namespace, which exists as long as the file is open.
func openTUN(space string) (*os.File, error) {
	var f *os.File
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		f, err = openTUNHere(space)
	}()
	<-done
	return f, err
}

func openTUNHere(space string) (*os.File, error) {
	ns, err := os.Open(space)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter %s: %w", space, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make a TUN in %s: %w", space, err)
	}
	return os.NewFile(uintptr(fd), space), nil
}

// Set sets what happens to packets from now on.
func (w *Wire) Set(f Faults) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = f
}

// Lost returns how many packets did not arrive.
func (w *Wire) Lost() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

func (w *Wire) close() error {
	var errs []error
	for _, f := range w.ends {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	w.all.Wait()
	return errors.Join(errs...)
}

// packet is a packet and the time at which it is due.
type packet struct {
	due  time.Time
	text []byte
}

// maxQueued is the maximum number of packets on the wire, per direction: 4 MB.
const maxQueued = 4 << 10

// forwardPackets moves packets from one end to the other, in their order, until the first
// is closed.
func (w *Wire) forwardPackets(from, to *os.File) {
	way := make(chan packet, maxQueued)
	defer close(way)
	w.all.Go(func() {
		for p := range way {
			if wait := time.Until(p.due); wait > 0 {
				<-time.After(wait)
			}
			to.Write(p.text) // an interface that is down receives nothing
		}
	})
	for {
		text := make([]byte, 2<<10)
		n, err := from.Read(text)
		if err != nil {
			return // it is closed
		}
		if wait, arrives := w.decideFate(); arrives {
			way <- packet{time.Now().Add(wait), text[:n]}
		}
	}
}

// decideFate decides what happens to a packet: when it arrives, if it does.
func (w *Wire) decideFate() (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.faults
	if f.Dead || w.random.Float64() < f.Loss {
		w.lost++
		return 0, false
	}
	wait := f.Delay
	if f.Jitter > 0 {
		wait += time.Duration(w.random.Int64N(int64(f.Jitter)))
	}
	return wait, true
}
