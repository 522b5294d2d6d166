package diskbackend_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"cis490/internal/admission"
	"cis490/internal/backendtest"
	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// limitQuota gives each host a quota for files of these sizes.
func limitQuota(sizes ...int64) func(*diskbackend.Config) {
	sum := int64(0)
	for _, size := range sizes {
		sum += admission.FileCost(size)
	}
	return func(c *diskbackend.Config) { c.HostBytes = sum }
}

func (l *lab) quotaLeft(host episode.Name) int64 {
	l.Helper()
	s, err := l.b.Storage(l.Context(), host)
	fixture.Must(l, err)
	if s.Accepting != (s.FreeBytes >= admission.FileCost(1)) {
		l.Errorf("%s is told %+v", host, s)
	}
	return s.FreeBytes
}

// TestAHostHasItsPartOfTheDisk, over restarts, and does not use that of others. Space that is
// freed by hand counts within minutes.
func TestAHostHasItsPartOfTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, limitQuota(2<<20, 2<<20, 1<<20))
		big := func(i byte) []byte { return fixture.Noise(2<<20, i) }
		l.WantReceipt(key("h", "1"), big(1), wire.Stored)
		l.WantReceipt(key("h", "1"), big(1), wire.AlreadyPresent) // counts once
		l.restart(func() {})
		l.WantReceipt(key("h", "2"), big(2), wire.Stored)
		if p := l.WantRefusal(key("h", "3"), big(3), wire.Full); p.RetryAfter <= 0 {
			t.Errorf("no Retry-After: %v", p)
		}
		l.WantReceipt(key("h", "small"), fixture.Noise(1<<20, 4), wire.Stored)
		l.WantRefusal(key("h", "tiny"), fixture.Noise(1, 5), wire.Full)
		if left := l.quotaLeft("h"); left != 0 {
			t.Errorf("%d bytes are left for who has all of his", left)
		}
		l.WantReceipt(key("other", "1"), big(1), wire.Stored)
		l.WantReceipt(key("h", "1"), big(1), wire.AlreadyPresent) // and gets that answer with nothing left
		fixture.Must(t, os.Remove(l.StoredPath(key("h", "2"))))
		time.Sleep(time.Minute)
		if left := l.quotaLeft("h"); left != admission.FileCost(2<<20) {
			t.Errorf("%d bytes are left where 2 MiB were removed", left)
		}
		l.WantReceipt(key("h", "3"), big(3), wire.Stored)
	})
}

// TestUploadsOnTheirWayAreInTheHostsPart: concurrent uploads, and what was left of others.
func TestUploadsOnTheirWayAreInTheHostsPart(t *testing.T) {
	l := newLab(t, limitQuota(3<<20, 2<<20))
	first := fixture.Noise(3<<20, 1)
	arrived, open, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		late := io.MultiReader(backendtest.StopBeforeLast(first[:1], arrived, open), bytes.NewReader(first[1:])) // promised, and not written
		_, err := l.b.Put(t.Context(), uploadOf(key("lab-01", "1"), first), late)
		done <- err
	}()
	fixture.ReceiveWithin(t, 10*time.Second, arrived, "the first upload")
	_, err := l.b.Put(t.Context(), uploadOf(key("lab-01", "2"), first), untouched{t})
	if !errors.Is(err, wire.Full) {
		t.Errorf("a second one beside it: %v", err)
	}
	close(open)
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, done, "the first upload"))

	second := fixture.Noise(2<<20, 2)
	cut := io.MultiReader(bytes.NewReader(second[:1<<20]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := l.b.Put(t.Context(), uploadOf(key("lab-01", "2"), second), cut); err == nil || errors.Is(err, wire.Full) {
		t.Fatalf("an upload that was cut: %v", err)
	}
	l.restart(func() {}) // counts again, without the dropped uploads
	l.sendInterrupted(l.wantAnnounced(uploadOf(key("lab-01", "3"), second), 0), second, 1<<20)
	if left := l.quotaLeft("lab-01"); left != 1<<20 {
		t.Errorf("%d bytes are left of 5 MiB beside 3 that are stored and 1 that is unfinished", left)
	}
	l.restart(func() {})
	if left := l.quotaLeft("lab-01"); left != 1<<20 {
		t.Errorf("%d bytes are left of 5 MiB beside 3 that are stored and 1 that is unfinished", left)
	}
}
