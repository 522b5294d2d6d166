package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Send sends a packed episode and retires it with the receipt. It calls sent in between.
func (p *Pipeline) Send(ctx context.Context, name episode.Name, sent func()) (wire.Status, error) {
	start := time.Now()
	w := p.startWork(name, true)
	defer p.endWork(w)
	entry, err := p.out.OpenEntry(name)
	if err != nil {
		return "", durable.AsReadError(err)
	}
	defer entry.Close()
	entry.OnRead = w.beat
	w.size.Store(entry.Size)
	upload := wire.Upload{
		Key:     episode.Key{Host: p.Host, Name: name},
		Digest:  entry.Digest,
		Size:    entry.Size,
		Skipped: entry.Skipped,
	}
	if upload.Resent, err = p.src.WasRetired(name); err != nil {
		return "", err
	}
	before, requestCtx := p.Store.WithKnown(ctx)
	receipt, err := p.sendArchive(requestCtx, upload, entry, w)
	if err != nil && entry.ReadError() != nil { // of this host's disk, not of the path
		return "", fmt.Errorf("read the packed copy of %s: %w", name, durable.AsReadError(entry.ReadError()))
	}
	if errors.Is(err, wire.DigestMismatch) {
		return "", p.explainMismatch(name, entry, err)
	}
	if err != nil {
		return "", &uplink.UnreachableError{Err: p.Store.CheckResponse(nil, before, err)}
	}
	if err := receipt.Covers(upload); err != nil { // the client checks this too; custody depends on it
		return "", &uplink.UnreachableError{Err: err}
	}
	if err := p.Store.AcceptReceipt(ctx, receipt.Store, before); err != nil {
		return "", err
	}
	sent()
	w.delivered.Store(true)
	if err := p.retireEpisode(ctx, name, entry, receipt); err != nil {
		return "", &DeliveredError{err, receipt.Digest} // it is sent again, and counted then
	}
	p.deliveredBytes.Add(entry.Size)
	p.Log.Info("shipped", "episode", name, "sha256", entry.Digest, "bytes", entry.Size,
		"status", string(receipt.Status), "took", time.Since(start).Round(time.Millisecond))
	return receipt.Status, nil
}

// DeliveredError says that an episode was not retired although it has a receipt.
type DeliveredError struct {
	Err    error
	Digest digest.Digest // of the receipt
}

func (e *DeliveredError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *DeliveredError) Unwrap() error { return e.Err }

// sendArchive sends an entry. If the receiver got other bytes than were announced, and the entry is
// intact, it is sent once more from the beginning.
func (p *Pipeline) sendArchive(ctx context.Context, u wire.Upload, entry *outbox.Entry, w *work) (wire.Receipt, error) {
	release, err := p.acquireRequestSlot(ctx)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer release()
	from := p.Limiter.LimitReader(ctx, meteredReader{entry, p, w})
	send := func() (wire.Receipt, error) {
		defer entry.OnRead() // a response, or none, is progress too
		return p.Client.Put(ctx, u, from)
	}
	receipt, err := uplink.RetryWhileBusy(ctx, p.BusyTimeout, &p.openRequests, send)
	if !errors.Is(err, wire.DigestMismatch) {
		return receipt, err
	}
	if intact, rerr := entry.IsIntact(); rerr != nil || !intact {
		return receipt, err // see explainMismatch
	}
	return uplink.RetryWhileBusy(ctx, p.BusyTimeout, &p.openRequests, send)
}

// explainMismatch handles a receiver that got other bytes than were announced. If the packed copy
// is corrupt and the episode exists, it drops the copy, and the episode is packed again. Otherwise
// it returns the refusal, and the episode is held.
func (p *Pipeline) explainMismatch(name episode.Name, entry *outbox.Entry, refusal error) error {
	intact, err := entry.IsIntact()
	if err != nil {
		return durable.AsReadError(err)
	}
	if intact {
		return refusal
	}
	finished, err := p.src.IsFinished(name)
	if err != nil || !finished {
		return errors.Join(err, refusal)
	}
	if err := p.out.Remove(name); err != nil {
		return err
	}
	return fmt.Errorf("the packed copy of %s was corrupt on this host's disk and was dropped; the episode is packed again", name)
}

// retireEpisode moves an episode for which the caller has a receipt, and then removes the entry. A
// crash in between leaves the entry, which is sent once more.
func (p *Pipeline) retireEpisode(ctx context.Context, name episode.Name, entry *outbox.Entry, receipt wire.Receipt) error {
	if err := p.Dirs.CheckPaths(); err != nil {
		return err
	}
	// Without a finished directory the episode was retired before, or was removed by hand. A directory
	// without marker is a later run of the same name.
	finished, err := p.src.IsFinished(name)
	if err != nil {
		return err
	}
	if finished {
		state, err := p.checkUnchanged(ctx, name, entry)
		if err != nil {
			return durable.AsReadError(err)
		}
		kept := &source.Receipt{Digest: receipt.Digest, Size: receipt.Size, ReceivedAt: receipt.ReceivedAt.Time}
		if accepted, err := p.out.IsAccepted(name); err != nil {
			return err
		} else if accepted {
			kept = nil // the receiver does not have what is retired
		}
		if err := p.src.Retire(name, kept, state); err != nil {
			return err
		}
	}
	return p.out.Remove(name)
}

// checkUnchanged returns the state of the episode if it still is what was packed. Otherwise it
// returns an error, unless an operator has accepted the change. A chown changes the fingerprint;
// only names, types, sizes and contents count.
func (p *Pipeline) checkUnchanged(ctx context.Context, name episode.Name, entry *outbox.Entry) (source.State, error) {
	if accepted, err := p.out.IsAccepted(name); err != nil || accepted {
		return source.State{}, err
	}
	tree, err := p.src.OpenTree(name)
	if err != nil {
		return source.State{}, err
	}
	defer tree.Close()
	at := time.Now()
	marks, err := tree.ReadMarks(ctx)
	if err != nil {
		return source.State{}, err
	}
	if marks.Fingerprint.Short() != entry.Fingerprint {
		if marks, err = archive.Compare(ctx, entry.Reader(), tree); err != nil {
			return source.State{}, err
		}
	}
	return source.StateOf(marks, at), nil
}

// acquireRequestSlot waits for a slot: senders and streaming uploads together send no more requests
// at once than MaxRequests.
func (p *Pipeline) acquireRequestSlot(ctx context.Context) (release func(), err error) {
	select {
	case p.requestSlots <- struct{}{}:
		return func() { <-p.requestSlots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// streamPieceSize is the size of one request while an episode is being packed. On a slow link other
// senders do not wait long for it.
const streamPieceSize = 8 << 20

// streamingUpload sends the beginning of an archive while the rest is packed. Nothing depends on
// it: the packed archive is announced and sent like any other, and the receiver reports how much of
// it is there.
type streamingUpload struct {
	*Pipeline
	packed        int64      // bytes packed so far
	sizes         chan int64 // the latest value of packed
	cancelAndWait func()     // cancels it and waits until it has ended
	id            string     // of the upload, or ""; to be read after stopSending
}

// startStreaming starts a streaming upload. It returns nil if the episode is not large or the
// receiver is not reachable.
func (p *Pipeline) startStreaming(ctx context.Context, name episode.Name, draft io.ReaderAt, of archive.Survey) *streamingUpload {
	if !p.LinkUp() || !of.IsLarge() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	u := &streamingUpload{Pipeline: p, sizes: make(chan int64, 1), cancelAndWait: func() { cancel(); <-ended }}
	go func() {
		defer close(ended)
		if err := u.run(ctx, name, draft); err != nil && ctx.Err() == nil {
			p.Log.Debug("streaming upload ended early", "episode", name, "err", err)
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
	if err := u.Client.CancelUpload(ctx, u.id); err != nil {
		u.Log.Debug("streaming upload not discarded", "err", err)
	}
}

func (u *streamingUpload) run(ctx context.Context, name episode.Name, draft io.ReaderAt) (err error) {
	_, ctx = u.Store.WithKnown(ctx)
	err = u.request(ctx, func() (err error) {
		u.id, err = u.Client.OpenUpload(ctx, name)
		return err
	})
	for sent := int64(0); err == nil; {
		select {
		case size := <-u.sizes:
			for ; err == nil && size-sent >= streamPieceSize; sent += streamPieceSize {
				err = u.request(ctx, func() error {
					return u.Client.AppendPiece(ctx, u.id, u.Limiter.LimitReader(ctx, meteredReader{draft, u.Pipeline, nil}), sent, streamPieceSize)
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
	_, err = uplink.RetryWhileBusy(ctx, u.BusyTimeout, &u.openRequests, func() (struct{}, error) { return struct{}{}, send() })
	return err
}
