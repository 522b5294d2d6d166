package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/serviceuser"
)

// CheckUser names the user that the other checks run as.
func CheckUser(wasRoot bool) Finding {
	us := serviceuser.Current()
	if wasRoot {
		return OKf("user", "%s, who owns the data of the daemon; root started this", us.Name())
	}
	return OKf("user", "%s", us.Name())
}

// CheckKernel names the kernel. refused is the error of a check of its system calls, or nil.
func CheckKernel(refused error) Finding {
	if refused != nil {
		return FromError("kernel", fmt.Errorf("kernel %s: %w", KernelRelease(), refused), "use a newer kernel")
	}
	return OKf("kernel", "Linux %s has the system calls that are needed", KernelRelease())
}

// KernelRelease returns the release of the kernel, such as 6.12.48+deb13-amd64.
func KernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// CheckClock reports whether the kernel considers the clock synchronized.
func CheckClock() Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return judgeClock(state, t, err)
}

func judgeClock(state int, t unix.Timex, err error) Finding {
	switch {
	case err != nil:
		return Skippedf("clock", "adjtimex: %v (a container may refuse it)", err)
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return Warningf("clock", "run 'timedatectl set-ntp true', or install chrony: certificates depend on the clock",
			"not synchronized, as far as the kernel knows")
	}
	return OKf("clock", "synchronized, at most %s off", formatTime(time.Duration(t.Maxerror)*time.Microsecond))
}

// CheckCanceled returns the finding of a check that ^C has ended, and whether err says so.
func CheckCanceled(check string, err error) (Finding, bool) {
	if errors.Is(err, context.Canceled) {
		return Skippedf(check, "interrupted"), true
	}
	return Finding{}, false
}
