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

// verdict is what an error means for the episode that met it.
type verdict int

const (
	retry verdict = iota // leave it, try again later
	hold                 // set it aside for a person
	pause                // the host or the path is at fault: mark no episode, stop sending
	full                 // this host's disk is at its floor: stop packing
	stop                 // end the process
)

// judge translates an error of any package into what is to be done. It is the
// one place that does.
func judge(err error) (verdict, outbox.Reason) {
	if errors.Is(err, durable.ErrFault) || errors.Is(err, context.Canceled) {
		return stop, ""
	}
	if _, ok := errors.AsType[*durable.MovedError](err); ok {
		return stop, ""
	}
	if _, ok := errors.AsType[*archive.UnpackableError](err); ok {
		return hold, outbox.Unfit
	}
	if _, ok := errors.AsType[*archive.Difference](err); ok {
		return hold, outbox.Changed
	}
	if _, ok := errors.AsType[*source.StuckError](err); ok {
		return hold, outbox.Stuck
	}
	if code, ok := errors.AsType[wire.Code](err); ok {
		return judgeCode(code)
	}
	if _, ok := errors.AsType[*uplink.UnreachableError](err); ok || uplink.IsOtherStore(err) {
		return pause, "" // no receiver answered, or one that keeps other episodes
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return full, ""
	}
	return retry, ""
}

// judgeCode tells the refusals that judge the episode from those that judge us.
func judgeCode(code wire.Code) (verdict, outbox.Reason) {
	switch code {
	case wire.Conflict:
		return hold, outbox.Conflict
	case wire.BadName, wire.BadRequest, wire.DigestMissing, wire.DigestInvalid, wire.DigestMismatch,
		wire.TooLarge, wire.Unsupported, wire.LengthMismatch, wire.WrongType:
		return hold, outbox.Refused
	}
	return pause, ""
}
