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

// action is what an error means for the episode that met it.
type action int

const (
	actionRetry        action = iota // leave it, try again later
	actionHold                       // set it aside for a person
	actionPauseSending               // the host or the path is at fault: mark no episode, stop sending
	actionPausePacking               // this host's disk is at its floor: stop packing
	actionStop                       // end the process
)

// classify translates an error of any package into what is to be done. It is the
// one place that does.
func classify(err error) (action, outbox.Reason) {
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
		return actionPauseSending, "" // no receiver answered, or one that keeps other episodes
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return actionPausePacking, ""
	}
	return actionRetry, ""
}

// classifyCode tells the refusals that judge the episode from those that judge us.
func classifyCode(code wire.Code) (action, outbox.Reason) {
	switch code {
	case wire.Conflict:
		return actionHold, outbox.Conflict
	case wire.BadName, wire.BadRequest, wire.DigestMissing, wire.DigestInvalid, wire.DigestMismatch,
		wire.TooLarge, wire.Unsupported, wire.LengthMismatch, wire.WrongType:
		return actionHold, outbox.Refused
	}
	return actionPauseSending, ""
}
