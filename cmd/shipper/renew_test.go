package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// A failure of one kind is logged once, and does not hide one of another kind.
func TestRenewalLogsEachKindOfFailureOnce(t *testing.T) {
	dir := t.TempDir()
	cas := filepath.Join(dir, "pki")
	fixture.Must(t, ca.Init(cas, ca.InitOptions{Names: []string{"localhost"}}))
	_, err := ca.IssueHost(cas, "lab-07", dir, ca.IssueOptions{})
	fixture.Must(t, err)
	creds, err := credentials.Load(credentials.Config{
		CAFile: filepath.Join(dir, "ca.crt"), CertFile: filepath.Join(dir, "lab-07.crt"), KeyFile: filepath.Join(dir, "lab-07.key"),
	})
	fixture.Must(t, err)
	var lines bytes.Buffer
	r := &certificateRenewer{log: slog.New(slog.NewTextHandler(&lines, nil)), creds: creds}
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for range 3 {
		for _, err := range []error{
			refused,
			&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)},
			&fs.PathError{Op: "open", Path: "host-renewal.pem", Err: syscall.EROFS},
			fmt.Errorf("write: %w", &fs.PathError{Op: "write", Path: "host-renewal.pem", Err: syscall.ENOSPC}),
			wire.Refuse(wire.NotFound, "no such path"),
			errors.New("the receiver's answer is not usable"),
		} {
			r.logFailure(t.Context(), err, time.Time{})
		}
	}
	if n := strings.Count(lines.String(), "certificate not renewed"); n != 5 {
		t.Errorf("%d lines for 5 kinds of failures:\n%s", n, &lines)
	}
	for _, want := range []string{"connection refused", "ReadWritePaths=", "no space left", "upgrade the receiver", "not usable"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &lines)
		}
	}
}
