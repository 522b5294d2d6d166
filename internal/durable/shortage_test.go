package durable_test

import (
	"fmt"
	"syscall"
	"testing"

	"cis490/internal/durable"
)

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
