package pki

import (
	"path/filepath"

	"cis490/internal/durable"
)

// Names in a receiver's identity directory, beside [issuedDir].
const (
	hostsDir          = "hosts"              // a record of each host
	issuingFile       = "hosts-issuing.pem"  // key and certificate of the hosts' issuing CA
	rootFile          = "server-ca.crt"      // the root that hosts trust
	serverIssuingFile = "server-issuing.pem" // key and certificate of the receiver's issuing CA
	serverFile        = "server.pem"         // key and chain of the receiver, as renewal wrote them
	// While a rotation is in progress, the CAs of the hosts that it will retire, and the new ones.
	retiringFile = "retiring-hosts-ca.crt"
	nextCAsFile  = "next-hosts-ca.crt"
)

// Names in a host's identity directory.
const (
	hostFile    = "host.pem"         // key and chain in one file, so that they always fit
	hostRoots   = "host-ca.crt"      // the CAs of the receiver
	pendingFile = "host-request.pem" // the key that the last request to join was for
	renewalFile = "host-renewal.pem" // the key that the request in flight for the next certificate is for
)

// replacesHeader is the header of the PEM block of a key that names the certificate which is renewed.
const replacesHeader = "Replaces"

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
