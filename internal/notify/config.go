package notify

import (
	"time"

	"cis490/internal/config"
)

// Config is the table [hooks] of a receiver's configuration.
type Config struct {
	Events []Type `toml:"events"`
	// URLFile and SecretFile have the URL of the webhook and the secret that signs its requests.
	URLFile    config.Path `toml:"url_file"`
	SecretFile config.Path `toml:"secret_file"`
	// QueueDir is the queue of 'receiver hooks run'. Empty means none.
	QueueDir config.Path `toml:"queue_dir"`
}

// DefaultConfig returns a configuration without hooks.
func DefaultConfig() Config { return Config{Events: Types()} }

// IsEnabled reports whether there is a webhook or a command.
func (c Config) IsEnabled() bool { return c.URLFile != "" || c.QueueDir != "" }

// SecretFiles returns the files of the webhook, which only the daemon and root should read.
func (c Config) SecretFiles() []string { return []string{string(c.URLFile), string(c.SecretFile)} }

// Validate returns what is wrong with each key of c.
func (c Config) Validate() []error {
	var errs []error
	if c.URLFile != "" && c.SecretFile == "" {
		errs = append(errs, config.InvalidValue("hooks.secret_file", "is missing: each request of the webhook is signed"))
	}
	if c.URLFile == "" && c.SecretFile != "" {
		errs = append(errs, config.InvalidValue("hooks.url_file", "is missing, and hooks.secret_file is not used without it"))
	}
	if c.IsEnabled() && len(c.Events) == 0 {
		errs = append(errs, config.InvalidValue("hooks.events", "is empty: name at least one event"))
	}
	return errs
}

// HeartbeatConfig is the table [heartbeat] of both configurations.
type HeartbeatConfig struct {
	URLFile  config.Path     `toml:"url_file"` // empty: no heartbeat
	Interval config.Duration `toml:"interval"`
}

// DefaultHeartbeat returns a configuration without a heartbeat.
func DefaultHeartbeat() HeartbeatConfig {
	return HeartbeatConfig{Interval: config.Duration(5 * time.Minute)}
}

// Validate returns what is wrong with each key of c.
func (c HeartbeatConfig) Validate() []error {
	if c.Interval.Std() < time.Minute {
		return []error{config.InvalidValue("heartbeat.interval", "must be at least 1m")}
	}
	return nil
}
