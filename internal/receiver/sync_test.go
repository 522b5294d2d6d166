package receiver_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/receiver"
	"cis490/internal/wire"
)

// childConfig makes the test binary a receiver that accepts one upload and prints its result.
const childConfig = "RECEIVER_TEST_CONFIG"

func TestMain(m *testing.M) {
	if path := os.Getenv(childConfig); path != "" {
		fmt.Println(runChild(path))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runChild(path string) error {
	cfg, err := receiver.LoadConfig(path)
	if err != nil {
		return err
	}
	r, err := receiver.OpenGateAndNew(context.Background(), cfg, "test", "child", discard())
	if err != nil {
		return err
	}
	content := fixture.Noise(1000, 1)
	_, err = r.Backend().Put(context.Background(), uploadOf(key("h", "e"), content), bytes.NewReader(content))
	return err
}

// TestFailedSyncOfTheNameLeavesTheDebt makes the sync between the name and the row fail. The
// archive may have its name then; the staging name must tell the next start that a row is
// missing.
func TestFailedSyncOfTheNameLeavesTheDebt(t *testing.T) {
	strace := fixture.RequireTool(t, "strace")
	l := newLab(t, nil)
	l.wantReceipt(key("h", "first"), fixture.Noise(10, 2), wire.Stored)
	l.restart(func() {
		config := filepath.Join(l.pki, "receiver.toml")
		fixture.Must(t, os.WriteFile(config, fmt.Appendf(nil,
			"data_dir = %q\nmin_free = \"0\"\n[tls]\ncert_file = %q\nkey_file = %q\nclient_ca_file = %q\n",
			l.data, l.cfg.TLS.CertFile, l.cfg.TLS.KeyFile, l.cfg.TLS.ClientCAFile), 0o600))
		c := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-P", filepath.Join(l.data, "episodes", "h"),
			"-e", "trace=fsync", "-e", "inject=fsync:error=EIO", os.Args[0])
		c.Env = append(os.Environ(), childConfig+"="+config)
		out, err := c.CombinedOutput()
		fixture.Must(t, err)
		if !strings.Contains(string(out), "storage fault") {
			t.Skipf("strace injected nothing: %s", out)
		}
		if _, err := os.Stat(l.storedPath(key("h", "e"))); err != nil {
			t.Skip("the name does not stand")
		}
	})
	l.wantReceipt(key("h", "e"), fixture.Noise(1000, 1), wire.AlreadyPresent)
	l.wantConsistent(2)
}
