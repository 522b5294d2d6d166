package diskbackend_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// childDataDir makes the test binary a program that stores one archive in a data directory and prints its result.
const childDataDir = "BACKEND_TEST_DATA_DIR"

func TestMain(m *testing.M) {
	if path := os.Getenv(childDataDir); path != "" {
		fmt.Println(runChild(context.Background(), path))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runChild(ctx context.Context, path string) error {
	data, err := durable.Create(path)
	if err != nil {
		return err
	}
	c := diskbackend.Config{DataDir: path, ArchiveBytes: 1 << 20, Uploads: 1, UploadsPerHost: 1}
	b, err := diskbackend.Open(ctx, data, c, silent{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := b.Recover(ctx, nil); err != nil {
		return err
	}
	content := fixture.Noise(1000, 1)
	_, err = b.Put(ctx, uploadOf(key("h", "e"), content), bytes.NewReader(content))
	return err
}

// TestFailedSyncOfTheNameLeavesTheDebt makes the sync between the name and the row fail. The
// archive may have its name then; the staging name must tell the next start that a row is
// missing.
func TestFailedSyncOfTheNameLeavesTheDebt(t *testing.T) {
	strace := fixture.RequireTool(t, "strace")
	l := newLab(t, nil)
	l.WantReceipt(key("h", "first"), fixture.Noise(10, 2), wire.Stored)
	l.restart(func() {
		c := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-P", filepath.Join(l.Data, "episodes", "h"),
			"-e", "trace=fsync", "-e", "inject=fsync:error=EIO", os.Args[0])
		c.Env = append(os.Environ(), childDataDir+"="+l.Data)
		out, err := c.CombinedOutput()
		fixture.Must(t, err)
		if !strings.Contains(string(out), "storage fault") {
			t.Skipf("strace injected nothing: %s", out)
		}
		if _, err := os.Stat(l.StoredPath(key("h", "e"))); err != nil {
			t.Skip("the name does not stand")
		}
	})
	l.WantReceipt(key("h", "e"), fixture.Noise(1000, 1), wire.AlreadyPresent)
	l.WantConsistent(2)
}
