package index

import (
	"strings"

	"cis490/internal/durable"
)

// Layout describes the names that an index called name creates in its directory: its own, its
// lock's, that of its batches, and those of saved torn tails.
func Layout(name string) durable.Layout {
	return durable.Layout{
		{Match: durable.MatchNames(durable.LogLockName(name)), Perm: 0o600},
		{Match: durable.MatchNames(name, "."+baseName(name)+tornInfix+"tmp", BatchesName(name), durable.TempName(BatchesName(name))), Perm: 0o640},
		{Match: func(s string) bool { return strings.HasPrefix(s, baseName(name)+tornInfix) }, Perm: 0o640},
	}
}

// tornInfix is in the names of the torn tails that were saved.
const tornInfix = ".torn-"

func baseName(name string) string { return strings.TrimSuffix(name, ".jsonl") }
