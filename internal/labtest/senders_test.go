package labtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// attacker is a compromised host with a valid certificate.
type attacker struct {
	*labtest.Host
	addr   string // the receiver's, without the test's proxy in between
	config *tls.Config
}

func newAttacker(t *testing.T, l *labtest.Lab) *attacker {
	t.Helper()
	h := l.Host("mallory")
	cert, err := tls.LoadX509KeyPair(h.Path("pki", "mallory.crt"), h.Path("pki", "mallory.key"))
	fixture.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(fixture.ReadFile(t, l.Path("pki", "ca.crt"))))
	addr := regexp.MustCompile(`listen=(\S+)`).FindStringSubmatch(l.Process().Output())
	return &attacker{h, addr[1], &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "127.0.0.1"}}
}

// dial opens a connection from an address, and leaves it open until the test
// ends.
func (m *attacker) dial(t *testing.T, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", m.addr)
	fixture.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// send sends text on a new connection. It is not a failure if the receiver has too many
// connections.
func (m *attacker) send(t *testing.T, text string) net.Conn {
	t.Helper()
	c := tls.Client(m.dial(t, "127.0.0.2"), m.config)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, text)
	return c
}

// uploadHead returns the head of a PUT that announces a megabyte.
func uploadHead(name string) string {
	return "PUT /v1/episodes/mallory/" + name + " HTTP/1.1\r\nHost: r\r\nContent-Length: 1048576\r\n" +
		"Repr-Digest: sha-256=:LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=:\r\n\r\n"
}

// TestHostileSendersDelayNoOther: a compromised host holds hundreds of connections, sends one
// byte per second, stalls, sends half of a header, and uploads bombs; a stranger opens a
// hundred silent connections. Meanwhile an ordinary host ships as usual, and the receiver stays
// small.
func TestHostileSendersDelayNoOther(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	m := newAttacker(t, l)
	stop := make(chan struct{})
	defer close(stop)
	for i := range 8 {
		slow := m.send(t, uploadHead(fmt.Sprintf("slow-%d", i)))
		go sendSlowly(slow, stop)
	}
	for i := range 200 {
		m.send(t, uploadHead(fmt.Sprintf("stalled-%d", i)))
		m.send(t, "PUT /v1/episodes/mallory/half HTTP/1.1\r\nX: ")
		m.send(t, "POST /v1/ping HTTP/1.1\r\nHost: r\r\n\r\n")
	}
	for range 100 {
		m.dial(t, "127.0.0.3")
	}
	labtest.Eventually(t, "uploads are staged", func() bool { return len(l.Staged()) > 0 })
	if n := len(l.Staged()); n > 16 {
		t.Errorf("%d uploads of one host are staged, want at most 16", n)
	}
	for i := range 10 {
		name := fmt.Sprintf("run-%d", i)
		h.Episode(name)
		begun := time.Now()
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		if took := time.Since(begun); took > 25*time.Second { // less than the idle timeout, which ends the attack
			t.Errorf("%s took %v beside the hostile senders", name, took)
		}
	}
	// Connections of mallory, of the address that sends half a header, and of the silent one.
	const most = 64 + 256 + 100
	if n := countDescriptors(t, l.Process().Pid()); n > most+32 {
		t.Errorf("the receiver has %d descriptors", n)
	}
	wantSmallMemory(t, "the receiver", l.Process())
	wantPrintable(t, "the receiver", l.Process().Output())
}

// sendSlowly sends one byte per second.
func sendSlowly(to io.Writer, stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if _, err := to.Write([]byte("x")); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

func countDescriptors(t *testing.T, pid int) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	fixture.Must(t, err)
	return len(fds)
}

// TestBombsAreStoredUnopened: archives are opaque bytes. A bomb, a window of 2 GiB and noise
// where meta.json is looked for cost the receiver no memory, and their rows have no commit.
func TestBombsAreStoredUnopened(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	m := newAttacker(t, l)
	dir := t.TempDir()
	zeros := filepath.Join(dir, "zeros.zst")
	if out, err := exec.Command("bash", "-c", "head -c 256M /dev/zero | zstd -q --long=31 -1 -o "+zeros).CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v\n%s", err, out)
	}
	c := m.Client(t)
	for name, body := range map[string]string{
		"zeros":  fixture.ReadFile(t, zeros),
		"window": "\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00",
		"noise":  string(fixture.Noise(1<<20, 1)),
		"empty":  "",
	} {
		status, text := putArchive(t, l, c, "/v1/episodes/mallory/"+name, []byte(body))
		if status != http.StatusCreated {
			t.Errorf("%s: got %d %s, want status %d", name, status, text, http.StatusCreated)
		}
		if row := l.RowOf(t, "mallory", name); row.Commit != "" {
			t.Errorf("%s: the row says %+v", name, row)
		}
	}
	wantSmallMemory(t, "the receiver", l.Process())
	wantPrintable(t, "the receiver", l.Process().Output())
}

// TestNothingTellsOfAnothersEpisodes: to any request, the answer is the same for what another
// host has and what it does not have, except for the time.
func TestNothingTellsOfAnothersEpisodes(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("there")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	before := l.DataTree(t)
	c := newAttacker(t, l).Client(t)
	sum := "sha-256=:LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=:" // of "x"
	for _, method := range []string{"PUT", "HEAD", "GET", "POST", "DELETE", "PATCH", "OPTIONS"} {
		answers := make(map[string]string)
		for _, name := range []string{"there", "elsewhere"} {
			req, err := http.NewRequest(method, l.URL("/v1/episodes/lab-01/"+name), strings.NewReader("x"))
			fixture.Must(t, err)
			req.Header.Set("Repr-Digest", sum)
			resp, err := c.Do(req)
			fixture.Must(t, err)
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			resp.Header.Del("Date")
			answers[name] = fmt.Sprint(resp.Status, resp.Header, string(body), err)
			if resp.StatusCode/100 != 4 {
				t.Errorf("%s %s: %s", method, name, resp.Status)
			}
		}
		if answers["there"] != answers["elsewhere"] {
			t.Errorf("%s tells them apart:\n%s\n%s", method, answers["there"], answers["elsewhere"])
		}
	}
	after := l.DataTree(t)
	if after.String() != before.String() {
		t.Errorf("the data directory changed from\n%sto\n%s", before, after)
	}
}
