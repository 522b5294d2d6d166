package store

import (
	"strings"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Layout describes the names that a store creates in its data directory. Without archives it
// has the top directories only, and its cost does not grow with the store.
func Layout(archives bool) durable.Layout {
	var layout durable.Layout
	for _, name := range []string{"episodes", "staging", "quarantine"} {
		top := durable.LayoutEntry{Match: durable.MatchNames(name), Perm: 0o750, Dir: true}
		if archives {
			top.Below = durable.Layout{
				{Match: isName, Perm: 0o750, Dir: true, Below: durable.Layout{{Match: isArchive, Perm: 0o640}}},
				{Match: durable.MatchNames("probe~a", "probe~b"), Perm: 0o600},
				{Match: durable.IsProbe, Perm: 0o600},
			}
		}
		layout = append(layout, top)
	}
	return layout
}

func isName(name string) bool {
	_, err := episode.ParseName(name)
	return err == nil
}

// isArchive reports whether name is that of a file in episodes, staging or quarantine.
func isArchive(name string) bool {
	stem, unfinished, staged := strings.Cut(name, "~")
	if !staged {
		var stored bool
		stem, stored = strings.CutSuffix(name, Suffix)
		if !stored {
			return false
		}
	} else if unfinished == "" {
		return false
	}
	return isName(stem)
}
