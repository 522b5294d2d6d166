package labtest

import (
	"fmt"
	"maps"
	"os"

	"cis490/internal/fixture"
)

// Peer adds another receiver with the certificates of the lab, and a configuration, a data directory
// and an address of its own. It has no hosts: those of the lab may reach it. The lab's settings of the
// moment are its own, with the options after them.
func (l *Lab) Peer(name string, options ...Option) *Lab {
	l.t.Helper()
	p := &Lab{
		Dir: l.Path(name), Proxy: NewProxy(l.t), t: l.t, bin: l.bin, names: l.names,
		settings: maps.Clone(l.settings), unpacked: l.unpacked, decoded: l.decoded,
	}
	fixture.Must(l.t, os.MkdirAll(p.Dir, 0o755))
	for key, file := range map[string]string{
		"tls.cert_file": "server.crt", "tls.key_file": "server.key", "tls.client_ca_file": "hosts-ca.crt", "tls.crl_file": "hosts.crl",
	} {
		p.settings[key] = fmt.Sprintf("%q", l.Path("pki", file))
	}
	for _, o := range options {
		o(p)
	}
	p.writeConfig()
	return p
}
