package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/pki"
	"cis490/internal/receiver"
)

// A stop ends the daemon with 0 whenever it comes; what was being recovered is
// there for the next start.
func TestStopDuringRecoveryIsNoFailure(t *testing.T) {
	dir := t.TempDir()
	if err := pki.InitCA(filepath.Join(dir, "pki"), pki.InitOptions{Names: []string{"localhost"}}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "receiver.toml")
	staged := filepath.Join(dir, "data", "staging", "lab-01", "run-1~nonce")
	stored := filepath.Join(dir, "data", "episodes", "lab-01", "run-1.tar.zst")
	config := "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n[tls]\n" +
		"cert_file = \"pki/server.crt\"\nkey_file = \"pki/server.key\"\nclient_ca_file = \"pki/hosts-ca.crt\"\n"
	if err := errors.Join(
		os.WriteFile(file, []byte(config), 0o644),
		os.MkdirAll(filepath.Dir(staged), 0o755), os.MkdirAll(filepath.Dir(stored), 0o755),
		os.WriteFile(staged, []byte("an archive"), 0o644), os.Link(staged, stored),
	); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	c := command()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs([]string{"--config", file})
	if err := c.ExecuteContext(ctx); err != nil {
		t.Errorf("got %v, want no error", err)
	}
	if _, err := os.Lstat(staged); err != nil {
		t.Errorf("the recovery was not interrupted: %v", err)
	}
}

func TestStartErrorsKeepTheirCodes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int // 0: it is not for startError to say
	}{
		"locked":    {fmt.Errorf("open: %w", &durable.LockedError{Path: "x"}), 0},
		"a fault":   {fmt.Errorf("sync: %w: %w", durable.ErrFault, syscall.EIO), 0},
		"full":      {fmt.Errorf("mkdir: %w", syscall.ENOSPC), 0},
		"no files":  {fmt.Errorf("open: %w", syscall.EMFILE), 0},
		"forbidden": {fmt.Errorf("open: %w", syscall.EACCES), cli.Misuse},
	} {
		got := startError(t.Context(), c.err, receiver.Config{}, "receiver.toml")
		code := 0
		if exit, ok := errors.AsType[*cli.Exit](got); ok {
			code = exit.Code
		}
		if code != c.code || !errors.Is(got, c.err) {
			t.Errorf("%s: got code %d of %v, want %d", name, code, got, c.code)
		}
	}
}
