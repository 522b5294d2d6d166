// Package refusal has the refusals that both kinds of store send, so that a host gets the same one
// from each.
package refusal

import (
	"errors"

	"cis490/internal/admission"
	"cis490/internal/wire"
)

// FromAdmission translates a refusal of package admission for the sender. Other errors are returned as
// they are.
func FromAdmission(err error) error {
	refused, ok := errors.AsType[*admission.RefusedError](err)
	if !ok {
		return err
	}
	code := map[admission.RefusalReason]wire.Code{
		admission.HostBusy:   wire.HostBusy,
		admission.Busy:       wire.Busy,
		admission.DiskFull:   wire.Full,
		admission.QuotaSpent: wire.Full,
	}[refused.Reason]
	p := wire.Refuse(code, "%s", refused.Detail)
	p.RetryAfter = refused.RetryAfter
	return p
}

// CheckSize refuses an archive that is larger than archives may be.
func CheckSize(size, limit int64) error {
	if size > limit {
		return wire.Refuse(wire.TooLarge, "an archive has at most %d bytes", limit)
	}
	return nil
}

// CheckPiece refuses a piece of u that does not start at offset, where the bytes received so far end, or
// that does not end with the upload. The size of an upload without a digest is not known yet.
func CheckPiece(p wire.Piece, u wire.Upload, offset, limit int64) error {
	if p.Offset != offset {
		refused := wire.Refuse(wire.OffsetMismatch, "continue at byte %d", offset)
		refused.Offset = &offset
		return refused
	}
	if u.Digest.IsZero() {
		if p.Last {
			return wire.Refuse(wire.DigestMissing, "announce the archive before its last piece")
		}
		return CheckSize(offset+p.Size, limit)
	}
	if left := u.Size - offset; p.Size > left || p.Last && p.Size < left {
		return wire.Refuse(wire.LengthMismatch, "%d bytes are left of the archive", left)
	}
	return nil
}
