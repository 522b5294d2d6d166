package diskbackend

import (
	"context"
	"crypto/rand"

	"cis490/internal/resumable"
	"cis490/internal/wire"
)

// uploadSession is the server's state between the pieces of one upload. Those with durable bytes are
// restored from staging at the start. The others are lost with the process, and announced again.
type uploadSession = resumable.Session[stagedBytes]

// stagedBytes says what of an upload is in staging.
type stagedBytes struct {
	started   bool   // there is a file in staging
	offset    int64  // number of durable bytes
	hashState []byte // of the sha256 of these bytes
	restored  bool   // an earlier process wrote these bytes
}

// heldSession is a session that one request has acquired. The holder must call Close.
type heldSession struct {
	*resumable.Held[stagedBytes]
	*stagedBytes
}

// acquireSession is [resumable.Session.Acquire].
func acquireSession(ctx context.Context, s *uploadSession, interrupt func(error)) (*heldSession, error) {
	h, err := s.Acquire(ctx, interrupt)
	if err != nil {
		return nil, err
	}
	return holdSession(h), nil
}

// holdSession returns a session that was acquired, or nil for nil.
func holdSession(h *resumable.Held[stagedBytes]) *heldSession {
	if h == nil {
		return nil
	}
	return &heldSession{h, h.Progress()}
}

// advanceTo records that the upload is durable up to offset.
func (h *heldSession) advanceTo(offset int64, hashState []byte) {
	h.offset, h.hashState = offset, hashState
	h.NoteByte()
}

// unfinished returns what the sender needs to continue.
func (h *heldSession) unfinished() wire.Unfinished {
	u := wire.Unfinished{ID: h.ID(), Offset: h.offset, Length: h.Size}
	if h.IsOpen() {
		u.Length = -1
	}
	return u
}

// findOrCreateSession returns the session of an archive, or nil if the host has too many.
func (b *Backend) findOrCreateSession(u wire.Upload) *uploadSession {
	return b.sessions.GetOrCreate(u, rand.Text())
}
