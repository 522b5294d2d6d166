package fleettest

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

var (
	rounds = flag.Int("rounds", 0, "number of rounds with kills and cut connections; 0: skip")
	seed   = flag.Uint64("seed", 0, "seed of the random faults; 0: a random one")
	// An engine that runs already is not killed. Its bucket must be empty.
	endpoint    = flag.String("endpoint", "", "`HOST:PORT` of an engine that runs already")
	credentials = flag.String("credentials", "", "`FILE` with its credentials")
)

func TestMain(m *testing.M) { labtest.Main(m) }

const (
	accessKey  = "fleet"
	secretKey  = "fleet-secret"
	bucketName = "lab"
)

// engine is an object store in a process of its own.
type engine struct {
	t    testing.TB
	dir  string // "" if it is not the test's
	addr string
	proc *labtest.Process

	credentials string // their file
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// newEngine starts versitygw over an empty directory.
func newEngine(t testing.TB) *engine {
	t.Helper()
	if *endpoint != "" {
		return &engine{t: t, addr: *endpoint, credentials: *credentials}
	}
	e := &engine{t: t, dir: t.TempDir(), addr: freeAddr(t), credentials: string(buckettest.WriteCredentials(t, accessKey, secretKey))}
	fixture.Must(t, os.Mkdir(filepath.Join(e.dir, bucketName), 0o755))
	e.start()
	return e
}

func (e *engine) start() {
	e.t.Helper()
	if e.dir == "" {
		return
	}
	e.proc = labtest.StartProgram(e.t, "versitygw", "env", "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey,
		findProgram(e.t, "versitygw"), "-q", "-p", e.addr, "--keep-alive", "posix", e.dir)
	labtest.Eventually(e.t, "the engine listens", func() bool {
		c, err := net.Dial("tcp", e.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// kill ends the engine as a crash would.
func (e *engine) kill() {
	if e.dir != "" {
		e.proc.Kill(e.t)
	}
}

// open opens the bucket without the receivers.
func (e *engine) open() bucket.Bucket {
	e.t.Helper()
	c := bucket.DefaultConfig()
	c.Endpoints, c.Bucket = []string{"http://" + e.addr}, bucketName
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
}

// newFleet starts an engine, receivers and a load balancer. The hosts of its lab reach the receivers
// through that.
func newFleet(t testing.TB, n int) *fleet {
	t.Helper()
	f := &fleet{lab: labtest.New(t, labtest.Unstarted()), engine: newEngine(t)}
	for i := range n {
		link := labtest.NewProxy(t)
		link.Forward(f.engine.addr)
		f.links = append(f.links, link)
		f.receivers = append(f.receivers, f.lab.Peer(fmt.Sprintf("receiver-%d", i),
			labtest.Set("store.kind", `"s3"`),
			labtest.Set("store.s3.endpoints", fmt.Sprintf(`["http://%s"]`, link.Addr())),
			labtest.Set("store.s3.bucket", fmt.Sprintf("%q", bucketName)),
			labtest.Set("store.s3.credentials_file", fmt.Sprintf("%q", f.engine.credentials)),
		))
	}
	for _, r := range f.receivers {
		r.Start()
	}
	f.balance(t, "haproxy")
	return f
}
