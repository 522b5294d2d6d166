package receiver_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/receiver"
)

// TestReadyIsRefusedWhenAnUploadWouldBe: a load balancer or a monitor must not take the receiver for one that works.
func TestReadyIsRefusedWhenAnUploadWouldBe(t *testing.T) {
	t.Run("storage fault", func(t *testing.T) {
		l := newReadyLab(t)
		_ = l.b.HandleFault(fmt.Errorf("sync: %w", durable.ErrFault))
		l.wantNotReady()
	})
	t.Run("list of disabled hosts", func(t *testing.T) {
		l := newReadyLab(t)
		fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "disabled-hosts.json"), nil, 0o640))
		if err := l.wantNotReady(); !errors.Is(err, datadir.ErrDisabledList) {
			t.Errorf("got %v, want %v", err, datadir.ErrDisabledList)
		}
	})
	t.Run("full disk", func(t *testing.T) {
		l := newLab(t, func(c *receiver.Config) { c.MinFree = config.Bytes(1 << 60) })
		l.wantNotReady()
	})
	for what, issued := range map[string]time.Time{"expired": time.Now().Add(-48 * time.Hour), "not yet valid": time.Now().Add(48 * time.Hour)} {
		t.Run("certificate "+what, func(t *testing.T) {
			l := newLab(t, func(c *receiver.Config) {
				dir := t.TempDir()
				fixture.Must(t, ca.Init(dir, ca.InitOptions{Names: []string{"127.0.0.1"}, Now: issued, LeafValid: 24 * time.Hour}))
				c.TLS.CertFile, c.TLS.KeyFile = config.Path(filepath.Join(dir, "server.crt")), config.Path(filepath.Join(dir, "server.key"))
			})
			if err := l.wantNotReady(); err != nil && !strings.Contains(err.Error(), "certificate") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("stop", func(t *testing.T) {
		l := newReadyLab(t)
		fixture.Must(t, l.r.Close())
		l.wantNotReady()
	})
	forEachStoreMove(t, func(l *lab, move func()) {
		move()
		l.wantNotReady()
	})
}

// newReadyLab returns a receiver that is ready.
func newReadyLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t, nil)
	fixture.Must(t, l.r.Ready(t.Context()))
	return l
}

func (l *lab) wantNotReady() error {
	l.Helper()
	err := l.r.Ready(l.Context())
	if err == nil {
		l.Error("it is ready")
	}
	return err
}
