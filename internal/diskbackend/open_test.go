package diskbackend_test

import (
	"bytes"
	"testing"

	"cis490/internal/diskbackend"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// beginStreaming begins an upload whose end is not known, and sends the beginning of content.
func (l *lab) beginStreaming(content []byte, to int) wire.Unfinished {
	l.Helper()
	left, err := l.b.OpenUpload(l.Context(), partKey)
	fixture.Must(l, err)
	if left.Offset != 0 || left.Length != -1 {
		l.Fatalf("opened %+v", left)
	}
	_, at, err := l.sendPiece(left, content, 0, to, false)
	fixture.Must(l, err)
	if at.Offset != int64(to) || at.Length != -1 {
		l.Fatalf("after a piece %+v", at)
	}
	return at
}

// TestOpenUploadBecomesAnArchives, also after a restart.
func TestOpenUploadBecomesAnArchives(t *testing.T) {
	t.Parallel()
	for what, meanwhile := range map[string]func(l *lab){
		"at once":         func(*lab) {},
		"after a restart": func(l *lab) { l.restart(func() {}) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, nil)
			l.beginStreaming(resumed, 300_000)
			meanwhile(l)
			u := uploadOf(partKey, resumed)
			l.sendRest(u, l.wantAnnounced(u, 300_000), resumed, wire.Stored)
			l.WantConsistent(1)
		})
	}
}

// TestOpenUploadOfAnotherArchiveIsFoundOut: nothing of it is stored, and the right archive is
// sent from its beginning.
func TestOpenUploadOfAnotherArchiveIsFoundOut(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	l.beginStreaming(fixture.Noise(1<<20, 8), 300_000)
	u := uploadOf(partKey, resumed)
	_, _, err := l.sendPiece(l.wantAnnounced(u, 300_000), resumed, 300_000, len(resumed), true)
	l.wantCode("the last piece", err, wire.DigestMismatch)
	l.WantConsistent(0)
	l.sendRest(u, l.wantAnnounced(u, 0), resumed, wire.Stored)
	l.WantConsistent(1)
}

// TestOpenUploadCannotEnd: nor can it exceed an archive's limit, or begin where an archive is
// stored.
func TestOpenUploadCannotEnd(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *diskbackend.Config) { c.ArchiveBytes = 2 << 20 })
	left := l.beginStreaming(resumed, 1000)
	_, _, err := l.sendPiece(left, resumed, 1000, 2000, true)
	l.wantCode("the end", err, wire.DigestMissing)
	p := wire.Piece{Offset: 1000, Size: 2 << 20, Interrupt: func(error) {}}
	_, _, err = l.b.AppendPiece(t.Context(), "lab-01", left.ID, p, unread{t})
	l.wantCode("too much", err, wire.TooLarge)
	l.WantReceipt(partKey, resumed, wire.Stored)
	_, err = l.b.OpenUpload(t.Context(), partKey)
	l.wantCode("a name that is taken", err, wire.Conflict)
}

// TestOpeningAgainStartsOver: the archive is packed again, from files that may have changed.
func TestOpeningAgainStartsOver(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	first := l.beginStreaming(resumed, 1000)
	l.beginStreaming(resumed, 2000)
	_, _, err := l.b.AppendPiece(t.Context(), "lab-01", first.ID, wire.Piece{Offset: 1000, Size: 1, Interrupt: func(error) {}}, bytes.NewReader(resumed[:1]))
	l.wantCode("the first one", err, wire.NoUpload)
	l.WantStaged(1)
}

// TestShorterArchiveThanWasSentIsSentWhole.
func TestShorterArchiveThanWasSentIsSentWhole(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	l.beginStreaming(resumed, 300_000)
	short := resumed[:200_000]
	u := uploadOf(partKey, short)
	l.sendRest(u, l.wantAnnounced(u, 0), short, wire.Stored)
	l.WantConsistent(1)
}
