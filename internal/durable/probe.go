package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoLinks says that a file system does not give a file two names.
var ErrNoLinks = errors.New("the file system has no hard links")

// probePrefix begins the names that [Dir.CheckLinks], [Dir.TryMove] and [Dir.TryLink] make.
const probePrefix = ".cis490-probe."

// IsProbe reports whether a name is one that a probe makes, and that a kill may leave. It
// is for a [Layout].
func IsProbe(name string) bool { return strings.HasPrefix(name, probePrefix) }

// CheckLinks returns an error wrapping [ErrNoLinks] if the file system of d has no hard
// links. It creates an empty file for it, which nothing relies on, and removes it.
//
// Others may be able to write in d: it is the open file that gets a second name, and
// at a name, nothing is opened. Whatever they put there is at most unlinked.
func (d *Dir) CheckLinks() error {
	name := probePrefix + rand.Text()
	f, err := d.Create(name, 0o600)
	if err != nil {
		return err
	}
	second := name + ".2"
	self := "/proc/self/fd/" + strconv.Itoa(int(f.f.Fd()))
	err = unix.Linkat(unix.AT_FDCWD, self, d.fd(), second, unix.AT_SYMLINK_FOLLOW)
	if isNoLink(err) {
		err = fmt.Errorf("%s: %w: %w", d.f.Name(), ErrNoLinks, err)
	} else if err != nil {
		err = opError("link", d.Path(second), err)
	}
	// What is not removed is an empty file, or something that others put there.
	d.Unlink(second)
	f.Discard()
	return err
}

// isNoLink reports whether a link failed because files have one name only.
func isNoLink(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EMLINK)
}
