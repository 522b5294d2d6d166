package receiver

import (
	"slices"

	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/fleet"
	"cis490/internal/index"
	"cis490/internal/notify"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// Layout describes the names that the receiver and its commands create in the data directory.
// A new name must be added, or a file that root creates under it stays root's. Archives are
// included only on request: examining them takes time that grows with the store.
func Layout(archives bool) durable.Layout {
	return slices.Concat(index.Layout(datadir.IndexFile), store.Layout(archives), scrub.Layout(), datadir.Layout(), fleet.Layout(), notify.Layout(), durable.Layout{
		{Match: durable.IsProbe, Perm: 0o600},
	})
}
