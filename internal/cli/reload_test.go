package cli_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/fixture"
)

// manager is the service manager's end of the notify socket.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	fixture.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func heard(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	fixture.Must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	fixture.Must(t, err)
	return string(b[:n])
}

// TestFailedReloadStaysInTheStatus until a reload succeeds: an operator who revoked a host must
// learn that the receiver has not loaded it.
func TestFailedReloadStaysInTheStatus(t *testing.T) {
	conn := manager(t)
	var log bytes.Buffer
	failure := errors.New("hosts.crl: not a list")
	r := &cli.Reloader{
		Log: slog.New(slog.NewTextHandler(&log, nil)), Files: []string{"a.crt", "hosts.crl"}, Config: "x.toml",
		Load: func() error { return failure },
	}
	reload := func() {
		hup := make(chan os.Signal, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.Run(ctx, hup) }()
		hup <- os.Interrupt
		if got := heard(t, conn); !strings.HasPrefix(got, "RELOADING=1") {
			t.Errorf("the manager heard %q first", got)
		}
		if got := heard(t, conn); !strings.HasPrefix(got, "READY=1") || strings.Contains(got, "hosts.crl: not a list") != (failure != nil) {
			t.Errorf("the manager heard %q in the end", got)
		}
		cancel()
		<-ended
	}
	reload()
	r.NotifyStatus("3 waiting")
	if got := heard(t, conn); !strings.Contains(got, "3 waiting; last reload failed: hosts.crl: not a list") {
		t.Errorf("the status is %q", got)
	}
	if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "hosts.crl: not a list") {
		t.Errorf("the log has %s", text)
	}
	r.ClearFailure() // the files were loaded without a reload
	r.NotifyStatus("3 waiting")
	if got := heard(t, conn); strings.Contains(got, "failed") {
		t.Errorf("after it recovered the status is %q", got)
	}
	failure = nil
	log.Reset()
	reload()
	r.NotifyStatus("3 waiting")
	if got := heard(t, conn); strings.Contains(got, "failed") {
		t.Errorf("the status is %q", got)
	}
	if text := log.String(); !strings.Contains(text, `files="a.crt hosts.crl"`) || !strings.Contains(text, `"x.toml (read at start only)"`) {
		t.Errorf("the log has %s", text)
	}
}

// TestCheckBeforeAReloadReadsTheDaemonsConfiguration, even if the unit was changed since.
func TestCheckBeforeAReloadReadsTheDaemonsConfiguration(t *testing.T) {
	used := func(flags ...string) string {
		c := &cobra.Command{Use: "prog"}
		file := ""
		c.Flags().StringVar(&file, "config", "default", "")
		fixture.Must(t, c.ParseFlags(flags))
		cli.UseConfigOfDaemon(c, &file)
		return file
	}
	t.Setenv("RUNTIME_DIRECTORY", "")
	if err := cli.NoteConfig("/a/b.toml"); err != nil || used() != "default" {
		t.Errorf("without a runtime directory: %s, %v", used(), err)
	}
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	if used() != "default" {
		t.Errorf("without a note: %s", used())
	}
	if err := cli.NoteConfig("/a/b.toml"); err != nil || used() != "/a/b.toml" || used("--config", "mine") != "mine" {
		t.Errorf("with a note: %s, %s, %v", used(), used("--config", "mine"), err)
	}
}
