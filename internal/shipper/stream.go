package shipper

import (
	"context"
	"io"
	"time"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/uplink"
)

// streamPieceSize is the size of one request while an episode is being packed. On a slow link other
// senders do not wait long for it.
const streamPieceSize = 8 << 20

// streamingUpload sends the beginning of an archive while the rest is packed. Nothing depends on
// it: the packed archive is announced and sent like any other, and the receiver reports how much of
// it is there.
type streamingUpload struct {
	*Shipper
	packed        int64      // bytes packed so far
	sizes         chan int64 // the latest value of packed
	cancelAndWait func()     // cancels it and waits until it has ended
	id            string     // of the upload, or ""; to be read after stopSending
}

// startStreaming starts a streaming upload. It returns nil if the episode is not large or the
// receiver is not reachable.
func (s *Shipper) startStreaming(ctx context.Context, name episode.Name, draft io.ReaderAt, of archive.Survey) *streamingUpload {
	if !of.IsLarge() || !s.receiverUp.Load() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	u := &streamingUpload{Shipper: s, sizes: make(chan int64, 1), cancelAndWait: func() { cancel(); <-ended }}
	go func() {
		defer close(ended)
		if err := u.run(ctx, name, draft); err != nil && ctx.Err() == nil {
			s.log.Debug("streaming upload ended early", "episode", name, "err", err)
		}
	}()
	return u
}

// addPacked records that n more bytes can be read of the draft. It never blocks.
func (u *streamingUpload) addPacked(n int) {
	if u == nil {
		return
	}
	u.packed += int64(n)
	select {
	case <-u.sizes:
	default:
	}
	u.sizes <- u.packed
}

// stopSending ends the streaming upload. It must be called before the draft is committed or
// discarded.
func (u *streamingUpload) stopSending() {
	if u != nil {
		u.cancelAndWait()
	}
}

// discardTimeout bounds how long a packer waits for [streamingUpload.discardUpload].
const discardTimeout = 10 * time.Second

// discardUpload has the receiver discard an upload whose archive was not packed. If that fails, the
// receiver does so by itself, later.
func (u *streamingUpload) discardUpload(ctx context.Context) {
	if u == nil || u.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, discardTimeout)
	defer cancel()
	if err := u.client.CancelUpload(ctx, u.id); err != nil {
		u.log.Debug("streaming upload not discarded", "err", err)
	}
}

func (u *streamingUpload) run(ctx context.Context, name episode.Name, draft io.ReaderAt) (err error) {
	_, ctx = u.store.WithKnown(ctx)
	err = u.request(ctx, func() (err error) {
		u.id, err = u.client.OpenUpload(ctx, name)
		return err
	})
	for sent := int64(0); err == nil; {
		select {
		case size := <-u.sizes:
			for ; err == nil && size-sent >= streamPieceSize; sent += streamPieceSize {
				err = u.request(ctx, func() error {
					return u.client.AppendPiece(ctx, u.id, u.limiter.LimitReader(ctx, draft), sent, streamPieceSize)
				})
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// request sends a request once there is a slot, and retries it while the receiver is busy.
func (u *streamingUpload) request(ctx context.Context, send func() error) error {
	release, err := u.acquireRequestSlot(ctx)
	if err != nil {
		return err
	}
	defer release()
	_, err = uplink.RetryWhileBusy(ctx, u.busyTimeout, &u.openRequests, func() (struct{}, error) { return struct{}{}, send() })
	return err
}

// acquireRequestSlot waits for a slot: senders and streaming uploads together send no more requests
// at once than Senders.
func (s *Shipper) acquireRequestSlot(ctx context.Context) (release func(), err error) {
	select {
	case s.requestSlots <- struct{}{}:
		return func() { <-s.requestSlots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
