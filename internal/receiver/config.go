package receiver

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"cis490/internal/admin"
	"cis490/internal/bucket"
	"cis490/internal/config"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/gate"
	"cis490/internal/logging"
	"cis490/internal/notify"
	"cis490/internal/pki"
	"cis490/internal/scrub"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// DefaultConfigFile is the default path of the receiver's configuration.
const DefaultConfigFile = "/etc/cis490/receiver.toml"

// Config is the receiver's configuration, receiver.toml. [DefaultConfig] has the values of
// keys that are missing. etc/receiver.toml.example explains each key to an operator.
type Config struct {
	Listen  string      `toml:"listen"`
	DataDir config.Path `toml:"data_dir"`
	// MinFree is the minimum free space. An upload that would leave less is refused before
	// its body.
	MinFree config.Bytes `toml:"min_free"`
	// MinFreeInodes is the same for inodes, but at most an eighth of those of the file system.
	// It does not apply to file systems that create inodes on demand.
	MinFreeInodes int64 `toml:"min_free_inodes"`
	// IdentityDir has the issuing CA, invitations, and what is known of hosts. Its default is
	// that of [pki.IdentityDir]. Empty means that no host can join, and nothing is recorded.
	IdentityDir config.Path `toml:"identity_dir"`
	// LogFormat is the format of the daemon's log.
	LogFormat logging.Format `toml:"log_format"`
	// Store says where archives and the index are.
	Store  StoreConfig   `toml:"store"`
	TLS    TLSConfig     `toml:"tls"`
	Auth   AuthConfig    `toml:"auth"`
	Proxy  ProxyConfig   `toml:"proxy"`
	Limits LimitsConfig  `toml:"limits"`
	Scrub  scrub.Config  `toml:"scrub"`
	Admin  admin.Config  `toml:"admin"`
	Hooks  notify.Config `toml:"hooks"`
	// Heartbeat calls a URL while an upload would be accepted.
	Heartbeat notify.HeartbeatConfig `toml:"heartbeat"`
}

// StoreConfig says where archives and their index are kept.
type StoreConfig struct {
	Kind StoreKind     `toml:"kind"`
	S3   bucket.Config `toml:"s3"` // with the kind s3
}

// StoreKind is a kind of store.
type StoreKind string

// The kinds of stores.
const (
	StoreOnDisk StoreKind = "disk" // in data_dir
	StoreOnS3   StoreKind = "s3"   // in a bucket that several receivers share; data_dir has a copy of the index
)

// validate returns what is wrong with each key.
func (c StoreConfig) validate() []error {
	switch c.Kind {
	case StoreOnDisk:
		return nil
	case StoreOnS3:
		return c.S3.Validate()
	}
	return []error{config.InvalidValue("store.kind", "must be %q or %q", StoreOnDisk, StoreOnS3)}
}

// TLSConfig names the files of the receiver's end of mutual TLS.
type TLSConfig struct {
	CertFile     config.Path `toml:"cert_file"`
	KeyFile      config.Path `toml:"key_file"`
	ClientCAFile config.Path `toml:"client_ca_file"`
	CRLFile      config.Path `toml:"crl_file"` // empty: nothing is revoked
}

// AuthConfig says how a host proves its identity.
type AuthConfig struct {
	TrustDomain string      `toml:"trust_domain"`
	TokensFile  config.Path `toml:"tokens_file"` // empty: a certificate is enough
}

// ProxyConfig lets a proxy on this machine forward requests, beside the receiver's own port.
// It is for a lab whose only open port is a proxy's.
type ProxyConfig struct {
	// Socket is a Unix socket that only the proxy can reach. On a port, every program of the
	// machine could claim any identity. Empty disables it.
	Socket config.Path `toml:"socket"`
	Header string      `toml:"header"` // the field that holds the caller's certificate
}

// LimitsConfig has the limits of senders.
type LimitsConfig struct {
	ArchiveBytes   config.Bytes    `toml:"archive_bytes"`    // of one archive
	HostBytes      config.Bytes    `toml:"host_bytes"`       // of all archives of one host; 0: unlimited
	Uploads        int             `toml:"uploads"`          // concurrent, of all hosts
	UploadsPerHost int             `toml:"uploads_per_host"` // concurrent, of one host
	IdleTimeout    config.Duration `toml:"idle_timeout"`     // without a byte of a body
	MinRate        config.Bytes    `toml:"min_rate"`         // of a body, per second, averaged over a minute
	UnfinishedAge  config.Duration `toml:"unfinished_age"`   // how long an interrupted upload is kept
}

// DefaultConfig returns the values of keys that are missing in the file.
func DefaultConfig() Config {
	return Config{
		Listen:        ":8443",
		DataDir:       "/var/lib/cis490",
		MinFree:       256 << 20,
		MinFreeInodes: 1024,
		LogFormat:     logging.Text,
		Store:         StoreConfig{Kind: StoreOnDisk, S3: bucket.DefaultConfig()},
		TLS: TLSConfig{
			CertFile:     "/etc/cis490/pki/server.crt",
			KeyFile:      "/etc/cis490/pki/server.key",
			ClientCAFile: "/etc/cis490/pki/hosts-ca.crt",
		},
		Auth:  AuthConfig{TrustDomain: pki.DefaultTrustDomain},
		Proxy: ProxyConfig{Header: "Client-Cert"},
		Limits: LimitsConfig{
			ArchiveBytes:   32 << 30,
			Uploads:        64,
			UploadsPerHost: 16,
			IdleTimeout:    config.Duration(30 * time.Second),
			MinRate:        8 << 10,
			UnfinishedAge:  config.Duration(7 * 24 * time.Hour),
		},
		Scrub: scrub.Config{Rate: 20 << 20, Interval: config.Duration(720 * time.Hour)},
		Admin: admin.Default("127.0.0.1:9490"),
		Hooks: notify.DefaultConfig(), Heartbeat: notify.DefaultHeartbeat(),
	}
}

// LoadConfig reads a configuration file over the defaults and checks it.
func LoadConfig(path string) (Config, error) {
	c := DefaultConfig()
	c.IdentityDir = config.Path(pki.IdentityDir(path))
	return config.LoadValid(path, c)
}

// BareSizes returns the sizes of a configuration file that have no unit, joined: see
// [config.LoadSizes]. The daemon logs a warning, and a check fails.
func BareSizes(path string) error {
	c := DefaultConfig()
	bare, err := config.LoadSizes(path, &c)
	return errors.Join(err, bare)
}

// Validate returns all errors of c.
func (c Config) Validate() error {
	var errs []error
	for _, need := range []struct{ key, value string }{
		{"listen", c.Listen},
		{"data_dir", string(c.DataDir)},
		{"tls.cert_file", string(c.TLS.CertFile)},
		{"tls.key_file", string(c.TLS.KeyFile)},
		{"tls.client_ca_file", string(c.TLS.ClientCAFile)},
		{"auth.trust_domain", c.Auth.TrustDomain},
	} {
		if need.value == "" {
			errs = append(errs, config.InvalidValue(need.key, "is missing"))
		}
	}
	if c.Proxy.Socket != "" && c.Proxy.Header == "" {
		errs = append(errs, config.InvalidValue("proxy.header", "is missing: name the field that holds the certificate"))
	}
	if c.Proxy.Socket != "" && string(c.Proxy.Socket) == c.Admin.SocketPath() {
		errs = append(errs, config.InvalidValue("admin.listen", "is the socket of the proxy: name another"))
	}
	if c.Limits.Uploads < 1 || c.Limits.UploadsPerHost < 1 {
		errs = append(errs, config.InvalidValue("limits", "uploads and uploads_per_host must be at least 1"))
	}
	if c.MinFreeInodes < 0 {
		errs = append(errs, config.InvalidValue("min_free_inodes", "must not be negative"))
	}
	if c.Limits.ArchiveBytes < 1 {
		errs = append(errs, config.InvalidValue("limits.archive_bytes", "must be above 0"))
	}
	if c.Limits.IdleTimeout.Std() < time.Second {
		errs = append(errs, config.InvalidValue("limits.idle_timeout", "must be at least 1s"))
	}
	if c.Limits.UnfinishedAge.Std() < time.Minute {
		errs = append(errs, config.InvalidValue("limits.unfinished_age", "must be at least 1m"))
	}
	errs = slices.Concat(errs, c.Store.validate(), c.Scrub.Validate(), c.Hooks.Validate(), c.Heartbeat.Validate())
	return errors.Join(append(errs, c.Admin.Validate()...)...)
}

// TrustConfig returns the configuration of [gate.Open].
func (c Config) TrustConfig() gate.Config {
	return gate.Config{
		CertFile:     string(c.TLS.CertFile),
		KeyFile:      string(c.TLS.KeyFile),
		ClientCAFile: string(c.TLS.ClientCAFile),
		CRLFile:      string(c.TLS.CRLFile),
		TrustDomain:  c.Auth.TrustDomain,
		TokensFile:   string(c.Auth.TokensFile),
		IdentityDir:  string(c.IdentityDir),
	}
}

// wireLimits returns the limits that hosts are told.
func (c Config) wireLimits() wire.Limits {
	return wire.Limits{
		MaxSize: int64(c.Limits.ArchiveBytes), Uploads: c.Limits.Uploads,
		UploadsPerHost: c.Limits.UploadsPerHost, UnfinishedAge: c.Limits.UnfinishedAge.Std(),
	}
}

// BackendConfig returns the configuration of [diskbackend.Open].
func (c Config) BackendConfig() diskbackend.Config {
	return diskbackend.Config{
		DataDir:        string(c.DataDir),
		MinFree:        int64(c.MinFree),
		MinFreeInodes:  c.MinFreeInodes,
		ArchiveBytes:   int64(c.Limits.ArchiveBytes),
		HostBytes:      int64(c.Limits.HostBytes),
		Uploads:        c.Limits.Uploads,
		UploadsPerHost: c.Limits.UploadsPerHost,
		UnfinishedAge:  c.Limits.UnfinishedAge.Std(),
		Scrub:          c.Scrub,
	}
}

// CheckMoves returns a [*ConfigError] if archives of some or all hosts cannot be stored in the
// data directory of c. Its directories may be on several mounts, or it may be a dangling link.
// CheckMoves changes nothing.
func (c Config) CheckMoves() error {
	data, err := durable.Open(string(c.DataDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // the start creates it, or reports the error
	}
	if _, dangling := errors.AsType[*durable.DanglingError](err); dangling {
		return &ConfigError{"data_dir", err}
	}
	if err != nil {
		return err
	}
	defer data.Close()
	err = store.CheckMoves(data)
	if errors.Is(err, store.ErrUnsuitable) {
		return &ConfigError{"data_dir", err}
	}
	return err
}

// ConfigError says that a start failed because of what a key of the configuration names. No
// other error of [New] can be corrected in the configuration.
type ConfigError struct {
	Key string
	Err error
}

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Err }
