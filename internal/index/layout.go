package index

import (
	"strings"

	"cis490/internal/durable"
)

// Layout describes the names that an index called name makes in its directory: its
// own, its lock's, and those of the torn tails that were saved.
func Layout(name string) durable.Layout {
	return durable.Layout{
		{Match: durable.Named(durable.LogLockName(name)), Perm: 0o600},
		{Match: durable.Named(name, "."+stem(name)+tornMark+"tmp"), Perm: 0o640},
		{Match: func(s string) bool { return strings.HasPrefix(s, stem(name)+tornMark) }, Perm: 0o640},
	}
}

// tornMark is in the names of the torn tails that were saved.
const tornMark = ".torn-"

func stem(name string) string { return strings.TrimSuffix(name, ".jsonl") }
