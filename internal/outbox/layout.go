package outbox

import (
	"slices"
	"strings"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Layout lists the names that the shipper and its commands create in the outbox. A new name must be
// added here, or a file that root created under it stays root's. The trash holds directories of the
// experiments, whose owners stay.
func Layout() durable.Layout {
	return durable.Layout{
		{Match: durable.MatchNames(lockName, formerLockName, trashLock), Perm: 0o600},
		{Match: durable.MatchNames(trashName), Perm: 0o750, Dir: true},
		{Match: durable.MatchNames(storeFile, durable.TempName(storeFile)), Perm: 0o640},
		{Match: durable.MatchNames(reportName, durable.TempName(reportName)), Perm: 0o640},
		{Match: isEpisodeFile, Perm: 0o640},
		{Match: durable.IsProbe, Perm: 0o600},
	}
}

// isEpisodeFile reports whether name is a file of one episode, or its temporary file.
func isEpisodeFile(name string) bool {
	if temp, isTemp := strings.CutPrefix(name, "."); isTemp {
		if name, isTemp = strings.CutSuffix(temp, ".tmp"); !isTemp {
			return false
		}
	}
	return slices.ContainsFunc([]string{sealedEnd, partialEnd, sealEnd, heldEnd, acceptedEnd}, func(end string) bool {
		stem, ours := strings.CutSuffix(name, end)
		_, err := episode.ParseName(stem)
		return ours && err == nil
	})
}
