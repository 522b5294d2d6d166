package wire_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// part is an upload of which the backend has the beginning.
type part struct {
	wire.Upload
	content []byte
}

// Announce implements the contract: the same archive is the same upload.
func (d *fakeBackend) Announce(_ context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u.Key.Host != thisHost || u.Size < 0 || u.Digest.IsZero() || u.Skipped < 0 {
		d.tb.Errorf("the handler let the announcement of %+v through", u)
	}
	d.announced++
	if d.refuse != nil {
		return wire.Receipt{}, wire.Unfinished{}, d.refuse
	}
	if old, found := d.stored[u.Key]; found {
		if old.Digest != u.Digest {
			return wire.Receipt{}, wire.Unfinished{}, wire.Refuse(wire.Conflict, "another one")
		}
		old.Status = wire.AlreadyPresent
		return old, wire.Unfinished{}, nil
	}
	for id, p := range d.parts {
		if p.Upload == (wire.Upload{Key: u.Key}) {
			p.Upload = u // opened before
		}
		if p.Upload == u {
			return wire.Receipt{}, p.unfinished(id), nil
		}
	}
	if d.parts == nil {
		d.parts = make(map[string]*part)
	}
	id := fmt.Sprintf("UPLOAD%d", d.announced)
	d.parts[id] = &part{Upload: u}
	return wire.Receipt{}, d.parts[id].unfinished(id), nil
}

func (d *fakeBackend) OpenUpload(_ context.Context, k episode.Key) (wire.Unfinished, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return wire.Unfinished{}, d.refuse
	}
	d.announced++
	if d.parts == nil {
		d.parts = make(map[string]*part)
	}
	id := fmt.Sprintf("OPEN%d", d.announced)
	d.parts[id] = &part{Upload: wire.Upload{Key: k}}
	return wire.Unfinished{ID: id, Length: -1}, nil
}

func (p *part) unfinished(id string) wire.Unfinished {
	return wire.Unfinished{ID: id, Offset: int64(len(p.content)), Length: p.Size}
}

func (d *fakeBackend) AppendPiece(ctx context.Context, host episode.Name, id string, piece wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	if piece.Offset < 0 || piece.Size < 0 || piece.Interrupt == nil {
		d.tb.Errorf("the handler let the piece %+v through", piece)
	}
	d.noteRequest(id)
	d.mu.Lock()
	p, found := d.parts[id]
	d.mu.Unlock()
	switch {
	case host != thisHost || !found:
		return wire.Receipt{}, wire.Unfinished{}, wire.Refuse(wire.NoUpload, "none")
	case piece.Offset != int64(len(p.content)):
		refusal := wire.Refuse(wire.OffsetMismatch, "go on elsewhere")
		at := int64(len(p.content))
		refusal.Offset = &at
		return wire.Receipt{}, wire.Unfinished{}, refusal
	}
	if d.take != nil {
		r, err := d.take(ctx, p.Upload, body)
		return r, wire.Unfinished{}, err
	}
	b, err := io.ReadAll(body)
	d.mu.Lock()
	defer d.mu.Unlock()
	p.content = append(p.content, b...) // received bytes are kept, whatever ended the piece
	if err != nil {
		return wire.Receipt{}, wire.Unfinished{}, err
	}
	if !piece.Last {
		return wire.Receipt{}, p.unfinished(id), nil
	}
	delete(d.parts, id)
	if sha256.Sum256(p.content) != p.Digest {
		return wire.Receipt{}, wire.Unfinished{}, wire.Refuse(wire.DigestMismatch, "nothing was stored")
	}
	if d.stored == nil {
		d.stored = make(map[episode.Key]wire.Receipt)
	}
	d.stored[p.Key] = receiptOf(p.Upload)
	return d.stored[p.Key], wire.Unfinished{}, nil
}

// noteRequest records a request about an upload.
func (d *fakeBackend) noteRequest(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, id)
	if id == "" || strings.Contains(id, "/") {
		d.tb.Errorf("the handler let the upload %q through", id)
	}
}

func (d *fakeBackend) UploadState(_ context.Context, host episode.Name, id string) (wire.Unfinished, error) {
	d.noteRequest(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	p, found := d.parts[id]
	if host != thisHost || !found {
		return wire.Unfinished{}, wire.Refuse(wire.NoUpload, "none")
	}
	return p.unfinished(id), nil
}

func (d *fakeBackend) CancelUpload(_ context.Context, host episode.Name, id string) error {
	d.noteRequest(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, found := d.parts[id]; host != thisHost || !found {
		return wire.Refuse(wire.NoUpload, "none")
	}
	delete(d.parts, id)
	return nil
}
