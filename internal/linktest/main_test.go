package linktest_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"cis490/internal/crashtest"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
	"cis490/internal/linktest"
)

// runAll is set by make links: one of the tests waits until the kernel gives a connection up.
var runAll = flag.Bool("all", false, "run them, which takes two minutes")

// TestMain runs the tests where nothing that they create is left behind.
func TestMain(m *testing.M) {
	flag.Parse()
	code, ran, err := crashtest.Isolate()
	switch {
	case ran:
		os.Exit(code)
	case err == nil:
		err = linktest.Enter()
	case errors.Is(err, crashtest.ErrNotRoot):
		err = nil // they skip
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "linktest:", err)
		os.Exit(1)
	}
	labtest.Main(m)
}

// requireNamespaces skips a test unless all tests were requested, or if namespaces cannot be made.
// With CI set in the environment the latter is a failure.
func requireNamespaces(t *testing.T) {
	t.Helper()
	if !*runAll {
		t.Skip("slow: make links runs it")
	}
	missing := linktest.Missing()
	if !crashtest.Isolated() {
		missing = append(missing, "root")
	}
	if len(missing) == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("two machines and a bad link need %q", missing)
	}
	t.Skipf("two machines and a bad link need %q", missing)
}

// archiveSize is the approximate size of the archives.
const archiveSize = 24 << 20

// site is a lab whose receiver and host are two machines.
type site struct {
	*linktest.Net
	*labtest.Lab
	host  *labtest.Host
	begun time.Time
}

// newSite makes the two machines, with a waiting episode, and connects them.
func newSite(t *testing.T, join func(n *linktest.Net) error) *site {
	t.Helper()
	requireNamespaces(t)
	t.Parallel()
	n, err := linktest.New(t.Name())
	fixture.Must(t, err)
	t.Cleanup(func() { // after the programs have ended
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	fixture.Must(t, join(n))
	at := linktest.Receiver.Addr()
	l := labtest.New(t, labtest.Elsewhere(at, n.Via(linktest.Receiver)...))
	s := &site{Net: n, Lab: l, host: l.Host("lab-01")}
	s.host.Move("https://"+at+":8443", n.Via(linktest.Host)...)
	s.host.Run("--ping").MustExit(t, 0)
	noise := make([]byte, archiveSize)
	rand.NewChaCha8([32]byte{}).Read(noise)
	s.host.Episode("run-1", labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "mem.raw", Body: string(noise)})
	s.begun = time.Now()
	return s
}

// runCommand runs a command on a side.
func (s *site) runCommand(t *testing.T, side linktest.Side, line string) {
	t.Helper()
	fixture.Must(t, s.Do(side, line))
}

// receivedBytes returns how much of the upload the receiver has.
func (s *site) receivedBytes() int64 {
	all := int64(0)
	for _, path := range s.Staged() {
		if info, err := os.Stat(path); err == nil {
			all += info.Size()
		}
	}
	return all
}

// waitHalf waits until the receiver has half of the upload.
func (s *site) waitHalf(t *testing.T) {
	t.Helper()
	labtest.Eventually(t, "half of the upload is there", func() bool { return s.receivedBytes() > archiveSize/2 })
}

// waitIdle waits until nothing has arrived for a while.
func (s *site) waitIdle(t *testing.T) {
	t.Helper()
	last, since := int64(-1), time.Now()
	labtest.Eventually(t, "nothing comes any more", func() bool {
		if now := s.receivedBytes(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
}

// wantDelivered checks that the episode is delivered and the lab is settled. At most most bytes
// may be sent per byte of the archive.
func (s *site) wantDelivered(t *testing.T, most float64) {
	t.Helper()
	took := time.Since(s.begun)
	if !s.host.IsShipped("run-1") {
		t.Error("the episode is not home")
	}
	s.Settled(t)
	sent, err := s.Sent(linktest.Host)
	fixture.Must(t, err)
	archive := s.RowOf(t, "lab-01", "run-1").Size
	factor := float64(sent) / float64(archive)
	fmt.Printf("%-52s %5.1f s, %4.1f MB on the way for an archive of %4.1f MB: %.2f, at most %.2f\n",
		t.Name(), took.Seconds(), float64(sent)/1e6, float64(archive)/1e6, factor, most)
	if factor > most {
		t.Errorf("%d bytes were on the way for an archive of %d", sent, archive)
	}
}
