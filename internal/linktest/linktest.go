// Package linktest simulates a bad link between two machines: a network namespace for a lab
// host, one for the receiver, and what connects them.
//
// [New] makes the namespaces. [Net.Veth] connects them by a veth pair, whose link tc and
// iptables can degrade. [Net.Wire] connects them by a wire in user space, for what the CI
// machine's kernel lacks: delay, jitter, loss and a silent outage. The tests are in
// link_test.go; `make links` runs them all.
//
// Invariant: it imports no other package of this module and changes nothing that existed
// before. Everything that it creates is below a /run of its own ([Enter]) and ends with the
// process, however that ends.
package linktest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Side is one end of a [Net].
type Side int

// The two sides.
const (
	Host Side = iota
	Receiver
)

// Addr returns the side's address, the same in each [Net].
func (s Side) Addr() string { return [...]string{"10.77.0.1", "10.77.0.2"}[s] }

func (s Side) String() string { return [...]string{"host", "receiver"}[s] }

// device is the name of a side's only interface.
const device = "lab0"

// Enter gives this process a /run of its own, where ip keeps the names of namespaces and
// iptables its lock. The process must have a mount namespace of its own.
func Enter() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

// Missing returns which of the commands that this package needs are not installed.
func Missing() []string {
	var missing []string
	for _, name := range []string{"ip", "tc", "iptables", "nsenter"} {
		if _, err := exec.LookPath(command(name)); err != nil {
			missing = append(missing, name)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing = append(missing, "/dev/net/tun")
	}
	return missing
}

// command finds a system administrator's command, even if PATH lacks its directory.
func command(name string) string {
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		return path
	}
	return name
}

func run(argv ...string) ([]byte, error) {
	cmd := exec.Command(command(argv[0]), argv[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, stderr.String())
	}
	return out, nil
}

// Net is two namespaces that are not connected yet.
type Net struct {
	name string
	wire *Wire
}

// New makes a net. The name distinguishes it from others of this process.
func New(name string) (*Net, error) {
	n := &Net{name: name}
	for _, side := range []Side{Host, Receiver} {
		if _, err := run("ip", "netns", "add", n.namespace(side)); err != nil {
			return nil, err
		}
		if err := n.Do(side, "ip link set lo up"); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Close closes the wire, if there is one, and releases the namespaces. They end with the last
// process in them.
func (n *Net) Close() error {
	var errs []error
	if n.wire != nil {
		errs = append(errs, n.wire.close())
	}
	for _, side := range []Side{Host, Receiver} {
		_, err := run("ip", "netns", "delete", n.namespace(side))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (n *Net) namespace(s Side) string { return n.name + "-" + s.String() }

// Via returns the command that runs another on a side.
func (n *Net) Via(s Side) []string {
	return []string{command("nsenter"), "--net=/run/netns/" + n.namespace(s), "--"}
}

// Do runs a command on a side. It replaces DEV in the arguments by the side's interface.
func (n *Net) Do(s Side, line string) error {
	argv := strings.Fields(strings.ReplaceAll(line, "DEV", device))
	argv[0] = command(argv[0])
	_, err := run(append(n.Via(s), argv...)...)
	return err
}

// Veth connects the sides by a veth pair. Segmentation offload is disabled, so that rules see
// each packet as a cable would carry it.
func (n *Net) Veth() error {
	_, err := run("ip", "link", "add", device, "netns", n.namespace(Host), "type", "veth", "peer", "name", device, "netns", n.namespace(Receiver))
	if err != nil {
		return err
	}
	return n.configureAddrs("gso_max_segs 1")
}

// configureAddrs gives both sides their addresses.
func (n *Net) configureAddrs(more string) error {
	for _, side := range []Side{Host, Receiver} {
		for _, line := range []string{
			"ip addr add " + side.Addr() + "/24 dev DEV",
			"ip link set DEV up mtu 1500 " + more,
			// As Debian sets it. The defaults of other kernels tolerate loss well.
			"ip route replace 10.77.0.0/24 dev DEV src " + side.Addr() + " congctl cubic",
		} {
			if err := n.Do(side, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sent returns how many bytes a side has sent, including headers.
func (n *Net) Sent(s Side) (int64, error) {
	out, err := run("ip", "-n", n.namespace(s), "-s", "-j", "link", "show", "dev", device)
	if err != nil {
		return 0, err
	}
	var links []struct {
		Stats struct {
			TX struct{ Bytes int64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return 0, fmt.Errorf("ip says %q: %w", out, err)
	}
	return links[0].Stats.TX.Bytes, nil
}

// Counted returns how many packets have matched the iptables rules of a side.
func (n *Net) Counted(s Side) (int64, error) {
	out, err := run(append(n.Via(s), command("iptables"), "-nvxL", "INPUT")...)
	if err != nil {
		return 0, err
	}
	all := int64(0)
	for line := range strings.Lines(string(out)) {
		var packets, bytes int64
		if n, _ := fmt.Sscan(line, &packets, &bytes); n == 2 {
			all += packets
		}
	}
	return all, nil
}
