package shipper

import (
	"context"
	"io"
	"time"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/uplink"
)

// streamPieceSize is what is sent at a time of a large episode's archive while it is being
// packed: on a slow link the senders do not wait long for one to end.
const streamPieceSize = 8 << 20

// streamingUpload sends the beginning of an archive while the rest of it is packed. It is a
// head start and nothing more: whatever becomes of it, the sealed archive is
// announced and sent as any other, and the receiver says how much of it is there.
type streamingUpload struct {
	*Shipper
	packed        int64      // of what is packed
	sizes         chan int64 // the latest size, if it has not been taken
	cancelAndWait func()     // ends it, and waits for that
	id            string     // of the upload, or ""; to be read after the end
}

// startStreaming begins a head start, or returns nil where it is not worth it.
func (s *Shipper) startStreaming(ctx context.Context, name episode.Name, draft io.ReaderAt, of archive.Survey) *streamingUpload {
	if !of.Large() || !s.receiverUp.Load() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	a := &streamingUpload{Shipper: s, sizes: make(chan int64, 1), cancelAndWait: func() { cancel(); <-ended }}
	go func() {
		defer close(ended)
		if err := a.run(ctx, name, draft); err != nil && ctx.Err() == nil {
			s.log.Debug("gave up a head start", "episode", name, "err", err)
		}
	}()
	return a
}

// notify notes that n more bytes can be read of the draft. It never waits.
func (a *streamingUpload) notify(n int) {
	if a == nil {
		return
	}
	a.packed += int64(n)
	select {
	case <-a.sizes:
	default:
	}
	a.sizes <- a.packed
}

// stop ends a head start, before its draft gets its name or goes.
func (a *streamingUpload) stop() {
	if a != nil {
		a.cancelAndWait()
	}
}

// discardTimeout bounds how long a packer waits to give a head start up.
const discardTimeout = 10 * time.Second

// discard has the receiver throw a head start away of which no archive came. If that
// fails it does so by itself, but later.
func (a *streamingUpload) discard(ctx context.Context) {
	if a == nil || a.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, discardTimeout)
	defer cancel()
	if err := a.client.Forget(ctx, a.id); err != nil {
		a.log.Debug("could not give a head start up", "err", err)
	}
}

func (a *streamingUpload) run(ctx context.Context, name episode.Name, draft io.ReaderAt) (err error) {
	_, ctx = a.store.WithKnown(ctx)
	a.id, err = a.openUpload(ctx, name)
	for sent := int64(0); err == nil; {
		select {
		case there := <-a.sizes:
			for ; err == nil && there-sent >= streamPieceSize; sent += streamPieceSize {
				err = a.appendPiece(ctx, a.id, draft, sent)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (s *Shipper) openUpload(ctx context.Context, name episode.Name) (string, error) {
	release, err := s.acquireRequestSlot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	return uplink.RetryWhileBusy(ctx, s.busyTimeout, &s.openRequests, func() (string, error) { return s.client.Open(ctx, name) })
}

func (s *Shipper) appendPiece(ctx context.Context, id string, draft io.ReaderAt, sent int64) error {
	release, err := s.acquireRequestSlot(ctx)
	if err != nil {
		return err
	}
	defer release()
	_, err = uplink.RetryWhileBusy(ctx, s.busyTimeout, &s.openRequests, func() (struct{}, error) {
		return struct{}{}, s.client.Append(ctx, id, s.limiter.Reader(ctx, draft), sent, streamPieceSize)
	})
	return err
}

// acquireRequestSlot waits until something may be sent: senders and head starts together are no
// more than the configuration says.
func (s *Shipper) acquireRequestSlot(ctx context.Context) (release func(), err error) {
	select {
	case s.requestSlots <- struct{}{}:
		return func() { <-s.requestSlots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
