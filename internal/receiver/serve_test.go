package receiver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
	"cis490/internal/receiver"
	"cis490/internal/wire"
)

func TestOverTheWire(t *testing.T) {
	l := newLab(t, nil)
	before := l.listFiles()
	ctx, cancel := context.WithCancel(t.Context())
	addr, served := l.listen(ctx)
	c := l.newClient(addr, "lab-01")
	pong, err := c.Ping(t.Context())
	fixture.Must(t, err)
	if pong.Host != "lab-01" || pong.Limits.Uploads != 64 || !pong.Storage.Accepting || pong.Auth.CertNotAfter.IsZero() {
		t.Errorf("%+v", pong)
	}
	if _, _, err := c.Stat(t.Context(), "e"); !errors.Is(err, wire.NotFound) {
		t.Errorf("got %v, want %v", err, wire.NotFound)
	}
	if after := l.listFiles(); after != before {
		t.Errorf("a ping made\n%s of\n%s", after, before)
	}
	content := fixture.Noise(1<<20, 1)
	for _, want := range []wire.Status{wire.Stored, wire.AlreadyPresent} {
		r, err := c.Put(t.Context(), uploadOf(key("lab-01", "e"), content), bytes.NewReader(content))
		fixture.Must(t, err)
		if r.Status != want {
			t.Errorf("%s, want %s", r.Status, want)
		}
	}
	if d, n, err := c.Stat(t.Context(), "e"); err != nil || n != 1<<20 || d != uploadOf(key("", ""), content).Digest {
		t.Errorf("%s, %d, %v", d, n, err)
	}
	if _, err := c.Put(t.Context(), uploadOf(key("lab-02", "e"), content), bytes.NewReader(content)); !errors.Is(err, wire.HostMismatch) {
		t.Errorf("got %v, want %v", err, wire.HostMismatch)
	}
	cancel()
	fixture.Must(t, fixture.ReceiveWithin(t, 5*time.Second, served, "the end"))
	l.WantConsistent(1)
}

// listFiles lists everything in the data directory.
func (l *lab) listFiles() string {
	l.Helper()
	out, err := exec.Command("find", l.Data, "-printf", "%P %s\n").Output()
	fixture.Must(l, err)
	return string(out)
}

// heldReader is an archive whose last byte waits for the test.
type heldReader struct {
	content []byte
	reached atomic.Bool
	arrived chan struct{}
	open    chan struct{}
}

func holdLastByte(content []byte) *heldReader {
	return &heldReader{content: content, arrived: make(chan struct{}), open: make(chan struct{})}
}

func (h *heldReader) ReadAt(p []byte, off int64) (int, error) {
	last := int64(len(h.content)) - 1
	if off < last {
		return copy(p, h.content[off:last]), nil
	}
	if off > last {
		return 0, io.EOF
	}
	if !h.reached.Swap(true) {
		close(h.arrived)
	}
	<-h.open
	p[0] = h.content[last]
	return 1, nil
}

func TestStopLetsUploadsFinishAndTellsTheOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	addr, served := l.listen(ctx)
	c := l.newClient(addr, "lab-01")
	content := fixture.Noise(500_000, 1)
	short, long := holdLastByte(content), holdLastByte(content)
	answers := map[*heldReader]chan error{}
	for h, name := range map[*heldReader]string{short: "short", long: "long"} {
		answers[h] = make(chan error, 1)
		go func() {
			_, err := c.Put(t.Context(), uploadOf(key("lab-01", name), content), h)
			answers[h] <- err
		}()
		fixture.ReceiveWithin(t, 10*time.Second, h.arrived, "the upload "+name)
	}
	defer close(long.open)
	labtest.Eventually(t, "the receiver takes both in", func() bool {
		staged, err := filepath.Glob(filepath.Join(l.Data, "staging", "*", "*"))
		return err == nil && len(staged) == 2
	})
	cancel()
	close(short.open)
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, answers[short], "the short upload's answer"))
	err := fixture.ReceiveWithin(t, 10*time.Second, answers[long], "the long upload's answer")
	if p, ok := errors.AsType[*wire.Problem](err); !ok || p.Code != wire.Draining || p.RetryAfter <= 0 {
		t.Errorf("the long upload is told %v", err)
	}
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, served, "the end"))
	if _, err := c.Ping(t.Context()); err == nil {
		t.Error("a stopped receiver answers")
	}
	// The received bytes are kept, and its host continues with them.
	l.restart(func() {})
	u := uploadOf(key("lab-01", "long"), content)
	_, left, err := l.b.Announce(t.Context(), u)
	fixture.Must(t, err)
	if left.Offset == 0 {
		t.Error("nothing is left of the upload that was interrupted")
	}
	rest := wire.Piece{Offset: left.Offset, Size: u.Size - left.Offset, Last: true, Interrupt: func(error) {}}
	r, _, err := l.b.AppendPiece(t.Context(), "lab-01", left.ID, rest, bytes.NewReader(content[left.Offset:]))
	if err := errors.Join(err, r.Covers(u)); err != nil || r.Status != wire.Stored {
		t.Errorf("the rest: %+v, %v, want status %s", r, err, wire.Stored)
	}
	l.WantConsistent(2)
}

// TestFaultEndsTheReceiver removes the disk during an upload.
func TestFaultEndsTheReceiver(t *testing.T) {
	data, _ := fixture.MountImage(t, fixture.MakeImage(t, "ext4", "-J", "size=4"), "errors=remount-ro")
	l := newLab(t, func(c *receiver.Config) { c.DataDir = config.Path(data) })
	addr, served := l.listen(t.Context())
	c := l.newClient(addr, "lab-01")
	content := fixture.Noise(500_000, 1)
	_, err := c.Put(t.Context(), uploadOf(key("lab-01", "good"), content), bytes.NewReader(content))
	fixture.Must(t, err)
	h, answer := holdLastByte(content), make(chan error, 1)
	go func() {
		r, err := c.Put(t.Context(), uploadOf(key("lab-01", "lost"), content), h)
		if err == nil {
			t.Errorf("acknowledged: %+v", r)
		}
		answer <- err
	}()
	fixture.ReceiveWithin(t, 10*time.Second, h.arrived, "the upload")
	fixture.ShutDownFS(t, data)
	close(h.open)
	if err := fixture.ReceiveWithin(t, 10*time.Second, served, "the end"); !errors.Is(err, durable.ErrFault) {
		t.Errorf("Serve returns %v, want a fault", err)
	}
	if err := fixture.ReceiveWithin(t, 10*time.Second, answer, "the answer"); err == nil {
		t.Error("no error")
	}
	for _, name := range []string{"good", "new"} { // any upload now
		if r, err := l.Put(key("lab-01", name), fixture.Noise(10, 9)); err == nil {
			t.Errorf("%s is acknowledged after a fault: %+v", name, r)
		}
	}
}

// TestReadOnlyDiskEndsTheReceiver makes the kernel turn the file system read-only,
// as it does at an error.
func TestReadOnlyDiskEndsTheReceiver(t *testing.T) {
	data, _ := fixture.MountImage(t, fixture.MakeImage(t, "ext4", "-J", "size=4"), "errors=remount-ro")
	l := newLab(t, func(c *receiver.Config) { c.DataDir = config.Path(data) })
	_, served := l.listen(t.Context())
	l.WantReceipt(key("h", "e"), fixture.Noise(10, 1), wire.Stored)
	fixture.Must(t, os.WriteFile("/sys/fs/ext4/"+loopDevice(t, data)+"/trigger_fs_error", []byte("1"), 0))
	if r, err := l.Put(key("h", "f"), fixture.Noise(10, 1)); err == nil {
		t.Errorf("acknowledged: %+v", r)
	}
	if err := fixture.ReceiveWithin(t, 10*time.Second, served, "the end"); !errors.Is(err, durable.ErrFault) {
		t.Errorf("Serve returns %v, want a fault", err)
	}
}

// loopDevice returns the name of the loop device below a mount.
func loopDevice(tb testing.TB, path string) string {
	tb.Helper()
	out, err := exec.Command("findmnt", "-no", "SOURCE", path).Output()
	fixture.Must(tb, err)
	return filepath.Base(string(bytes.TrimSpace(out)))
}

// TestAnswersNameTheStore over TLS, with the row of the receipt in the index.
func TestAnswersNameTheStore(t *testing.T) {
	l := newLab(t, nil)
	addr, _ := l.listen(t.Context())
	c := l.newClient(addr, "lab-01")
	is, err := l.b.Store()
	fixture.Must(t, err)
	last := int64(0)
	for i, size := range []int{100, wire.MinAnnounced} {
		content := packNoise(size, byte(i))
		name := episode.Name("run-" + string(rune('a'+i)))
		r, err := c.Put(t.Context(), uploadOf(key("lab-01", string(name)), content), bytes.NewReader(content))
		if err != nil || r.Store == nil || r.Store.ID != is.ID || r.Store.IndexBytes <= last {
			t.Errorf("the receipt of %s: %+v, %v", name, r.Store, err)
		}
		last = r.Store.IndexBytes
	}
	if pong, err := c.Ping(t.Context()); err != nil || pong.Store == nil || pong.Store.IndexBytes != last {
		t.Errorf("the pong: %+v, %v", pong.Store, err)
	}
}

func TestOneReceiverForADataDirectory(t *testing.T) {
	l := newLab(t, nil)
	r, err := receiver.OpenGateAndNew(t.Context(), l.cfg, "test", "another", discard())
	if locked, ok := errors.AsType[*durable.LockedError](err); !ok || locked.Holder != "the lab" {
		t.Errorf("got %v, %v, want Holder %q", r, err, "the lab")
	}
}
