package source

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// receiptAttr is the name of the attribute with the [Receipt] of a retired episode's directory.
const receiptAttr = "receipt"

// Receipt is what the receiver confirmed to have of a retired episode. It suffices to ask
// whether the receiver still has the episode.
type Receipt struct {
	Digest     digest.Digest // of the archive
	Size       int64         // of the archive
	ReceivedAt time.Time     // by the receiver's clock
}

func (r Receipt) encode() []byte {
	b := binary.BigEndian.AppendUint64(r.Digest[:], uint64(r.Size))
	return binary.BigEndian.AppendUint64(b, uint64(r.ReceivedAt.UnixNano()))
}

func parseReceipt(b []byte) (Receipt, bool) {
	if len(b) != digest.Size+16 {
		return Receipt{}, false
	}
	rest := b[digest.Size:]
	r := Receipt{
		Digest:     digest.Digest(b[:digest.Size]),
		Size:       int64(binary.BigEndian.Uint64(rest)),
		ReceivedAt: time.Unix(0, int64(binary.BigEndian.Uint64(rest[8:]))).UTC(),
	}
	return r, !r.Digest.IsZero() && r.Size >= 0
}

// recordReceipt records the receipt and the state at the episode's directory, which keeps them
// wherever it is moved. It returns the function that makes them durable.
//
// Without a receipt it removes those of an earlier delivery, durably at once: they would describe
// other bytes. If attributes cannot be stored (no support, no permission, no space), the episode is
// retired all the same, and this host does not know what the receiver has of it.
func (s *Source) recordReceipt(name episode.Name, r *Receipt, state State) (sync func() error, err error) {
	nothing := func() error { return nil }
	dir, err := s.episodes.OpenDir(string(name))
	if errors.Is(err, fs.ErrPermission) {
		return nothing, nil // the rename reports what is wrong
	}
	if err != nil {
		return nil, durable.AsReadError(err)
	}
	_, err = durable.ReadAttr(dir.File(), receiptAttr)
	fresh := errors.Is(err, durable.ErrNoAttr)
	if fresh && r == nil {
		return dir.Close, nil
	}
	err = setReceipt(dir, r, state)
	switch {
	case r != nil && cannotStoreAttr(err):
		return dir.Close, nil
	case err == nil && !fresh:
		err = dir.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return func() error { return errors.Join(dir.Sync(), dir.Close()) }, nil
}

// setReceipt sets the attributes of a delivery, or clears those of an earlier one.
func setReceipt(dir *durable.Dir, r *Receipt, state State) error {
	if r == nil {
		return errors.Join(
			durable.SetAttr(dir.File(), receiptAttr, nil),
			durable.RemoveAttr(dir.File(), stateAttr),
			durable.RemoveAttr(dir.File(), changedAttr))
	}
	if err := durable.SetAttr(dir.File(), receiptAttr, r.encode()); err != nil {
		return err
	}
	if err := durable.RemoveAttr(dir.File(), changedAttr); err != nil {
		return err
	}
	err := durable.SetAttr(dir.File(), stateAttr, state.encode())
	if cannotStoreAttr(err) {
		// The receipt is valid without it, but an earlier one must go.
		return durable.RemoveAttr(dir.File(), stateAttr)
	}
	return err
}

// cannotStoreAttr reports whether err says that an attribute cannot be stored here.
func cannotStoreAttr(err error) bool {
	return durable.IsAny(err, durable.ErrNoAttr, fs.ErrPermission, unix.ENOSPC, unix.EDQUOT, unix.E2BIG)
}

// ReceiptOf returns the receipt at the open directory of a retired episode, or false.
func ReceiptOf(dir *durable.Dir) (Receipt, bool, error) {
	b, err := durable.ReadAttr(dir.File(), receiptAttr)
	if err != nil && !errors.Is(err, durable.ErrNoAttr) {
		return Receipt{}, false, err
	}
	r, ok := parseReceipt(b)
	return r, ok, nil
}

// WasRetired reports whether an episode has the receipt of an earlier delivery: it was moved back
// to be sent again.
func (s *Source) WasRetired(name episode.Name) (bool, error) {
	dir, err := s.episodes.OpenDir(string(name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, durable.AsReadError(err)
	}
	defer dir.Close()
	_, retired, err := ReceiptOf(dir)
	return retired, durable.AsReadError(err)
}
