package diskbackend_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/backendtest"
	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// wantAnnounced announces an upload, and checks that it is unfinished at an offset.
func (l *lab) wantAnnounced(u wire.Upload, offset int64) wire.Unfinished {
	l.Helper()
	r, left, err := l.b.Announce(l.Context(), u)
	fixture.Must(l, err)
	if r != (wire.Receipt{}) || left.ID == "" || left.Offset != offset || left.Length != u.Size {
		l.Fatalf("announced %s: %+v, %+v, want it unfinished at %d", u.Key, r, left, offset)
	}
	return left
}

// sendPiece appends content[from:to]; last means that this completes the upload.
func (l *lab) sendPiece(left wire.Unfinished, content []byte, from, to int, last bool) (wire.Receipt, wire.Unfinished, error) {
	p := wire.Piece{Offset: int64(from), Size: int64(to - from), Last: last, Interrupt: func(error) {}}
	return l.b.AppendPiece(l.Context(), "lab-01", left.ID, p, bytes.NewReader(content[from:to]))
}

// sendRest sends the rest of an upload, and checks that the receipt has a status.
func (l *lab) sendRest(u wire.Upload, left wire.Unfinished, content []byte, want wire.Status) {
	l.Helper()
	r, _, err := l.sendPiece(left, content, int(left.Offset), len(content), true)
	fixture.Must(l, err)
	if err := r.Covers(u); err != nil || r.Status != want {
		l.Fatalf("%s: %+v, %v, want %s", u.Key, r, err, want)
	}
}

// sendInterrupted announces the whole rest, sends it up to an offset, and then breaks off.
func (l *lab) sendInterrupted(left wire.Unfinished, content []byte, to int) {
	l.Helper()
	broken := errors.New("the connection broke")
	p := wire.Piece{Offset: left.Offset, Size: left.Length - left.Offset, Last: true, Interrupt: func(error) {}}
	body := io.MultiReader(bytes.NewReader(content[left.Offset:to]), readerFunc(func([]byte) (int, error) { return 0, broken }))
	if _, _, err := l.b.AppendPiece(l.Context(), "lab-01", left.ID, p, body); !errors.Is(err, broken) {
		l.Fatalf("got %v, want %v", err, broken)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// wantCode checks that err is a problem with a code.
func (l *lab) wantCode(what string, err error, code wire.Code) *wire.Problem {
	l.Helper()
	p, ok := errors.AsType[*wire.Problem](err)
	if !ok || p.Code != code {
		l.Fatalf("%s: %v, want %s", what, err, code)
	}
	return p
}

var (
	resumed = fixture.Noise(1<<20, 7)
	partKey = key("lab-01", "part")
)

func TestCutUploadIsKept(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	l.sendInterrupted(l.wantAnnounced(u, 0), resumed, 300_000)
	left := l.wantAnnounced(u, 300_000)
	l.WantStaged(1)
	if len(l.Rows()) != 0 {
		t.Error("an unfinished upload has a row")
	}
	l.sendRest(u, left, resumed, wire.Stored)
	l.WantConsistent(1)
}

// TestCutUploadOutlivesTheReceiver, with the state of its sha256: stored bytes are not read
// again.
func TestCutUploadOutlivesTheReceiver(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	u.Skipped = 3
	l.sendInterrupted(l.wantAnnounced(u, 0), resumed, 300_000)
	staged, err := filepath.Glob(filepath.Join(l.Data, "staging", "lab-01", "part~*"))
	fixture.Must(t, err)
	if len(staged) != 1 {
		t.Fatalf("staging has %q", staged)
	}
	l.restart(func() { // what was written after the last checkpoint was not durable
		f, err := os.OpenFile(staged[0], os.O_APPEND|os.O_WRONLY, 0)
		fixture.Must(t, err)
		_, err = f.WriteString("not durable")
		fixture.Must(t, errors.Join(err, f.Close()))
	})
	l.sendRest(u, l.wantAnnounced(u, 300_000), resumed, wire.Stored)
	if l.row(partKey).Skipped != 3 {
		t.Error("the row does not say what the announcement said")
	}
	l.WantConsistent(1)
}

// TestUploadThatMissesItsCommitOnlyIsCommitted: all bytes arrived, and then the receiver ended.
func TestUploadThatMissesItsCommitOnlyIsCommitted(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	if _, left, err := l.sendPiece(l.wantAnnounced(u, 0), resumed, 0, len(resumed), false); err != nil || left.Offset != u.Size {
		t.Fatalf("got %+v, %v, want Offset %v", left, err, u.Size)
	}
	l.restart(func() {})
	l.sendRest(u, l.wantAnnounced(u, u.Size), resumed, wire.Stored)
	l.WantConsistent(1)
}

// TestPiecesMustFit, and a refused one changes nothing.
func TestPiecesMustFit(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	left := l.wantAnnounced(u, 0)
	_, left, err := l.sendPiece(left, resumed, 0, 1000, false)
	fixture.Must(t, err)
	for what, c := range map[string]struct {
		offset, size int64
		last         bool
		code         wire.Code
	}{
		"before":            {999, 10, false, wire.OffsetMismatch},
		"behind":            {1001, 10, false, wire.OffsetMismatch},
		"far behind":        {1 << 62, 1 << 62, false, wire.OffsetMismatch},
		"too long":          {1000, u.Size - 999, true, wire.LengthMismatch},
		"far too long":      {1000, 1<<63 - 1, false, wire.LengthMismatch},
		"ends before all":   {1000, 10, true, wire.LengthMismatch},
		"is said to be all": {1000, 0, true, wire.LengthMismatch},
	} {
		p := wire.Piece{Offset: c.offset, Size: c.size, Last: c.last, Interrupt: func(error) {}}
		_, _, err := l.b.AppendPiece(t.Context(), "lab-01", left.ID, p, unread{t})
		refusal := l.wantCode(what, err, c.code)
		if c.code == wire.OffsetMismatch && (refusal.Offset == nil || *refusal.Offset != 1000) {
			t.Errorf("%s: %+v does not say where to go on", what, refusal)
		}
	}
	l.sendRest(u, l.wantAnnounced(u, 1000), resumed, wire.Stored)
	_, _, err = l.sendPiece(left, resumed, 1000, 2000, false)
	l.wantCode("after the end", err, wire.NoUpload)
	l.WantConsistent(1)
}

// unread is a body that must not be read.
type unread struct{ testing.TB }

func (u unread) Read([]byte) (int, error) {
	u.Error("a refused body was read")
	return 0, io.EOF
}

// TestUploadOfAnotherHostIsNotFound.
func TestUploadOfAnotherHostIsNotFound(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	left := l.wantAnnounced(u, 0)
	l.sendInterrupted(left, resumed, 1000)
	_, _, err := l.b.AppendPiece(t.Context(), "lab-02", left.ID, wire.Piece{Offset: 1000, Size: 1}, unread{t})
	mine := l.wantCode("another's piece", err, wire.NoUpload)
	_, err = l.b.UploadState(t.Context(), "lab-02", left.ID)
	l.wantCode("another's offset", err, wire.NoUpload)
	l.wantCode("another's end", l.b.CancelUpload(t.Context(), "lab-02", left.ID), wire.NoUpload)
	_, _, err = l.b.AppendPiece(t.Context(), "lab-02", "NEVERSEEN", wire.Piece{}, unread{t})
	if never := l.wantCode("never announced", err, wire.NoUpload); *never != *mine {
		t.Errorf("another's upload is told from none: %+v, %+v", mine, never)
	}
	l.wantAnnounced(u, 1000)
}

// TestLyingDigestLeavesNothing of an upload in pieces.
func TestLyingDigestLeavesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	u.Digest[0]++
	l.sendInterrupted(l.wantAnnounced(u, 0), resumed, 1000)
	_, _, err := l.sendPiece(l.wantAnnounced(u, 1000), resumed, 1000, len(resumed), true)
	l.wantCode("the lie", err, wire.DigestMismatch)
	l.wantAnnounced(u, 0)
	l.WantConsistent(0)
}

// TestLatestRequestContinues: a piece whose sender may have disconnected gives way to a new
// request, which continues after all its bytes.
func TestLatestRequestContinues(t *testing.T) {
	t.Parallel()
	for what, ask := range map[string]func(l *lab, u wire.Upload, id string) (offset int64){
		"announcement": func(l *lab, u wire.Upload, _ string) int64 {
			_, left, err := l.b.Announce(l.Context(), u)
			fixture.Must(l, err)
			return left.Offset
		},
		"offset": func(l *lab, _ wire.Upload, id string) int64 {
			left, err := l.b.UploadState(l.Context(), "lab-01", id)
			fixture.Must(l, err)
			return left.Offset
		},
		"piece": func(l *lab, _ wire.Upload, id string) int64 {
			_, _, err := l.sendPiece(wire.Unfinished{ID: id}, resumed, 0, 10, false)
			return *l.wantCode("a piece from the beginning", err, wire.OffsetMismatch).Offset
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, func(c *diskbackend.Config) { c.UploadsPerHost = 1 })
			u := uploadOf(partKey, resumed)
			left := l.wantAnnounced(u, 0)
			dead, ended := l.stallPiece(left, 400_000)
			<-dead
			if offset := ask(l, u, left.ID); offset != 400_000 {
				t.Errorf("goes on at %d, want 400000", offset)
			}
			l.wantCode("the dead piece", fixture.ReceiveWithin(t, 10*time.Second, ended, "its end"), wire.Superseded)
			l.sendRest(u, l.wantAnnounced(u, 400_000), resumed, wire.Stored)
			l.WantConsistent(1)
		})
	}
}

// stallPiece begins a piece that stops after some bytes, as if its client had disconnected. It
// returns a channel that reports their arrival, and one with the error at its end.
func (l *lab) stallPiece(left wire.Unfinished, bytesOf int) (there <-chan struct{}, ended <-chan error) {
	arrived, done, cut := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	silent := sync.OnceFunc(func() { close(arrived) })
	body := io.MultiReader(bytes.NewReader(resumed[left.Offset:bytesOf]), readerFunc(func([]byte) (int, error) {
		silent()
		return 0, <-cut
	}))
	interrupt := func(err error) {
		select {
		case cut <- err:
		default:
		}
	}
	late := time.AfterFunc(10*time.Second, func() { interrupt(errors.New("nobody has ended it")) })
	l.Cleanup(func() { late.Stop() })
	p := wire.Piece{Offset: left.Offset, Size: left.Length - left.Offset, Last: true, Interrupt: interrupt}
	go func() {
		_, _, err := l.b.AppendPiece(l.Context(), "lab-01", left.ID, p, body)
		done <- err
	}()
	return arrived, done
}

// TestAnnouncementWaitsForACommit: a sender whose connection broke after its last byte gets a
// receipt, and need not start again.
func TestAnnouncementWaitsForACommit(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	left := l.wantAnnounced(u, 0)
	reached, resume := l.Stops.StopAt(backendtest.BeforeCommit)
	committed, told := make(chan error, 1), make(chan error, 1)
	go func() {
		_, _, err := l.sendPiece(left, resumed, 0, len(resumed), true)
		committed <- err
	}()
	fixture.ReceiveWithin(t, 10*time.Second, reached, "the end of the upload")
	go func() {
		r, again, err := l.b.Announce(t.Context(), u)
		if err == nil && r.Covers(u) != nil {
			err = fmt.Errorf("it is told to go on at %d", again.Offset)
		}
		told <- err
	}()
	select {
	case err := <-told:
		t.Errorf("an answer before the commit: %v", err)
		told <- nil
	case <-time.After(200 * time.Millisecond): // long enough for it to get as far as it can
	}
	resume()
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, committed, "the commit"))
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, told, "the answer"))
	l.WantConsistent(1)
}

// TestAnnouncementOfAnUploadThatEndsIsAnswered: another sender of the same archive completes it
// between two checks.
func TestAnnouncementOfAnUploadThatEndsIsAnswered(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	left := l.wantAnnounced(u, 0)
	unlock := l.b.LockKey(partKey)
	committed, told := make(chan error, 1), make(chan error, 1)
	go func() {
		r, _, err := l.b.Announce(t.Context(), u)
		told <- errors.Join(err, r.Covers(u))
	}()
	l.waitActive(1)
	go func() {
		_, _, err := l.sendPiece(left, resumed, 0, len(resumed), true)
		committed <- err
	}()
	l.waitActive(2)
	unlock()
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, committed, "the commit"))
	fixture.Must(t, fixture.ReceiveWithin(t, 10*time.Second, told, "the answer"))
	l.WantConsistent(1)
}

// waitActive waits until n requests have a slot.
func (l *lab) waitActive(n int) {
	l.Helper()
	l.waitFor("requests have places", func() bool { return l.b.Uploads().ActiveCount() == n })
}

func (l *lab) waitFor(what string, ok func() bool) {
	l.Helper()
	tick, late := time.NewTicker(time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			l.Fatalf("it is still not so: %s", what)
		}
	}
}

// TestAbandonedUploadsGiveWay: a host has a limited number, and keeps those that it continued
// last.
func TestAbandonedUploadsGiveWay(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *diskbackend.Config) { c.UploadsPerHost = 2 })
	var all []wire.Upload
	for i := range 6 {
		u := uploadOf(key("lab-01", fmt.Sprint("part-", i)), resumed)
		l.sendInterrupted(l.wantAnnounced(u, 0), resumed, 1000)
		all = append(all, u)
	}
	l.WantStaged(4)
	l.wantAnnounced(all[5], 1000)
	l.wantAnnounced(all[2], 1000)
	l.wantAnnounced(all[0], 0)
	l.WantStaged(3) // it replaced 3, of which nothing is stored yet
	l.wantAnnounced(all[3], 0)
}

// TestForgottenUploadLeavesNothing.
func TestForgottenUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	left := l.wantAnnounced(u, 0)
	l.sendInterrupted(left, resumed, 1000)
	fixture.Must(t, l.b.CancelUpload(t.Context(), "lab-01", left.ID))
	l.WantStaged(0)
	_, err := l.b.UploadState(t.Context(), "lab-01", left.ID)
	l.wantCode("afterwards", err, wire.NoUpload)
}

// TestOldUploadsExpire at a start, and those that can continue stay.
func TestOldUploadsExpire(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *diskbackend.Config) { c.UnfinishedAge = time.Hour })
	old, young := uploadOf(key("lab-01", "old"), resumed), uploadOf(key("lab-01", "young"), resumed)
	for _, u := range []wire.Upload{old, young} {
		l.sendInterrupted(l.wantAnnounced(u, 0), resumed, 1000)
	}
	l.restart(func() {
		paths, err := filepath.Glob(filepath.Join(l.Data, "staging", "lab-01", "old~*"))
		fixture.Must(t, err)
		ago := time.Now().Add(-2 * time.Hour)
		fixture.Must(t, os.Chtimes(paths[0], ago, ago))
	})
	l.wantAnnounced(young, 1000)
	l.wantAnnounced(old, 0)
	l.WantStaged(1)
}

// TestUploadExpiresByItsLastByte, however often its offset is requested.
func TestUploadExpiresByItsLastByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *diskbackend.Config) { c.UnfinishedAge = 24 * time.Hour })
		asked, grows := uploadOf(key("lab-01", "asked"), resumed), uploadOf(key("lab-01", "grows"), resumed)
		l.sendInterrupted(l.wantAnnounced(asked, 0), resumed, 1000)
		l.wantAnnounced(grows, 0)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.b.ExpireUploads(ctx) }()
		for hour := range 20 {
			time.Sleep(2 * time.Hour)
			_, left, err := l.b.Announce(t.Context(), grows)
			fixture.Must(t, err)
			_, _, err = l.sendPiece(left, resumed, hour, hour+1, false)
			fixture.Must(t, err)
			if time.Duration(hour)*2*time.Hour < 20*time.Hour {
				l.wantAnnounced(asked, 1000)
			}
		}
		l.wantAnnounced(asked, 0)
		l.wantAnnounced(grows, 20)
		l.WantStaged(1)
		stop()
		fixture.Must(t, <-ended)
	})
}

// TestArchiveThatCameAnotherWayEndsTheUpload, with a receipt or a conflict.
func TestArchiveThatCameAnotherWayEndsTheUpload(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	other := uploadOf(key("lab-01", "other"), resumed)
	left, conflicting := l.wantAnnounced(u, 0), l.wantAnnounced(other, 0)
	l.sendInterrupted(left, resumed, 1000)
	l.sendInterrupted(conflicting, resumed, 1000)
	l.WantReceipt(partKey, resumed, wire.Stored)
	l.WantReceipt(other.Key, fixture.Noise(10, 1), wire.Stored)
	r, _, err := l.sendPiece(left, resumed, 1000, len(resumed), true)
	if err != nil || r.Status != wire.AlreadyPresent {
		t.Errorf("got %+v, %v, want Status %v", r, err, wire.AlreadyPresent)
	}
	_, _, err = l.sendPiece(conflicting, resumed, 1000, len(resumed), true)
	l.wantCode("another archive", err, wire.Conflict)
	l.WantConsistent(2)
}

// TestAnnouncementIsRefusedAsItsArchiveWouldBe.
func TestAnnouncementIsRefusedAsItsArchiveWouldBe(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *diskbackend.Config) { c.ArchiveBytes = 2 << 20 })
	refused := func(what string, u wire.Upload, code wire.Code) {
		t.Helper()
		_, _, err := l.b.Announce(t.Context(), u)
		l.wantCode(what, err, code)
	}
	u := uploadOf(partKey, resumed)
	l.WantReceipt(partKey, resumed, wire.Stored)
	if r, left, err := l.b.Announce(t.Context(), u); err != nil || r.Status != wire.AlreadyPresent || left.ID != "" {
		t.Errorf("what is there: %+v, %+v, %v", r, left, err)
	}
	u.Digest[0]++
	refused("another archive", u, wire.Conflict)
	u.Size = 3 << 20
	refused("too large", u, wire.TooLarge)
	l.restart(func() { l.cfg.MinFree = 1 << 60 })
	refused("no space", uploadOf(key("lab-01", "new"), resumed), wire.Full)
}

// TestUnfinishedUploadsOfManyHostsAreKeptApart by their hosts' limits.
func TestUnfinishedUploadsOfManyHostsAreKeptApart(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *diskbackend.Config) { c.UploadsPerHost = 1 })
	var ids []string
	for i := range 20 {
		host := episode.Name(fmt.Sprintf("lab-%02d", i))
		_, left, err := l.b.Announce(t.Context(), uploadOf(episode.Key{Host: host, Name: "part"}, resumed))
		fixture.Must(t, err)
		ids = append(ids, left.ID)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) != 20 {
		t.Errorf("%d uploads of 20 hosts", len(ids))
	}
}

// TestUnfinishedUploadsOfAHostAreBounded: the least recently used one gives way.
func TestUnfinishedUploadsOfAHostAreBounded(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *diskbackend.Config) { c.UploadsPerHost = 1 })
	var ids []string
	for i := range 5 {
		u := uploadOf(key("lab-01", fmt.Sprint("part-", i)), resumed)
		_, left, err := l.b.Announce(t.Context(), u)
		fixture.Must(t, err)
		l.sendInterrupted(left, resumed, 1)
		ids = append(ids, left.ID)
	}
	for i, id := range ids {
		_, err := l.b.UploadState(t.Context(), "lab-01", id)
		if gone := errors.Is(err, wire.NoUpload); gone != (i < 3) {
			t.Errorf("upload %d of 5: %v, want the last two to be left", i, err)
		}
	}
	l.WantStaged(2)
}
