package shipper

import "cis490/internal/durable"

// watchPaths begins to watch that the configured paths lead to the open folders.
func (s *Shipper) watchPaths() error {
	episodes, shipped := s.src.Dirs()
	var err error
	s.paths, err = durable.WatchPaths(episodes, shipped, s.out.Dir())
	if err == nil && s.paths.MountListErr() != nil && s.log != nil {
		s.log.Warn("mounts are not watched", "err", s.paths.MountListErr())
	}
	return err
}

// checkPaths returns a [*durable.MovedError] if a folder no longer stands where the
// configuration names it: experiments would leave their episodes elsewhere, and nobody
// would find what is retired. It is called before each scan, and before anything is
// sealed or retired.
func (s *Shipper) checkPaths() error { return s.paths.Check() }
