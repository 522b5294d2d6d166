package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/durable"
)

// Sharing is the result of [ShareEpisodes].
type Sharing struct {
	Shared int `json:"shared"` // directories whose group or mode changed
	Failed int `json:"failed"`
}

// maxShareErrors is the maximum number of errors of one pass that [ShareEpisodes] returns.
const maxShareErrors = 10

// ShareEpisodes gives each directory in the episodes directory to a group, so that the shipper,
// which is in that group, can move it whatever its owner and mode. It skips what is not a
// directory, and what is renamed meanwhile, which the next pass finds. A directory that cannot be
// shared does not stop the others; the error names the first few.
//
// Share may run as root, or with root's rights over all owners: see [durable.Dir.ShareDir]. Its
// memory does not grow with the number of entries.
func ShareEpisodes(ctx context.Context, episodes *durable.Dir, gid int) (Sharing, error) {
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

// quoteName replaces the path in an error by the quoted name of an entry, which may contain any
// bytes.
func quoteName(name string, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s %+q: %w", at.Op, name, at.Err)
	}
	return fmt.Errorf("share %+q: %w", name, err)
}
