package wire_test

import (
	"strings"
	"testing"

	"cis490/internal/wire"
)

func TestWrongAddressesSayHowToWriteThem(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"https://receiver.lab:8443", ""},
		{"https://receiver.lab", ""},
		{"https://10.0.0.1:8443/", ""},
		{"https://[fd00::1]:8443", ""},
		{"https://[fe80::1%25eth0]:8443", ""},
		{"receiver.lab:8443", `write "https://receiver.lab:8443"`},
		{"10.0.0.1:8443", `write "https://10.0.0.1:8443"`},
		{"receiver.lab", `write "https://receiver.lab"`},
		{"https://:8443", "it names no host"},
		{"https://", "it names no host"},
		{"https://[fe80::1%eth0]:8443", `write the zone as "https://[fe80::1%25eth0]:8443"`},
		{"https://[fe80::1%3]:8443", `write the zone as "https://[fe80::1%253]:8443"`},
		{"https://receiver.lab:99999", "a port is between 1 and 65535"},
		{"https://receiver.lab:0", "a port is between 1 and 65535"},
		{"https://receiver.lab:x", "write https://NAME:PORT"},
		{"http://receiver.lab:8443", "write https://NAME:PORT"},
		{"https://receiver.lab:8443/v1", "write https://NAME:PORT"},
		{"https://lab@receiver.lab:8443", "write https://NAME:PORT"},
		{"https://receiver.lab:8443?x=1", "write https://NAME:PORT"},
		{"https://\x1b[2J", `\x1b`},
	} {
		_, err := wire.NewClient(wire.ClientConfig{URL: c.url, Host: "lab-01", Conns: 1})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, want %q", c.url, err, c.want)
		}
		if err != nil && strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%q: not printable: %q", c.url, err)
		}
	}
}

func TestAddressIsWhatTheClientDials(t *testing.T) {
	for url, want := range map[string]string{
		"https://receiver.lab:8443":      "receiver.lab:8443",
		"https://receiver.lab":           "receiver.lab:443",
		"https://[fd00::1]:8443/":        "[fd00::1]:8443",
		"https://[fe80::1%25eth0]:8443":  "[fe80::1%eth0]:8443",
		"receiver.lab:8443":              "",
		"https://receiver.lab:8443/v1/x": "",
	} {
		if got, err := wire.AddressOf(url); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", url, got, err, want)
		}
	}
}
