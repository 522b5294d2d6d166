package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
)

// TestRecoveryExtendsItsTimeoutByProgress: in each 15 seconds in which bytes arrive, and not
// otherwise.
func TestRecoveryExtendsItsTimeoutByProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	fixture.Must(t, err)
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	synctest.Test(t, func(t *testing.T) {
		p := &recoveryProgress{log: slog.New(slog.DiscardHandler)}
		for range 40 {
			p.addBytes(1 << 20)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
	})
	var heard []string
	fixture.Must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	buf := make([]byte, 4096)
	for range 4 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("heard %q, then %v", heard, err)
		}
		heard = append(heard, string(buf[:n]))
	}
	want := []string{
		"EXTEND_TIMEOUT_USEC=600000000", "STATUS=recovering interrupted uploads, read 16 MiB",
		"EXTEND_TIMEOUT_USEC=600000000", "STATUS=recovering interrupted uploads, read 31 MiB",
	}
	if !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	conn.SetReadDeadline(time.Unix(1, 0))
	if n, err := conn.Read(buf); err == nil {
		t.Errorf("and %q", buf[:n])
	}
}
