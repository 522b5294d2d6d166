package receiver

import (
	"time"

	"cis490/internal/durable"
)

// checkPathsInterval is how often the paths are checked while no host asks for anything.
const checkPathsInterval = 2 * time.Second

// watchPaths begins to watch that the data directory and its folders stand under their
// paths.
func (r *Receiver) watchPaths() error {
	var err error
	r.paths, err = durable.WatchPaths(append([]*durable.Dir{r.data}, r.store.Dirs()...)...)
	if err == nil && r.paths.Blind() != nil {
		r.log.Warn("mounts are not watched", "err", r.paths.Blind())
	}
	return err
}

// checkPaths returns a [*durable.MovedError] if a folder no longer stands under its path,
// and ends the daemon: readers and the next start would not find what is stored in a
// folder that was moved away, or that a later mount hides. It is called before each
// commit and before each answer of success.
func (r *Receiver) checkPaths() error {
	err := r.paths.Check()
	if err != nil {
		r.fail(err)
	}
	return err
}

// fail ends the daemon with its first fatal error.
func (r *Receiver) fail(err error) {
	if !r.faulted.Swap(true) {
		r.fault <- err
	}
}
