package config

import (
	"net/netip"
	"strings"
)

// IsLoopback reports whether a host, without brackets and port, names this machine only.
func IsLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}
