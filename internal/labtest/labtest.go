// Package labtest runs a whole lab in one test: certificates, a receiver, hosts with their
// shippers, and the faults between them.
//
// [New] builds the real programs once per test process, and runs them as processes that talk
// over TCP and mutual TLS. Hosts reach the receiver through a [Proxy] in the test process. It
// keeps its address when the receiver is restarted, and can cut, hang and lie. [Lab.Check]
// checks the invariants of custody, after every step of a test.
//
// Invariant: it judges the programs by their files, their answers and the system's zstd and tar,
// so that it shares none of their mistakes. It uses package pki only to prepare certificates that
// no command can issue, such as aged ones.
package labtest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// Lab is a receiver with its data, its certificates and its hosts, all in one directory that is
// removed after the test.
type Lab struct {
	Dir   string // holds receiver.toml, pki, data and one directory per host
	Proxy *Proxy // where the hosts find the receiver

	t        testing.TB
	bin      string // folder of the programs
	settings settings
	names    string // of the receiver, in its certificate
	via      []string
	asDaemon []string // enters the user of the daemons
	asPerson []string // enters the namespace in which commands run
	uid      int      // the user of the daemons, if they have another one
	byHand   bool     // the daemons are started by hand
	start    bool
	hosts    []*Host
	receiver *Process
	tracing  *Trace            // of the receivers started from now on, if any
	unpacked map[string]string // sha256 of an archive to the tree that it holds
	decoded  map[string]bool   // sha256 of the archives that zstd -t has decoded
}

// Option changes how a lab begins.
type Option func(*Lab)

// Set sets a key of receiver.toml, dotted below a table, to a TOML value.
func Set(key, value string) Option { return func(l *Lab) { l.settings[key] = value } }

// In makes the lab in a directory of the test, such as the root of a file system.
func In(dir string) Option { return func(l *Lab) { l.Dir = dir } }

// Unstarted leaves it to the test to start the receiver.
func Unstarted() Option { return func(l *Lab) { l.start = false } }

// Elsewhere makes the receiver run at an address of its own, through a command that enters its
// namespace, such as nsenter. The hosts must be told how to reach it.
func Elsewhere(addr string, via ...string) Option {
	return func(l *Lab) {
		l.names, l.via = addr, via
		l.settings["listen"] = fmt.Sprintf("%q", addr+":8443") // only the lab uses the address
	}
}

// New makes a lab with a running receiver and no host. It ends with the test. If the test
// failed, all output of the programs is logged.
func New(t testing.TB, options ...Option) *Lab {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatalf("build the programs: %v", err)
	}
	l := &Lab{Dir: t.TempDir(), t: t, bin: bin, names: "127.0.0.1,localhost", start: true, unpacked: make(map[string]string), decoded: make(map[string]bool)}
	l.settings = settings{
		"listen":             `"127.0.0.1:0"`,
		"data_dir":           `"data"`,
		"min_free":           `"1MiB"`,
		"admin.listen":       `""`, // the default is one port for all labs; see metrics_test.go
		"tls.cert_file":      `"pki/server.crt"`,
		"tls.key_file":       `"pki/server.key"`,
		"tls.client_ca_file": `"pki/hosts-ca.crt"`,
		"tls.crl_file":       `"pki/hosts.crl"`,
	}
	for _, o := range options {
		o(l)
	}
	l.Receiver("pki", "init", "--dir", l.Path("pki"), "--name", l.names).MustExit(t, 0)
	l.Proxy = NewProxy(t)
	l.writeConfig()
	if l.start {
		l.Start()
	}
	return l
}

// Program returns the path of a program, receiver or shipper, for a test that starts it itself.
func (l *Lab) Program(name string) string { return filepath.Join(l.bin, name) }

// Path returns a path below the lab's directory.
func (l *Lab) Path(elem ...string) string { return filepath.Join(append([]string{l.Dir}, elem...)...) }

// Set sets a key of receiver.toml for the next start of the receiver.
func (l *Lab) Set(key, value string) {
	l.settings[key] = value
	l.writeConfig()
}

func (l *Lab) writeConfig() { fixture.WriteFile(l.t, l.Path("receiver.toml"), l.settings.encodeTOML()) }

// Receiver runs a command of the receiver to its end.
func (l *Lab) Receiver(args ...string) Result {
	l.t.Helper()
	argv := slices.Concat(l.asPerson, []string{filepath.Join(l.bin, "receiver")}, args)
	return runProgram(l.t, argv[0], argv[1:]...)
}

// Start starts the receiver and waits until it listens.
func (l *Lab) Start() *Process {
	l.t.Helper()
	p := l.StartUnready()
	line := p.WaitLine(l.t, "receiver started")
	addr := logField(line, "listen")
	if addr == "" {
		l.t.Fatalf("the receiver does not say where it listens: %s", line)
	}
	l.Proxy.Forward(addr)
	return p
}

// StartUnready starts the receiver and waits for nothing.
func (l *Lab) StartUnready() *Process {
	l.t.Helper()
	argv := []string{filepath.Join(l.bin, "receiver"), "--config", l.Path("receiver.toml")}
	if l.tracing != nil {
		argv = l.tracing.straceCommand(argv)
	}
	l.receiver = StartProgram(l.t, "receiver", slices.Concat(l.via, l.daemonCommand(argv))...)
	return l.receiver
}

// Stop ends the receiver as a service manager would. The exit code must be 0.
func (l *Lab) Stop() {
	l.t.Helper()
	l.receiver.Stop(l.t)
}

// Kill ends the receiver as power loss would, except for the page cache.
func (l *Lab) Kill() {
	l.t.Helper()
	l.receiver.Kill(l.t)
}

// Restart starts the receiver again at the address that the hosts know.
func (l *Lab) Restart() {
	l.t.Helper()
	if l.receiver.Running() {
		l.Stop()
	}
	l.Start()
}

// Process returns the receiver that was started last.
func (l *Lab) Process() *Process { return l.receiver }

// settings are keys of a configuration file, dotted below a table, and their
// TOML values.
type settings map[string]string

func (s settings) encodeTOML() string {
	keys := slices.SortedFunc(maps.Keys(s), func(a, b string) int { // those of no table first
		return cmp.Or(strings.Count(a, ".")-strings.Count(b, "."), strings.Compare(a, b))
	})
	var b bytes.Buffer
	table := ""
	for _, key := range keys {
		of, name := "", key
		if dot := strings.LastIndexByte(key, '.'); dot >= 0 {
			of, name = key[:dot], key[dot+1:]
		}
		if of != table {
			fmt.Fprintf(&b, "[%s]\n", of)
			table = of
		}
		fmt.Fprintf(&b, "%s = %s\n", name, s[key])
	}
	return b.String()
}

// logField returns the value of key in a line of the log.
func logField(line, key string) string {
	_, rest, _ := strings.Cut(line, " "+key+"=")
	value, _, _ := strings.Cut(rest, " ")
	return value
}
