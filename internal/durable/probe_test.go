package durable_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
)

func TestCheckingLinksLeavesNothing(t *testing.T) {
	d, path := openTemp(t)
	fixture.Must(t, d.CheckLinks())
	wantEntries(t, path)
}

// TestCheckingLinksOpensNothingThatIsExchangedForIt: another user sees the file appear and
// replaces it by a link.
func TestCheckingLinksOpensNothingThatIsExchangedForIt(t *testing.T) {
	d, path := openTemp(t)
	precious, evil := filepath.Join(t.TempDir(), "precious"), filepath.Join(path, "evil")
	writeFile(t, precious, "precious")
	stop, ended := make(chan struct{}), make(chan int, 1)
	go func() {
		exchanged := 0
		for {
			select {
			case <-stop:
				ended <- exchanged
				return
			default:
			}
			os.Symlink(precious, evil)
			names, _ := os.ReadDir(path)
			for _, e := range names {
				if strings.HasPrefix(e.Name(), ".cis490-probe.") &&
					unix.Renameat2(unix.AT_FDCWD, evil, unix.AT_FDCWD, filepath.Join(path, e.Name()), unix.RENAME_EXCHANGE) == nil {
					exchanged++
				}
			}
		}
	}()
	for range 5000 {
		fixture.Must(t, d.CheckLinks())
	}
	close(stop)
	t.Logf("exchanged %d times", <-ended)
	info, err := os.Stat(precious)
	fixture.Must(t, err)
	if got := fixture.ReadFile(t, precious); got != "precious" || info.Mode() != 0o600 {
		t.Errorf("what the link led to says %q, with mode %v", got, info.Mode())
	}
}
