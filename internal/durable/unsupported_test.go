package durable

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnlyWhatIsNoDiskErrorIsPassedOver: a block device has many errnos for a failed write, and
// the sync that follows does not report it.
func TestOnlyWhatIsNoDiskErrorIsPassedOver(t *testing.T) {
	for _, err := range []error{
		unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.ENODATA, unix.ENOLINK, unix.EREMOTEIO, unix.ETIMEDOUT, unix.EILSEQ,
		unix.EROFS, unix.EUCLEAN, unix.EBADE, unix.ENOMEM, unix.EAGAIN,
	} {
		if isUnsupported(err) {
			t.Errorf("%v is passed over", err)
		}
	}
	if !isUnsupported(unix.ENOSYS) {
		t.Error("a kernel that cannot begin to write is a fault")
	}
}
