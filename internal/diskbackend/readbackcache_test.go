package diskbackend_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// gateDiskReads reports each read of an archive past the page cache, and blocks it until the
// test lets it begin.
func (l *lab) gateDiskReads() (begun chan struct{}, let chan struct{}) {
	begun, let = make(chan struct{}, 100), make(chan struct{})
	l.setDisk(func(d *durable.Dir, name string) (io.ReadCloser, error) {
		begun <- struct{}{}
		<-let
		return d.OpenUncached(name)
	})
	return begun, let
}

// TestAHostHasOneArchiveReadAtATime: a hundred bytes of request must not block the disk for
// others, nor may one host's reads block another's.
func TestAHostHasOneArchiveReadAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		keys := []episode.Key{key("a", "e1"), key("a", "e2"), key("a", "e3"), key("b", "e1")}
		for i, k := range keys {
			l.WantReceipt(k, fixture.Noise(5000, byte(i)), wire.Stored)
		}
		begun, let := l.gateDiskReads()
		answers := make(chan error, len(keys))
		for i, k := range keys {
			go func() {
				u := uploadOf(k, fixture.Noise(5000, byte(i)))
				u.Resent = true
				_, err := l.b.Put(t.Context(), u, untouched{t})
				answers <- err
			}()
		}
		synctest.Wait()
		if len(begun) != 2 {
			t.Errorf("%d archives are read at once, want one of each host", len(begun))
		}
		close(let)
		for range keys {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestResponseIsKeptWhenItsSenderIsGone: verifying a large archive takes longer than its sender
// waits. It is read once, and the sender's next question gets the result. The question after
// that reads it again.
func TestResponseIsKeptWhenItsSenderIsGone(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("h", "e"), fixture.Noise(5000, 1)
	first := l.WantReceipt(k, content, wire.Stored)
	begun, let := l.gateDiskReads()
	impatient := func(after <-chan struct{}) chan error {
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := l.b.Put(ctx, uploadOf(k, content), untouched{t})
			left <- err
		}()
		fixture.ReceiveWithin(t, 10*time.Second, after, "the reading")
		leave()
		return left
	}
	read := impatient(begun)
	other := impatient(closedChannel())
	if err := fixture.ReceiveWithin(t, 10*time.Second, other, "who waits for another's reading and leaves"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	close(let)
	fixture.ReceiveWithin(t, 10*time.Second, read, "the end of the reading")
	if again := l.WantReceipt(k, content, wire.AlreadyPresent); again.ReceivedAt != first.ReceivedAt || len(begun) != 0 {
		t.Errorf("%+v after %d more readings, want %+v after none", again, len(begun), first)
	}
	l.WantReceipt(k, content, wire.AlreadyPresent)
	if len(begun) != 1 {
		t.Errorf("%d readings for the next time, want 1", len(begun))
	}
	l.WantConsistent(1)
}

// TestReceiptIsKeptWhenItsSenderIsGone: an archive that was just stored is not read again for a
// sender that had disconnected.
func TestReceiptIsKeptWhenItsSenderIsGone(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("h", "e"), fixture.Noise(5000, 1)
	begun, let := l.gateDiskReads()
	close(let)
	l.storeAndDisconnect(k, content)
	l.WantReceipt(k, content, wire.AlreadyPresent)
	if len(begun) != 0 {
		t.Errorf("%d readings", len(begun))
	}
	// The result applies to these bytes alone.
	if _, err := l.Put(k, fixture.Noise(5000, 2)); !errors.Is(err, wire.Conflict) {
		t.Errorf("other bytes: %v", err)
	}
}

// TestResendIsNotToldWhatTheStoreKeeps: the host has learnt that the copy is corrupt.
func TestResendIsNotToldWhatTheStoreKeeps(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("h", "e"), fixture.Noise(5000, 1)
	begun, let := l.gateDiskReads()
	close(let)
	l.storeAndDisconnect(k, content)
	u := uploadOf(k, content)
	u.Resent = true
	_, err := l.b.Put(t.Context(), u, bytes.NewReader(content))
	fixture.Must(t, err)
	if len(begun) != 1 {
		t.Errorf("%d readings, want 1", len(begun))
	}
}

// TestAnswersAreKeptForEachHost, and the latest of one.
func TestAnswersAreKeptForEachHost(t *testing.T) {
	l := newLab(t, nil)
	begun, let := l.gateDiskReads()
	close(let)
	content := fixture.Noise(100, 1)
	l.storeAndDisconnect(key("other", "e"), content)
	const n = 64 + 1 // one more than are kept
	for i := range n {
		l.storeAndDisconnect(key("h", fmt.Sprintf("e-%d", i)), content)
	}
	for _, c := range []struct {
		key   episode.Key
		reads int
	}{{key("other", "e"), 0}, {key("h", fmt.Sprintf("e-%d", n-1)), 0}, {key("h", "e-0"), 1}} {
		before := len(begun)
		l.WantReceipt(c.key, content, wire.AlreadyPresent)
		if got := len(begun) - before; got != c.reads {
			t.Errorf("%s: %d readings, want %d", c.key, got, c.reads)
		}
	}
}

// TestReadingEndsWithTheReceiver, and its client is told to retry.
func TestReadingEndsWithTheReceiver(t *testing.T) {
	l := newLab(t, nil)
	k, content := key("h", "e"), fixture.Noise(5000, 1)
	l.WantReceipt(k, content, wire.Stored)
	begun, let := l.gateDiskReads()
	told := make(chan error, 1)
	go func() {
		_, err := l.b.Put(t.Context(), uploadOf(k, content), untouched{t})
		told <- err
	}()
	fixture.ReceiveWithin(t, 10*time.Second, begun, "the reading")
	l.end(wire.ErrDraining)
	close(let)
	if err := fixture.ReceiveWithin(t, 10*time.Second, told, "the answer"); !errors.Is(err, wire.ErrDraining) {
		t.Errorf("%v, want that it is draining", err)
	}
}

// storeAndDisconnect stores an archive for a client that disconnects before its receipt.
func (l *lab) storeAndDisconnect(k episode.Key, content []byte) {
	l.Helper()
	ctx, leave := context.WithCancel(l.Context())
	_, err := l.b.Put(ctx, uploadOf(k, content), &closeTimeout{bytes.NewReader(content), leave})
	fixture.Must(l, err)
}

// closeTimeout is the body of a client that disconnects at its end.
type closeTimeout struct {
	io.Reader
	leave func()
}

func (f *closeTimeout) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF {
		f.leave()
	}
	return n, err
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
