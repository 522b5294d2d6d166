package crashtest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"cis490/internal/crashtest"
	"cis490/internal/labtest"
)

// What make crash and make crash-short set: go test ./... cuts no power.
var (
	cuts  = flag.Int("cuts", 0, "power cuts for each kind of file system")
	tears = flag.Int("tears", 0, "power cuts of a tearing disk, for each kind of file system")
	seed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the moments and the sizes")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, ran, err := crashtest.Isolate()
	switch {
	case ran:
		os.Exit(code)
	case err != nil && !errors.Is(err, crashtest.ErrNotRoot):
		fmt.Fprintln(os.Stderr, "crashtest:", err)
		os.Exit(1)
	}
	labtest.Main(m)
}

// needMounts skips a test of make crash, or one that cannot mount. Under CI the latter is a failure.
func needMounts(t *testing.T) {
	t.Helper()
	if *cuts == 0 {
		t.Skip("run it with make crash-short")
	}
	if crashtest.Isolated() {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("power cuts need root and loop devices")
	}
	t.Skip("power cuts need root and loop devices")
}

func sha256Of(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
