package shipper

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// errorAction is what to do about an error.
type errorAction int

const (
	actionRetry        errorAction = iota // retry the episode later
	actionHold                            // hold the episode
	actionPauseSending                    // stop sending; this host or the path is the cause, and no episode is marked
	actionPausePacking                    // stop packing; this host's disk is full
	actionStop                            // end the process
)

// classifyError returns the action for an error of any package, and the reason of a hold. No other
// function does.
func classifyError(err error) (errorAction, outbox.Reason) {
	if errors.Is(err, durable.ErrFault) || errors.Is(err, context.Canceled) {
		return actionStop, ""
	}
	if _, ok := errors.AsType[*durable.MovedError](err); ok {
		return actionStop, ""
	}
	if _, ok := errors.AsType[*archive.UnpackableError](err); ok {
		return actionHold, outbox.Unpackable
	}
	if _, ok := errors.AsType[*archive.Difference](err); ok {
		return actionHold, outbox.Changed
	}
	if _, ok := errors.AsType[*source.StuckError](err); ok {
		return actionHold, outbox.Stuck
	}
	if code, ok := errors.AsType[wire.Code](err); ok {
		return classifyCode(code)
	}
	if _, ok := errors.AsType[*uplink.UnreachableError](err); ok || uplink.IsOtherStore(err) {
		return actionPauseSending, "" // no receiver answered, or one with another store
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return actionPausePacking, ""
	}
	return actionRetry, ""
}

// classifyCode distinguishes refusals of the episode from those of this host.
func classifyCode(code wire.Code) (errorAction, outbox.Reason) {
	switch code {
	case wire.Conflict:
		return actionHold, outbox.Conflict
	case wire.BadName, wire.BadRequest, wire.DigestMissing, wire.DigestInvalid, wire.DigestMismatch,
		wire.TooLarge, wire.Unsupported, wire.LengthMismatch, wire.WrongType:
		return actionHold, outbox.Refused
	}
	return actionPauseSending, ""
}
