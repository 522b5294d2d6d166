package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/ca"
	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/receiver"
)

// A stop ends the daemon with 0 at any time. The next start continues the recovery.
func TestStopDuringRecoveryIsNoFailure(t *testing.T) {
	dir := t.TempDir()
	fixture.Must(t, ca.Init(filepath.Join(dir, "pki"), ca.InitOptions{Names: []string{"localhost"}}))
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
	c := newRootCommand()
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
		code int // 0: startError does not decide
	}{
		"locked":           {fmt.Errorf("open: %w", &durable.LockedError{Path: "x"}), 0},
		"a fault":          {fmt.Errorf("sync: %w: %w", durable.ErrFault, syscall.EIO), 0},
		"a fault of data":  {&receiver.ConfigError{Key: "data_dir", Err: fmt.Errorf("sync: %w", durable.ErrFault)}, 0},
		"a bad sector":     {fmt.Errorf("read: %w", syscall.EIO), cli.StorageFault},
		"full":             {fmt.Errorf("mkdir: %w", syscall.ENOSPC), 0},
		"no files":         {fmt.Errorf("open: %w", syscall.EMFILE), 0},
		"forbidden":        {fmt.Errorf("open: %w", syscall.EACCES), cli.Misuse},
		"no data_dir":      {&receiver.ConfigError{Key: "data_dir", Err: syscall.ENOTDIR}, cli.Misuse},
		"a broken index":   {errors.New("index.jsonl is no file"), 0},
		"recovery, others": {fmt.Errorf("recover: %w", syscall.EBADF), 0},
	} {
		got := startError(t.Context(), c.err, "receiver.toml")
		code := 0
		if exit, ok := errors.AsType[*cli.ExitError](got); ok {
			code = exit.Code
		}
		if code != c.code || !errors.Is(got, c.err) {
			t.Errorf("%s: got code %d of %v, want %d", name, code, got, c.code)
		}
		if advises := strings.Contains(got.Error(), "receiver.toml"); advises != (c.code == cli.Misuse) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A certificate that cannot be read because of a disk error is not an invalid one.
func TestTrustErrorsKeepTheirCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{syscall.EIO, cli.StorageFault}, {syscall.EMFILE, 0}, {errors.New("no PEM"), cli.Misuse}, {syscall.EACCES, cli.Misuse},
	} {
		code := 0
		got := trustError(&fs.PathError{Op: "open", Path: "server.crt", Err: c.err}, receiver.Config{}, "receiver.toml")
		if exit, ok := errors.AsType[*cli.ExitError](got); ok {
			code = exit.Code
		}
		if code != c.code {
			t.Errorf("%v: got code %d of %v, want %d", c.err, code, got, c.code)
		}
	}
}

// An address that the machine cannot assign now is not a misspelled one.
func TestListenErrorsKeepTheirCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{syscall.EADDRINUSE, 0},
		{syscall.EADDRNOTAVAIL, 0},
		{syscall.EMFILE, 0},
		{syscall.ENOBUFS, 0},
		{&net.DNSError{Err: "timeout"}, 0},
		{syscall.EACCES, cli.Misuse},
		{&net.AddrError{Err: "missing port in address"}, cli.Misuse},
	} {
		code := 0
		if exit, ok := errors.AsType[*cli.ExitError](listenError(&net.OpError{Op: "listen", Err: c.err})); ok {
			code = exit.Code
		}
		if code != c.code {
			t.Errorf("%v: got code %d, want %d", c.err, code, c.code)
		}
	}
}
