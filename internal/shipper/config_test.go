package shipper_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/shipper"
)

func TestTheDefaultsNeedOnlyWhoAndWhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lab-host.toml")
	const least = "host_id = \"lab-01\"\n[receiver]\nurl = \"https://r:1\"\ncert_file = \"c.crt\"\nkey_file = \"c.key\"\n"
	fixture.Must(t, os.WriteFile(file, []byte(least), 0o600))
	c, err := shipper.LoadConfig(file)
	fixture.Must(t, err)
	// A receiver serves 16 uploads of one host, and queues as many.
	if c.ScanInterval.Std() != 30*time.Second || c.Senders < 2 || c.Senders > 2*16 || c.Packers < 1 || c.MinFree < 1 {
		t.Errorf("got %+v", c)
	}
	if want := filepath.Join(filepath.Dir(file), "c.crt"); string(c.Receiver.CertFile) != want {
		t.Errorf("a relative path is %s, want %s", c.Receiver.CertFile, want)
	}
}

func TestAWrongValueIsNamed(t *testing.T) {
	for key, spoil := range map[string]func(*shipper.Config){
		"host_id":            func(c *shipper.Config) { c.HostID = "" },
		"episodes_dir":       func(c *shipper.Config) { c.EpisodesDir = c.OutboxDir },
		"outbox_dir":         func(c *shipper.Config) { c.OutboxDir = "" },
		"shipped_dir":        func(c *shipper.Config) { c.ShippedDir = "" },
		"scan_interval":      func(c *shipper.Config) { c.ScanInterval = 0 },
		"bandwidth_limit":    func(c *shipper.Config) { c.BandwidthLimit = "08:00 off, 09:00 255KiB" },
		"packers":            func(c *shipper.Config) { c.Packers = 0 },
		"senders":            func(c *shipper.Config) { c.Senders = 65 },
		"limits":             func(c *shipper.Config) { c.Limits.EpisodeBytes = 0 },
		"receiver.url":       func(c *shipper.Config) { c.Receiver.URL = "" },
		"receiver.ca_file":   func(c *shipper.Config) { c.Receiver.CAFile = "" },
		"receiver.cert_file": func(c *shipper.Config) { c.Receiver.CertFile = "" },
		"receiver.key_file":  func(c *shipper.Config) { c.Receiver.KeyFile = "" },
	} {
		c := shipper.DefaultConfig()
		c.HostID, c.Receiver.URL, c.Receiver.CertFile, c.Receiver.KeyFile = host, "https://r:1", "c", "k"
		c.BandwidthLimit = "256KiB" // the minimum for this number of senders
		if err := c.Validate(); err != nil {
			t.Fatalf("before: %v", err)
		}
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v", key, err)
		}
	}
}
