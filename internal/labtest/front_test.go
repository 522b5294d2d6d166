package labtest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// Real proxies in front of the receiver, with the configurations of docs/proxy.md.

// frontProxy is a proxy in front of a receiver's socket, as a process of the test.
type frontProxy struct {
	kind   string // nginx or caddy
	lab    *labtest.Lab
	config string // as on the page, with the lab's paths, without the address
	addr   string
	end    context.CancelFunc
	ended  chan struct{}
	said   *bytes.Buffer // to be read when it has ended
}

// forEachProxy runs a test behind each proxy. Its lab has the hosts lab-01 and, with
// no shipper, lab-02. The pairs old, new in worse change the page's configuration.
func forEachProxy(t *testing.T, test func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy), worse ...string) {
	t.Parallel()
	for _, kind := range []string{"nginx", "caddy"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			requireProxy(t, kind)
			l, h := newLab(t, labtest.Set("proxy.socket", `"proxy.sock"`))
			l.Host("lab-02")
			f := &frontProxy{kind: kind, lab: l, config: configSnippet(t, "proxy.md", kind)}
			for i := 0; i+1 < len(worse); i += 2 {
				f.config = strings.ReplaceAll(f.config, worse[i], worse[i+1])
			}
			f.config = strings.NewReplacer(
				"/etc/cis490-proxy/", l.Path("pki")+"/",
				"/run/cis490-proxy/receiver.sock", l.Path("proxy.sock"),
			).Replace(f.config)
			f.start(t)
			h.Set("receiver.url", fmt.Sprintf("%q", "https://"+f.addr))
			test(t, l, h, f)
		})
	}
}

// requireProxy finds a proxy, or skips the test. With CI set in the environment that
// is a failure.
func requireProxy(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} { // not in everybody's PATH
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}

// configSnippet returns the configuration of a proxy in a page of docs.
func configSnippet(t *testing.T, page, kind string) string {
	t.Helper()
	language := map[string]string{"nginx": "nginx", "caddy": "caddyfile"}[kind]
	_, rest, _ := strings.Cut(fixture.ReadFile(t, "../../docs/"+page), "```"+language+"\n")
	text, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatalf("docs/%s has no configuration of %s", page, kind)
	}
	return text
}

// start starts the proxy on a free port and waits until it answers with the lab's certificate.
// No proxy can choose a free port itself. Another process may take the port first, and then
// start tries again.
func (f *frontProxy) start(t *testing.T) {
	t.Helper()
	for range 5 {
		f.addr = unusedAddr(t)
		f.run(t)
		answers := false
		labtest.Eventually(t, f.kind+" answers or ends", func() bool {
			answers = f.isAnswering(t)
			return answers || f.isEnded()
		})
		if answers {
			return
		}
		if !strings.Contains(f.said.String(), "in use") {
			t.Fatalf("%s ended:\n%s", f.kind, f.said)
		}
	}
	t.Fatalf("%s found no free port", f.kind)
}

// proxyAddrs has the addresses that were given to a proxy. Caddy listens with SO_REUSEPORT: two
// of them share a port without an error, and each gets connections meant for the other.
var proxyAddrs sync.Map

// unusedAddr returns an address where nothing listens and that no proxy was given before.
func unusedAddr(t *testing.T) string {
	t.Helper()
	for {
		addr, err := fixture.FreeAddr()
		fixture.Must(t, err)
		if _, given := proxyAddrs.LoadOrStore(addr, true); !given {
			return addr
		}
	}
}

func (f *frontProxy) run(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(f.addr)
	var args []string
	switch f.kind {
	case "nginx":
		text := strings.Replace(f.config, "listen 443 ", "listen "+f.addr+" ", 1)
		for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			text = what + "_temp_path " + dir + "/" + what + ";\n" + text
		}
		fixture.WriteFile(t, dir+"/nginx.conf", "daemon off;\nmaster_process off;\npid "+dir+"/pid;\nevents {}\nhttp {\naccess_log off;\n"+text+"}\n")
		args = []string{"-e", "stderr", "-g", "error_log stderr;", "-p", dir, "-c", dir + "/nginx.conf"}
	case "caddy":
		text := strings.Replace(f.config, "https://receiver.lab", "https://:"+port, 1)
		// The hosts of a lab know the receiver by its address alone: see the page.
		fixture.WriteFile(t, dir+"/Caddyfile", "{\nadmin off\nauto_https off\ndefault_bind 127.0.0.1\n"+
			"servers {\nprotocols h1\nstrict_sni_host insecure_off\n}\n}\n"+text)
		args = []string{"run", "--adapter", "caddyfile", "--config", dir + "/Caddyfile"}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, requireProxy(t, f.kind), args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	f.end, f.ended, f.said = cancel, make(chan struct{}), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = f.said, f.said
	fixture.Must(t, cmd.Start())
	ended, said := f.ended, f.said
	go func() {
		defer close(ended)
		cmd.Wait() // it is killed, or says why it ends
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("%s: %v\n%s", f.kind, cmd.ProcessState, said)
		}
	})
}

// stop kills the proxy.
func (f *frontProxy) stop() {
	f.end()
	<-f.ended
}

func (f *frontProxy) isEnded() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// isAnswering reports whether something with the lab's certificate listens.
func (f *frontProxy) isAnswering(t *testing.T) bool {
	t.Helper()
	c, err := tls.Dial("tcp", f.addr, &tls.Config{RootCAs: f.roots(t)})
	if err == nil {
		c.Close()
	}
	return err == nil
}

// roots returns the CA of the lab's receiver.
func (f *frontProxy) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(fixture.ReadFile(t, f.lab.Path("pki", "ca.crt"))))
	return roots
}

// url returns an address behind the proxy.
func (f *frontProxy) url(path string) string { return "https://" + f.addr + path }
