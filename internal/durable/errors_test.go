package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
)

// A disk that cannot read one item has not lost what was written: only the error of a reading
// call, and only an errno that a disk returns, is a read error.
func TestOnlyWhatTheDiskSaysIsAReadError(t *testing.T) {
	at := func(err error) error { return &fs.PathError{Op: "open", Path: "x", Err: err} }
	for _, no := range []unix.Errno{unix.EIO, unix.ESTALE, unix.EUCLEAN, unix.EBADMSG, unix.ENODATA} {
		err := durable.AsReadError(fmt.Errorf("look: %w", at(no)))
		if got, ok := errors.AsType[*durable.ReadError](err); !ok || !errors.Is(err, no) || got.Error() != "open x: "+no.Error() {
			t.Errorf("%v became %v", no, err)
		}
	}
	for _, no := range []unix.Errno{unix.ENOENT, unix.EACCES, unix.EPERM, unix.EMFILE, unix.ENOMEM, unix.ENOSPC, unix.EROFS, unix.ELOOP} {
		if err := at(no); durable.AsReadError(err) != err {
			t.Errorf("%v became %v", no, durable.AsReadError(err))
		}
	}
	if durable.AsReadError(nil) != nil {
		t.Error("no error became one")
	}
	// A failed sync says only that it failed: it is a fault for all callers.
	if err := fmt.Errorf("sync x: %w: %w", durable.ErrFault, unix.EIO); !errors.Is(durable.AsReadError(err), durable.ErrFault) {
		t.Errorf("%v became %v", err, durable.AsReadError(err))
	}
}

func TestFailedSyncOfAFullDiskIsAFault(t *testing.T) {
	for _, c := range []struct {
		err            error
		full, shortage bool
	}{
		{syscall.ENOSPC, true, true},
		{fmt.Errorf("write: %w", syscall.EDQUOT), true, true},
		{fmt.Errorf("%w: %w", durable.ErrFault, syscall.ENOSPC), false, false},
		{syscall.EMFILE, false, true},
		{syscall.EIO, false, false},
		{nil, false, false},
	} {
		if full, shortage := durable.IsFull(c.err), durable.IsShortage(c.err); full != c.full || shortage != c.shortage {
			t.Errorf("%v: full %v, shortage %v, want %v and %v", c.err, full, shortage, c.full, c.shortage)
		}
	}
}
