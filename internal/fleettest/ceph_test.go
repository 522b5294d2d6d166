package fleettest

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/buckettest"
	"cis490/internal/crashtest"
	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// ceph is a Ceph cluster with one monitor, one OSD and two gateways. The OSD has a disk that can
// lose power, so there are no copies that would make up for what it loses.
type ceph struct {
	t        testing.TB
	dir      string
	conf     string
	disk     *crashtest.Disk
	osd      *labtest.Process
	gateways [2]*labtest.Process
	addrs    [2]string
}

const (
	cephDisk = 4 << 30
	// slowStart is how long a daemon of Ceph may take to start on a busy machine.
	slowStart = 3 * time.Minute
)

// cephConf has the directory and the monitor's address.
const cephConf = `[global]
fsid = 6ee42b6c-5f0a-4b3c-9a0e-0d6f7a0c1d55
mon host = %[2]s
mon initial members = a
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
keyring = %[1]s/keyring
run dir = %[1]s/run
admin socket = %[1]s/run/$name.asok
log file = %[1]s/log/$name.log
mon data = %[1]s/mon
mgr data = %[1]s/mgr
osd data = %[1]s/osd
rgw data = %[1]s/rgw
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 2
mon data avail crit = 1
osd memory target = 939524096
bluestore block size = %[3]d
bluestore cache size = 134217728
`

// newCeph starts a cluster with an empty bucket.
func newCeph(t testing.TB) *engine {
	for _, program := range []string{"ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph"} {
		findProgram(t, program)
	}
	c := &ceph{t: t, dir: t.TempDir()}
	for _, name := range []string{"run", "log", "mon", "mgr", "osd", "rgw"} {
		fixture.Must(t, os.Mkdir(filepath.Join(c.dir, name), 0o755))
	}
	c.conf = filepath.Join(c.dir, "ceph.conf")
	monitor := freeAddr(t)
	fixture.WriteFile(t, c.conf, fmt.Sprintf(cephConf, c.dir, "[v2:"+monitor+"]", cephDisk-512<<20))
	c.startMonitor(monitor)
	c.makeDisk()
	c.startOSD()
	c.addKey("client.rgw", "mon", "allow rw", "osd", "allow rwx", "mgr", "allow rw")
	for i := range c.gateways {
		c.addrs[i] = freeAddr(t)
		c.startGateway(i)
	}
	c.run("radosgw-admin", "-c", c.conf, "user", "create", "--uid=lab", "--display-name=lab", "--access-key="+accessKey, "--secret-key="+secretKey)
	c.run("curl", "-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:default:s3", "--user", accessKey+":"+secretKey,
		"-H", "x-amz-content-sha256: "+digest.Digest(sha256.Sum256(nil)).String(), "-X", "PUT", "http://"+c.addrs[0]+"/"+bucketName)
	return &engine{t: t, addrs: c.addrs[:], credentials: string(buckettest.WriteCredentials(t, accessKey, secretKey)), crash: c.crash}
}

// run runs a command, and returns what it prints.
func (c *ceph) run(argv ...string) string {
	c.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		said := ""
		if exit, ok := err.(*exec.ExitError); ok {
			said = string(exit.Stderr)
		}
		c.t.Fatalf("%s: %v: %s%s", strings.Join(argv, " "), err, out, said)
	}
	return string(out)
}

// addKey makes a key for a daemon, which may do what caps say.
func (c *ceph) addKey(name string, caps ...string) {
	c.t.Helper()
	key := c.run(append([]string{"ceph", "-c", c.conf, "auth", "get-or-create", name}, caps...)...)
	f, err := os.OpenFile(filepath.Join(c.dir, "keyring"), os.O_APPEND|os.O_WRONLY, 0)
	fixture.Must(c.t, err)
	defer f.Close()
	_, err = f.WriteString(key)
	fixture.Must(c.t, err)
}

func (c *ceph) startMonitor(addr string) {
	c.t.Helper()
	keyring, monmap := filepath.Join(c.dir, "keyring"), filepath.Join(c.dir, "monmap")
	c.run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
	c.run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
	c.run("monmaptool", "-c", c.conf, "--create", "--addv", "a", "[v2:"+addr+"]", "--fsid", "6ee42b6c-5f0a-4b3c-9a0e-0d6f7a0c1d55", monmap)
	c.run("ceph-mon", "-c", c.conf, "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
	labtest.StartProgram(c.t, "ceph-mon", "ceph-mon", "-c", c.conf, "-i", "a", "-f")
	c.addKey("mgr.x", "mon", "allow profile mgr", "osd", "allow *")
	labtest.StartProgram(c.t, "ceph-mgr", "ceph-mgr", "-c", c.conf, "-i", "x", "-f")
}

// makeDisk mounts a disk with a volatile cache, and makes the OSD's store on it.
func (c *ceph) makeDisk() {
	c.t.Helper()
	var err error
	c.disk, err = crashtest.NewDisk("ext4", filepath.Join(c.dir, "disk.img"), cephDisk)
	fixture.Must(c.t, err)
	seed := *seed
	c.disk.Tear = func() uint64 { seed++; return seed }
	fixture.Must(c.t, c.disk.Attach(filepath.Join(c.dir, "osd")))
	c.t.Cleanup(func() {
		if err := c.disk.Detach(); err != nil {
			c.t.Error(err)
		}
		c.t.Logf("writes in the cache of the disk when its power failed: %+v", c.disk.Torn)
	})
	const id = "f0a7a8a3-7a0d-4f59-8a39-6f1f1f0c8a10"
	c.run("ceph", "-c", c.conf, "osd", "new", id, "0")
	c.addKey("osd.0", "mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *")
	c.run("ceph-osd", "-c", c.conf, "-i", "0", "--mkfs", "--osd-uuid", id)
}

// startOSD starts the OSD. The gateways wait for it meanwhile.
func (c *ceph) startOSD() {
	c.osd = labtest.StartProgram(c.t, "ceph-osd", "ceph-osd", "-c", c.conf, "-i", "0", "-f")
}

func (c *ceph) startGateway(i int) {
	c.gateways[i] = labtest.StartProgram(c.t, "radosgw", "radosgw", "-c", c.conf, "-n", "client.rgw", "-f", "--rgw-frontends=beast endpoint="+c.addrs[i])
	labtest.Within(c.t, slowStart, "the gateway answers", func() bool {
		return exec.Command("curl", "-s", "-o", filepath.Join(c.dir, "answer"), "http://"+c.addrs[i]+"/").Run() == nil
	})
}

// crash kills a gateway or the OSD, or takes power from the disk of the OSD.
func (c *ceph) crash(random *rand.Rand) (string, func()) {
	switch i := random.IntN(4); i {
	case 0, 1:
		c.gateways[i].Kill(c.t)
		return "gateway killed", func() { c.startGateway(i) }
	case 2:
		c.osd.Kill(c.t)
		return "OSD killed", c.startOSD
	default:
		fixture.Must(c.t, c.disk.Cut())
		c.osd.Kill(c.t)
		fixture.Must(c.t, c.disk.Reattach())
		return "power cut of the OSD's disk", c.startOSD
	}
}
