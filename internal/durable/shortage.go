package durable

import (
	"errors"
	"slices"
	"syscall"
)

// IsFull reports whether err says that a disk has no space or no inodes. An fsync that
// failed for that is an [ErrFault] instead: what was written may be lost.
func IsFull(err error) bool {
	return !errors.Is(err, ErrFault) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// IsShortage reports whether err says that the machine lacks space, descriptors or memory.
// It says nothing of the file at which it was met: another one would have met it too, and
// the next attempt may go well.
func IsShortage(err error) bool {
	return IsFull(err) || slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS,
	}, func(e error) bool { return errors.Is(err, e) })
}
