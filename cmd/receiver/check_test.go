package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/receiver"
)

// If check finds nothing wrong, the daemon must be able to start.
func TestCheckFindsWhatKeepsTheDaemonFromStarting(t *testing.T) {
	dir := t.TempDir()
	fixture.Must(t, ca.Init(filepath.Join(dir, "pki"), ca.InitOptions{Names: []string{"localhost"}}))
	file := filepath.Join(dir, "receiver.toml")
	text := `data_dir = "data"
[tls]
cert_file      = "pki/server.crt"
key_file       = "pki/server.key"
client_ca_file = "pki/hosts-ca.crt"
`
	fixture.Must(t, os.WriteFile(file, []byte(text), 0o600))
	c, err := receiver.LoadConfig(file)
	fixture.Must(t, err)
	good, err := checkConfig(file, c, time.Now())
	if err != nil {
		t.Fatalf("a receiver that could start: %v", err)
	}
	if _, err := os.Stat(string(c.DataDir)); !os.IsNotExist(err) {
		t.Errorf("check made the data folder: %v", err)
	}
	if _, err := checkConfig(file, c, time.Unix(0, 0)); err == nil {
		t.Error("a clock from 1970 was found good")
	}
	if _, err := checkConfig(file, c, good.CertNotAfter.Add(time.Second)); err == nil {
		t.Error("a certificate that has ended was found good")
	}
	fixture.Must(t, os.WriteFile(string(c.DataDir), nil, 0o600))
	if _, err := checkConfig(file, c, time.Now()); err == nil {
		t.Error("a data_dir that is a file was found good")
	}
	fixture.Must(t, os.Remove(string(c.TLS.KeyFile)))
	if _, err := checkConfig(file, c, time.Now()); err == nil {
		t.Error("a missing key was found good")
	}
}
