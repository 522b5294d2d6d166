package labtest_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// TestStatusPageBehindAProxy runs the configurations in docs/status-page.md: only the right password shows
// the page.
func TestStatusPageBehindAProxy(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"nginx", "caddy"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			program := requireProxy(t, kind)
			l, _ := newLab(t, labtest.Set("admin.listen", `"127.0.0.1:0"`))
			_, admin, _ := strings.Cut(l.Process().WaitLine(t, "serving metrics"), "address=")
			config := strings.NewReplacer(
				"/etc/cis490-proxy/status.crt", l.Path("pki", "server.crt"), "/etc/cis490-proxy/status.key", l.Path("pki", "server.key"),
				"/etc/cis490-proxy/status.htpasswd", l.Path("htpasswd"), "127.0.0.1:9490", strings.Fields(admin)[0],
				"https://status.lab", "https://receiver.lab", // what frontProxy replaces
			).Replace(configSnippet(t, "status-page.md", kind))
			if kind == "nginx" {
				fixture.WriteFile(t, l.Path("htpasswd"), "alice:{PLAIN}secret\n")
			} else {
				hash, err := exec.Command(program, "hash-password", "--plaintext", "secret").Output()
				fixture.Must(t, err)
				config = strings.Replace(config, "HASH", strings.TrimSpace(string(hash)), 1)
			}
			f := &frontProxy{kind: kind, lab: l, config: config}
			f.start(t)
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.roots(t)}}}
			defer client.CloseIdleConnections()
			get := func(path, password string) (*http.Response, string) {
				req, err := http.NewRequest(http.MethodGet, f.url(path), nil)
				fixture.Must(t, err)
				req.SetBasicAuth("alice", password)
				resp, err := client.Do(req)
				fixture.Must(t, err)
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				fixture.Must(t, err)
				return resp, string(text)
			}
			if resp, body := get("/", "wrong"); resp.StatusCode != http.StatusUnauthorized || strings.Contains(body, "Hosts") {
				t.Errorf("with a wrong password: %d %s", resp.StatusCode, body)
			}
			resp, body := get("/", "secret")
			mustContain(t, "the page", body, "<h1>CIS490 receiver</h1>", `href="hosts/lab-01"`)
			if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("with the password: %d %v", resp.StatusCode, resp.Header)
			}
			if resp, _ := get("/static/style.css", "secret"); resp.Header.Get("Content-Type") != "text/css; charset=utf-8" {
				t.Errorf("the style sheet: %v", resp.Header)
			}
		})
	}
}
