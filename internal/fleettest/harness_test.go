package fleettest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/config"
	"cis490/internal/crashtest"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

var (
	rounds = flag.Int("rounds", 0, "number of rounds with kills and cut connections; 0: skip")
	seed   = flag.Uint64("seed", 0, "seed of the random faults; 0: a random one")
	onCeph = flag.Bool("ceph", false, "use Ceph instead of versitygw")
	// An engine that runs already is not killed. Its bucket must be empty.
	endpoint    = flag.String("endpoint", "", "`HOST:PORT` of an engine that runs already")
	credentials = flag.String("credentials", "", "`FILE` with its credentials")
)

// TestMain gives Ceph mounts of its own: its disk can lose power.
func TestMain(m *testing.M) {
	flag.Parse()
	if *onCeph {
		code, ran, err := crashtest.Isolate()
		if ran {
			os.Exit(code)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "fleettest:", err)
			os.Exit(1)
		}
	}
	labtest.Main(m)
}

const (
	accessKey  = "fleet"
	secretKey  = "fleet-secret"
	bucketName = "lab"
)

// engine is an object store.
type engine struct {
	t           testing.TB
	addrs       []string // of its gateways
	credentials string   // their file
	dir         string   // with the objects as files, or "" if there are none
	// crash interrupts the engine as a crash would, and returns what it did and what ends that. It is nil
	// for an engine that is not the test's.
	crash func(*rand.Rand) (what string, restart func())
}

// findProgram returns the path of a program. Without it the test skips, or fails if CI is set.
func findProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name) // is not in the PATH of everybody
	}
	if err == nil {
		return path
	}
	skipWithout(t, name)
	return ""
}

// skipWithout skips a test that needs a program or package, or lets it fail under CI.
func skipWithout(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: .ci/run installs it", name)
	}
	t.Skipf("%s is missing", name)
}

// requireFleet skips a test unless make fleet runs it.
func requireFleet(t testing.TB) {
	t.Helper()
	if *rounds == 0 {
		t.Skip("run it with make fleet")
	}
}

// freeAddr returns an address on which nothing listens.
func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := fixture.FreeAddr()
	fixture.Must(t, err)
	return addr
}

// newEngine starts versitygw over an empty directory, unless a flag names another engine.
func newEngine(t testing.TB) *engine {
	t.Helper()
	switch {
	case *endpoint != "":
		return &engine{t: t, addrs: []string{*endpoint}, credentials: *credentials}
	case *onCeph:
		return newCeph(t)
	}
	dir, addr := t.TempDir(), freeAddr(t)
	fixture.Must(t, os.Mkdir(filepath.Join(dir, bucketName), 0o755))
	program := findProgram(t, "versitygw")
	start := func() *labtest.Process {
		p := labtest.StartProgram(t, "versitygw", "env", "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey,
			program, "-q", "-p", addr, "--keep-alive", "posix", dir)
		waitListening(t, addr)
		return p
	}
	p := start()
	return &engine{
		t: t, addrs: []string{addr}, dir: dir, credentials: string(buckettest.WriteCredentials(t, accessKey, secretKey)),
		crash: func(*rand.Rand) (string, func()) {
			p.Kill(t)
			return "engine killed", func() { p = start() }
		},
	}
}

// waitListening waits until a process listens on an address.
func waitListening(t testing.TB, addr string) {
	t.Helper()
	labtest.Eventually(t, addr+" is listened on", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// open opens the bucket without the receivers.
func (e *engine) open() bucket.Bucket {
	e.t.Helper()
	c := bucket.DefaultConfig()
	c.Endpoints, c.Bucket = []string{"http://" + e.addrs[0]}, bucketName
	c.CredentialsFile = config.Path(e.credentials)
	b, err := bucket.Open(c)
	fixture.Must(e.t, err)
	return b
}

// fleet is a lab with several receivers.
type fleet struct {
	lab       *labtest.Lab // its receiver does not run: it has the certificates and the hosts
	engine    *engine
	receivers []*labtest.Lab
	links     []*labtest.Proxy // from each receiver to the engine
	holders   []*holder        // behind the links, after addHolders

	background sync.WaitGroup // of disturbances
}

// newFleet starts an engine, receivers and a load balancer. The hosts of its lab reach the receivers
// through that. Only the first receiver has the issuing CA, so hosts join there.
func newFleet(t testing.TB, n int) *fleet {
	t.Helper()
	f := &fleet{lab: labtest.New(t, labtest.Unstarted()), engine: newEngine(t)}
	f.lab.SetUp()
	for i := range n {
		link := labtest.NewProxy(t)
		link.Forward(f.engine.addrs[i%len(f.engine.addrs)])
		f.links = append(f.links, link)
		f.receivers = append(f.receivers, f.lab.Peer(fmt.Sprintf("receiver-%d", i),
			labtest.Set("store.kind", `"s3"`),
			labtest.Set("store.s3.endpoints", fmt.Sprintf(`["http://%s"]`, link.Addr())),
			labtest.Set("store.s3.bucket", fmt.Sprintf("%q", bucketName)),
			labtest.Set("store.s3.credentials_file", fmt.Sprintf("%q", f.engine.credentials)),
		))
	}
	f.receivers[0].Set("identity_dir", fmt.Sprintf("%q", f.lab.Path("identity")))
	for _, r := range f.receivers {
		r.Start()
	}
	f.balance(t, "haproxy")
	return f
}
