package pki

import (
	"path/filepath"

	"cis490/internal/durable"
)

// IdentityLayout lists the names in an identity directory, of hosts and of receivers. What else is
// there is of another package, which adds it as more.
func IdentityLayout(more ...durable.LayoutEntry) durable.Layout {
	layout := durable.Layout{
		{Match: durable.MatchNames(issuedDir), Perm: 0o700, Dir: true, Below: durable.Layout{{Match: hasSuffix(certSuffix), Perm: 0o600}}},
		{Match: durable.MatchNames(hostsDir), Perm: 0o700, Dir: true, Below: durable.Layout{{Match: hasSuffix(".json"), Perm: 0o600}}},
	}
	for _, name := range []string{issuingFile, rootFile, serverFile, serverIssuingFile, retiringFile, nextCAsFile, hostFile, hostRoots, pendingFile, renewalFile} {
		layout = append(layout, durable.LayoutEntry{Match: durable.MatchNames(name, durable.TempName(name)), Perm: 0o600})
	}
	return append(layout, more...)
}

func hasSuffix(suffix string) func(string) bool {
	return func(name string) bool { return filepath.Ext(name) == suffix }
}
