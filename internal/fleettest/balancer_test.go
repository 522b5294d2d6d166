package fleettest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// balancers are the load balancers of docs/scale-out.md.
var balancers = map[string]struct {
	program  string
	heading  string         // above the configuration, up to its block
	listen   string         // as on the page
	receiver *regexp.Regexp // a line for a receiver, and the name and address in it
	args     func(file string) []string
}{
	"haproxy": {
		"haproxy", "For haproxy:\n\n", ":8443",
		regexp.MustCompile(`(?m)^ *server (receiver-\d+) ([\d.:]+) .*\n`),
		func(file string) []string { return []string{"-db", "-q", "-f", file} },
	},
	"nginx": {
		"nginx", "For nginx:\n\n", "8443",
		regexp.MustCompile(`(?m)^\s*server ()([\d.:]+) .*;\n`),
		func(file string) []string {
			return []string{"-e", "stderr", "-p", filepath.Dir(file), "-c", file}
		},
	},
}

// balance starts a load balancer before the receivers, and lets the hosts of the lab connect to it. Its
// configuration is that of the page, except for addresses and the time between checks.
func (f *fleet) balance(t testing.TB, kind string) {
	t.Helper()
	b := balancers[kind]
	program, addr := findProgram(t, b.program), freeAddr(t)
	text := pageBlock(t, b.heading)
	lines := b.receiver.FindAllString(text, -1)
	if len(lines) != 2 {
		t.Fatalf("the configuration of %s on the page has the receivers %q, want two", kind, lines)
	}
	var servers strings.Builder
	for i, r := range f.receivers {
		found := b.receiver.FindStringSubmatch(lines[0])
		line := strings.Replace(lines[0], found[2], r.Proxy.Addr(), 1)
		if found[1] != "" {
			line = strings.Replace(line, found[1], fmt.Sprintf("receiver-%d", i+1), 1)
		}
		servers.WriteString(line)
	}
	text = strings.Replace(text, strings.Join(lines, ""), servers.String(), 1)
	text = strings.Replace(text, " "+b.listen, " "+addr, 1)
	text = strings.NewReplacer("inter 10s", "inter 500", "fail_timeout=10s", "fail_timeout=1s").Replace(text)
	dir := t.TempDir()
	if kind == "nginx" {
		text = "daemon off;\nmaster_process off;\nerror_log stderr;\npid " + dir + "/pid;\nevents {}\n" + text
		const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
		if _, err := os.Stat(module); err != nil {
			skipWithout(t, "libnginx-mod-stream")
		}
		text = "load_module " + module + ";\n" + text
	}
	file := filepath.Join(dir, kind+".conf")
	fixture.WriteFile(t, file, text)
	labtest.StartProgram(t, kind, append([]string{program}, b.args(file)...)...)
	waitListening(t, addr)
	f.lab.Proxy.Forward(addr)
}

// pageBlock returns the block of docs/scale-out.md that follows a text.
func pageBlock(t testing.TB, heading string) string {
	t.Helper()
	_, rest, _ := strings.Cut(fixture.ReadFile(t, "../../docs/scale-out.md"), heading)
	fence := regexp.MustCompile("(?s)^ *```\\w*\n(.*?)\n *```").FindStringSubmatch(rest)
	if fence == nil {
		t.Fatalf("docs/scale-out.md has no block after %q", heading)
	}
	return fence[1] + "\n"
}

// A receiver that is gone costs no episode, whichever load balancer of the page is in front.
func TestHostsShipThroughEachLoadBalancer(t *testing.T) {
	requireFleet(t)
	for kind := range balancers {
		t.Run(kind, func(t *testing.T) {
			f := newFleet(t, 2)
			f.balance(t, kind)
			h := f.lab.Host("host-1")
			for gone := range f.receivers {
				f.receivers[gone].Stop()
				h.Episode(fmt.Sprintf("run-%d", gone))
				h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
				f.receivers[gone].Start()
			}
		})
	}
}
