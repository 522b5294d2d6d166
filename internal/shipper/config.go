package shipper

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cis490/internal/admin"
	"cis490/internal/archive"
	"cis490/internal/backlog"
	"cis490/internal/bandwidth"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/logging"
	"cis490/internal/notify"
	"cis490/internal/pki"
	"cis490/internal/settling"
	"cis490/internal/shipped"
)

// DefaultConfigFile is the default path of the configuration.
const DefaultConfigFile = "/etc/cis490/lab-host.toml"

// Config is the shipper's configuration, lab-host.toml. [DefaultConfig] returns the defaults, and
// etc/lab-host.toml.example explains each key to an operator.
type Config struct {
	HostID      episode.Name `toml:"host_id"`
	EpisodesDir config.Path  `toml:"episodes_dir"`
	OutboxDir   config.Path  `toml:"outbox_dir"`
	ShippedDir  config.Path  `toml:"shipped_dir"`
	// IdentityDir has the certificate that the host got when it joined. Its default is that of
	// [pki.IdentityDir]. Empty means that only the configured certificate is used.
	IdentityDir  config.Path     `toml:"identity_dir"`
	ScanInterval config.Duration `toml:"scan_interval"`
	// ReportInterval is how often the daemon reports the state of the host to the receiver. 0 disables
	// reports.
	ReportInterval config.Duration `toml:"report_interval"`
	// Settle is for how long nothing in a finished episode must have changed before it is packed. It
	// counts ten times if the marker seems to have arrived before the rest. 0 packs at once.
	Settle config.Duration `toml:"settle"`
	// MinFree is kept free on the disk for the experiments. Nothing is packed below it.
	MinFree config.Bytes `toml:"min_free"`
	// OutboxMax is the maximum number of bytes that wait in the outbox, without those that are held. 0
	// leaves only MinFree as the limit.
	OutboxMax config.Bytes `toml:"outbox_max"`
	// LowSpaceFile exists while packing waits for space, for the experiment queue to watch. Empty
	// disables it.
	LowSpaceFile config.Path `toml:"low_space_file"`
	// Packers is the maximum number of episodes that are packed at once. Half of them, and at least
	// one, may be large.
	Packers int `toml:"packers"`
	// Senders is the maximum number of episodes that are sent at once. At most half of them, and at
	// most [maxLargeSends], are large.
	Senders int   `toml:"senders"`
	Order   Order `toml:"order"` // in which waiting episodes are packed and sent
	// BandwidthLimit is the maximum number of bytes that are sent per second, by the time of day.
	BandwidthLimit bandwidth.Timetable `toml:"bandwidth_limit"`
	Receiver       ReceiverConfig      `toml:"receiver"`
	Limits         LimitsConfig        `toml:"limits"`
	// Retention deletes retired episodes; off by default.
	Retention shipped.RetentionConfig `toml:"retention"`
	// MetricsFile is where a single pass writes metrics, for the textfile collector of node_exporter.
	// Empty disables it.
	MetricsFile config.Path `toml:"metrics_file"`
	// LogFormat is the format of the logs of the daemon and of the commands.
	LogFormat logging.Format `toml:"log_format"`
	Admin     admin.Config   `toml:"admin"`
	// Heartbeat calls a URL while episodes can be sent.
	Heartbeat notify.HeartbeatConfig `toml:"heartbeat"`
}

// ReceiverConfig locates the receiver, and names this host's credentials.
type ReceiverConfig struct {
	URL       string      `toml:"url"`
	CAFile    config.Path `toml:"ca_file"`
	CertFile  config.Path `toml:"cert_file"`
	KeyFile   config.Path `toml:"key_file"`
	TokenFile config.Path `toml:"token_file"` // empty disables it
}

// minBandwidth is the minimum rate of one sender, in bytes per second: a receiver ends uploads that
// are slower than its min_rate.
const minBandwidth = 16 << 10

// Limits of report_interval. A change is reported no sooner than MinReportInterval after the last
// report.
const (
	MinReportInterval = 30 * time.Second
	maxReportInterval = 24 * time.Hour
)

// LimitsConfig limits one episode. A larger one is held.
type LimitsConfig struct {
	EpisodeBytes   config.Bytes `toml:"episode_bytes"`
	EpisodeEntries int          `toml:"episode_entries"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	limits := archive.DefaultLimits()
	return Config{
		EpisodesDir:    "/var/lib/cis490/data/episodes",
		OutboxDir:      "/var/lib/cis490/data/outbox",
		ShippedDir:     "/var/lib/cis490/data/shipped",
		ScanInterval:   config.Duration(30 * time.Second),
		ReportInterval: config.Duration(5 * time.Minute),
		Settle:         config.Duration(time.Second),
		MinFree:        256 << 20,
		Packers:        2,
		Senders:        16,
		Order:          Oldest,
		LogFormat:      logging.Text,
		Receiver:       ReceiverConfig{CAFile: "/etc/cis490/pki/ca.crt"},
		Admin:          admin.Default("127.0.0.1:9491"),
		Heartbeat:      notify.DefaultHeartbeat(),
		Limits:         LimitsConfig{EpisodeBytes: config.Bytes(limits.Bytes), EpisodeEntries: limits.Entries},
	}
}

// LoadConfig reads a configuration file over the defaults and validates it.
func LoadConfig(path string) (Config, error) {
	return config.LoadValid(path, defaultsFor(path))
}

// LoadForJoin is [LoadConfig] for a host that may have no certificate yet.
func LoadForJoin(path string) (Config, error) {
	c, err := config.LoadValid(path, joining(defaultsFor(path)))
	return Config(c), err
}

// defaultsFor returns the defaults for a configuration file.
func defaultsFor(path string) Config {
	c := DefaultConfig()
	c.IdentityDir = config.Path(pki.IdentityDir(path))
	return c
}

// joining is a configuration that is valid without a certificate.
type joining Config

// Validate returns everything that is wrong with c.
func (c joining) Validate() error { return errors.Join(Config(c).validate()...) }

// DirsConfig returns the configuration of the directories.
func (c Config) DirsConfig() hostdir.Config {
	limits := archive.DefaultLimits()
	limits.Bytes, limits.Entries = int64(c.Limits.EpisodeBytes), c.Limits.EpisodeEntries
	return hostdir.Config{
		Episodes: c.EpisodesDir, Outbox: c.OutboxDir, Shipped: c.ShippedDir,
		Limits: limits, Prunes: c.Retention.IsEnabled(),
	}
}

// Backlog returns the configuration of what a status and a report read.
func (c Config) Backlog() backlog.Config {
	return backlog.Config{Host: c.HostID, Dirs: c.DirsConfig(), Settle: c.Settle.Std(), MinFree: int64(c.MinFree)}
}

// BareSizes returns an error that joins the sizes without a unit in a configuration file: see
// [config.LoadSizes]. A daemon warns of them, and a check fails.
func BareSizes(path string) error {
	c := DefaultConfig()
	bare, err := config.LoadSizes(path, &c)
	return errors.Join(err, bare, c.BandwidthLimit.CheckUnits(path))
}

// isWithin reports whether two paths are equal, or one is within the other.
func isWithin(a, b config.Path) bool {
	x, y := filepath.Clean(string(a))+"/", filepath.Clean(string(b))+"/"
	return strings.HasPrefix(x, y) || strings.HasPrefix(y, x)
}

// Validate returns everything that is wrong with c.
func (c Config) Validate() error {
	errs := c.validate()
	r := c.Receiver
	if r.CertFile == "" && r.KeyFile == "" && credentials.MayHaveJoined(string(c.IdentityDir)) {
		return errors.Join(errs...)
	}
	if r.CertFile == "" {
		errs = append(errs, config.InvalidValue("receiver.cert_file", "is missing: run 'shipper join TOKEN', or name this host's certificate"))
	}
	if r.KeyFile == "" {
		errs = append(errs, config.InvalidValue("receiver.key_file", "is missing"))
	}
	return errors.Join(errs...)
}

// validate returns everything that is wrong with c, except certificate and key.
func (c Config) validate() []error {
	var errs []error
	needs := func(key, value string) {
		if value == "" {
			errs = append(errs, config.InvalidValue(key, "is missing"))
		}
	}
	needs("host_id", string(c.HostID))
	needs("episodes_dir", string(c.EpisodesDir))
	needs("outbox_dir", string(c.OutboxDir))
	needs("shipped_dir", string(c.ShippedDir))
	needs("receiver.url", c.Receiver.URL)
	needs("receiver.ca_file", string(c.Receiver.CAFile))
	if isWithin(c.EpisodesDir, c.ShippedDir) || isWithin(c.EpisodesDir, c.OutboxDir) || isWithin(c.OutboxDir, c.ShippedDir) {
		errs = append(errs, config.InvalidValue("episodes_dir", "outbox_dir and shipped_dir must be three folders, none within another"))
	}
	if c.ScanInterval.Std() < time.Second {
		errs = append(errs, config.InvalidValue("scan_interval", "must be at least 1s"))
	}
	if interval := c.ReportInterval.Std(); interval != 0 && (interval < MinReportInterval || interval > maxReportInterval) {
		errs = append(errs, config.InvalidValue("report_interval", "must be between 30s and 24h, or 0s for none"))
	}
	if settle := c.Settle.Std(); settle < 0 || settle > settling.MaxTime {
		errs = append(errs, config.InvalidValue("settle", "must be between 0s and 1h"))
	}
	for key, n := range map[string]int{"packers": c.Packers, "senders": c.Senders} {
		if n < 1 || n > 64 {
			errs = append(errs, config.InvalidValue(key, "must be between 1 and 64"))
		}
	}
	if lowest := c.BandwidthLimit.LowestLimit(); lowest > 0 && lowest < minBandwidth*config.Bytes(c.Senders) {
		errs = append(errs, config.InvalidValue("bandwidth_limit",
			"must be at least 16KiB for each of the senders, or the receiver takes them for stalled; lower senders, or raise it"))
	}
	if c.Retention.MaxAge < 0 || c.Retention.MaxBytes < 0 || c.Retention.MinFree < 0 {
		errs = append(errs, config.InvalidValue("retention", "must not be negative"))
	}
	if c.Limits.EpisodeBytes < 1 || c.Limits.EpisodeEntries < 1 {
		errs = append(errs, config.InvalidValue("limits", "must be above 0"))
	}
	if c.MetricsFile != "" && filepath.Ext(string(c.MetricsFile)) != ".prom" {
		errs = append(errs, config.InvalidValue("metrics_file", "must end in .prom: node_exporter reads only such files, and the shipper replaces the file"))
	}
	return slices.Concat(errs, c.Admin.Validate(), c.Heartbeat.Validate())
}
