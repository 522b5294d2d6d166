package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/durable"
)

// Sharing is what [Share] did.
type Sharing struct {
	Shared int `json:"shared"` // directories whose group or mode changed
	Failed int `json:"failed"`
}

// maxShareErrors bounds what [Share] reports of one pass.
const maxShareErrors = 10

// Share gives each directory in the episodes folder to a group, so that the shipper,
// which is in it, can move the directory whoever made it and with whatever mode. What
// is not a directory there is left alone, and so is what changes place meanwhile: the
// next pass sees it. A directory that cannot be shared does not keep the others back;
// the first few are named in the error.
//
// Share may be root, or have the rights of root over all owners: see
// [durable.Dir.ShareDir]. Its memory does not grow with the number of entries.
func Share(ctx context.Context, episodes *durable.Dir, gid int) (Sharing, error) {
	var s Sharing
	var errs []error
	for e, err := range episodes.Names() {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return s, errors.Join(append(errs, err)...)
		}
		changed, err := episodes.ShareDir(e.Name(), gid)
		if changed {
			s.Shared++
		}
		if err == nil || durable.IsNotDirBeneath(err) {
			continue
		}
		s.Failed++
		if len(errs) < maxShareErrors {
			errs = append(errs, quoteName(e.Name(), err))
		}
	}
	if more := s.Failed - len(errs); more > 0 {
		errs = append(errs, fmt.Errorf("%d more could not be shared", more))
	}
	return s, errors.Join(errs...)
}

// quoteName puts the name of an entry, which may hold any bytes, in the place of the
// path in an error.
func quoteName(name string, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s %+q: %w", at.Op, name, at.Err)
	}
	return fmt.Errorf("share %+q: %w", name, err)
}
