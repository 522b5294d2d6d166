package admin

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"cis490/internal/config"
)

// Config is the table [admin] of a daemon's configuration.
type Config struct {
	// Listen is where metrics and health are served.
	Listen Address `toml:"listen"`
	// AllowRemote permits an address that other machines can reach. There is no authentication.
	AllowRemote bool `toml:"allow_remote"`
}

// Address is "HOST:PORT", "unix:/path", or "" for no listener.
type Address struct {
	text  string
	named bool // by the configuration file
}

// Default returns the configuration of a daemon whose file does not name an address.
func Default(listen string) Config { return Config{Listen: Address{text: listen}} }

// UnmarshalText parses an address of a configuration file.
func (a *Address) UnmarshalText(text []byte) error {
	parsed := Address{text: string(text), named: true}
	if err := parsed.validate(); err != nil {
		return err
	}
	*a = parsed
	return nil
}

func (a Address) String() string { return a.text }

// socketPath returns the path of a Unix socket, or "".
func (a Address) socketPath() string {
	path, _ := strings.CutPrefix(a.text, unixPrefix)
	if path == a.text {
		return ""
	}
	return path
}

const unixPrefix = "unix:"

func (a Address) validate() error {
	if a.text == "" {
		return nil
	}
	if path, isUnix := strings.CutPrefix(a.text, unixPrefix); isUnix {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%q needs an absolute path: write \"unix:/run/...\"", a.text)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(a.text)
	if err != nil {
		return fmt.Errorf("%q is not an address: write \"127.0.0.1:PORT\", \"unix:/path\", or \"\" for none", a.text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q needs a port between 0 and 65535", a.text)
	}
	return nil
}

// isLocal reports whether only programs on this machine can connect.
func (a Address) isLocal() bool {
	if a.text == "" || a.socketPath() != "" {
		return true
	}
	host, _, _ := net.SplitHostPort(a.text)
	return config.IsLoopback(host)
}

// Validate returns what is wrong with c.
func (c Config) Validate() []error {
	if !c.AllowRemote && !c.Listen.isLocal() {
		return []error{config.InvalidValue("admin.listen", "%q can be reached from other machines, and metrics need no password: "+
			"use 127.0.0.1, \"unix:/path\" or \"\", or set admin.allow_remote = true", c.Listen.text)}
	}
	return nil
}

// ListenError says that the address that a configuration file names cannot be used.
type ListenError struct {
	Address Address
	Err     error
}

func (e *ListenError) Error() string {
	hint := "name another address, or \"\" for none"
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		hint = "another program listens there: " + hint
	case errors.Is(e.Err, syscall.EACCES) && e.Address.socketPath() == "":
		hint = "only root can use ports below 1024: " + hint
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		hint = "no interface has that address: " + hint
	}
	return fmt.Sprintf("admin.listen: %v; %s", e.Err, hint)
}

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }
