package shipper

import (
	"context"
	"errors"
	"fmt"
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

// sendEntry sends a packed episode and retires it with the receipt. It calls sent in between.
func (s *Shipper) sendEntry(ctx context.Context, name episode.Name, beat, sent func()) (wire.Status, error) {
	start := time.Now()
	entry, err := s.out.OpenEntry(name)
	if err != nil {
		return "", durable.AsReadError(err)
	}
	defer entry.Close()
	entry.OnRead = beat
	upload := wire.Upload{
		Key:     episode.Key{Host: s.cfg.HostID, Name: name},
		Digest:  entry.Digest,
		Size:    entry.Size,
		Skipped: entry.Skipped,
	}
	if upload.Resent, err = s.src.WasRetired(name); err != nil {
		return "", err
	}
	before, asking := s.store.WithKnown(ctx)
	receipt, err := s.sendArchive(asking, upload, entry)
	if err != nil && entry.ReadError() != nil { // of this host's disk, not of the path
		return "", fmt.Errorf("read the packed copy of %s: %w", name, durable.AsReadError(entry.ReadError()))
	}
	if errors.Is(err, wire.DigestMismatch) {
		return "", s.explainMismatch(name, entry, err)
	}
	if err != nil {
		return "", &uplink.UnreachableError{Err: s.store.CheckResponse(nil, before, err)}
	}
	if err := receipt.Covers(upload); err != nil { // the client checks this too; custody depends on it
		return "", &uplink.UnreachableError{Err: err}
	}
	if err := s.store.AcceptReceipt(ctx, receipt.Store, before); err != nil {
		return "", err
	}
	sent()
	if err := s.retireEpisode(ctx, name, entry, receipt); err != nil {
		return "", &deliveredError{err, receipt.Digest}
	}
	s.log.Info("shipped", "episode", name, "sha256", entry.Digest, "bytes", entry.Size,
		"status", string(receipt.Status), "took", time.Since(start).Round(time.Millisecond))
	return receipt.Status, nil
}

// deliveredError says that an episode was not retired although it has a receipt.
type deliveredError struct {
	err    error
	digest digest.Digest // of the receipt
}

func (e *deliveredError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *deliveredError) Unwrap() error { return e.err }

// sendArchive sends an entry. If the receiver got other bytes than were announced, and the entry is
// intact, it is sent once more from the beginning.
func (s *Shipper) sendArchive(ctx context.Context, u wire.Upload, entry *outbox.Entry) (wire.Receipt, error) {
	release, err := s.acquireRequestSlot(ctx)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer release()
	from := s.limiter.LimitReader(ctx, entry)
	send := func() (wire.Receipt, error) {
		defer entry.OnRead() // a response, or none, is progress too
		return s.client.Put(ctx, u, from)
	}
	receipt, err := uplink.RetryWhileBusy(ctx, s.busyTimeout, &s.openRequests, send)
	if !errors.Is(err, wire.DigestMismatch) {
		return receipt, err
	}
	if intact, rerr := entry.IsIntact(); rerr != nil || !intact {
		return receipt, err // see explainMismatch
	}
	return uplink.RetryWhileBusy(ctx, s.busyTimeout, &s.openRequests, send)
}

// explainMismatch handles a receiver that got other bytes than were announced. If the packed copy
// is corrupt and the episode exists, it drops the copy, and the episode is packed again. Otherwise
// it returns the refusal, and the episode is held.
func (s *Shipper) explainMismatch(name episode.Name, entry *outbox.Entry, refusal error) error {
	intact, err := entry.IsIntact()
	if err != nil {
		return durable.AsReadError(err)
	}
	if intact {
		return refusal
	}
	finished, err := s.src.IsFinished(name)
	if err != nil || !finished {
		return errors.Join(err, refusal)
	}
	if err := s.out.Remove(name); err != nil {
		return err
	}
	return fmt.Errorf("the packed copy of %s was corrupt on this host's disk and was dropped; the episode is packed again", name)
}

// retireEpisode moves an episode for which the caller has a receipt, and then removes the entry. A
// crash in between leaves the entry, which is sent once more.
func (s *Shipper) retireEpisode(ctx context.Context, name episode.Name, entry *outbox.Entry, receipt wire.Receipt) error {
	if err := s.dirs.CheckPaths(); err != nil {
		return err
	}
	// Without a finished directory the episode was retired before, or was removed by hand. A directory
	// without marker is a later run of the same name.
	finished, err := s.src.IsFinished(name)
	if err != nil {
		return err
	}
	if finished {
		state, err := s.checkUnchanged(ctx, name, entry)
		if err != nil {
			return durable.AsReadError(err)
		}
		kept := &source.Receipt{Digest: receipt.Digest, Size: receipt.Size, ReceivedAt: receipt.ReceivedAt.Time}
		if accepted, err := s.out.IsAccepted(name); err != nil {
			return err
		} else if accepted {
			kept = nil // the receiver does not have what is retired
		}
		if err := s.src.Retire(name, kept, state); err != nil {
			return err
		}
	}
	return s.out.Remove(name)
}

// checkUnchanged returns the state of the episode if it still is what was packed. Otherwise it
// returns an error, unless an operator has accepted the change. A chown changes the fingerprint;
// only names, types, sizes and contents count.
func (s *Shipper) checkUnchanged(ctx context.Context, name episode.Name, entry *outbox.Entry) (source.State, error) {
	if accepted, err := s.out.IsAccepted(name); err != nil || accepted {
		return source.State{}, err
	}
	tree, err := s.src.OpenTree(name)
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
