package credentials_test

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/fixture"
	"cis490/internal/pkitest"
)

// The one that became valid later is used, so that a pair installed by hand wins.
func TestLaterCertificateIsUsed(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now())
	for name, test := range map[string]struct {
		issued time.Time
		byHand bool
	}{
		"older":  {time.Now().Add(-2 * time.Hour), false},
		"newer":  {time.Now().Add(30 * time.Minute), true},
		"absent": {time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			config := credentials.Config{
				CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, "lab-01.crt"), KeyFile: filepath.Join(out, "lab-01.key"),
				IdentityDir: h.Identity, Host: "lab-01",
			}
			want := h.Issued.Serial
			if !test.issued.IsZero() {
				issued, err := ca.IssueHost(j.Dir, "lab-01", out, ca.IssueOptions{Now: test.issued})
				fixture.Must(t, err)
				if test.byHand {
					want = issued.Serial
				}
			}
			client, err := credentials.Load(config)
			fixture.Must(t, err)
			if got := serialOf(t, client); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			files := config.Files()
			if byHand := len(files) > 0 && strings.HasPrefix(files[0], out); byHand != test.byHand {
				t.Errorf("the files are %q", files)
			}
		})
	}
}

func serialOf(t *testing.T, c *credentials.Client) string {
	t.Helper()
	pair, err := c.TLSConfig().GetClientCertificate(nil)
	fixture.Must(t, err)
	return strings.ToLower(strings.Repeat("0", 32-len(pair.Leaf.SerialNumber.Text(16))) + pair.Leaf.SerialNumber.Text(16))
}

// A daemon names a damaged file, and joining again repairs it.
func TestDamagedIdentityIsNamedAndRepairedByJoining(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	for name, damage := range map[string]func(dir string){
		"empty":       func(dir string) { pkitest.WriteFile(t, filepath.Join(dir, "host.pem"), nil) },
		"cut":         func(dir string) { pkitest.Cut(t, filepath.Join(dir, "host.pem")) },
		"no key":      func(dir string) { without(t, filepath.Join(dir, "host.pem"), "PRIVATE KEY") },
		"no CA":       func(dir string) { fixture.Must(t, os.Remove(filepath.Join(dir, "host-ca.crt"))) },
		"a broken CA": func(dir string) { pkitest.Cut(t, filepath.Join(dir, "host-ca.crt")) },
		"another's": func(dir string) {
			other := j.Join("lab-02", false, time.Now())
			pkitest.WriteFile(t, filepath.Join(dir, "host.pem"), pkitest.ReadFile(t, filepath.Join(other.Identity, "host.pem")))
		},
		"a receiver's": func(dir string) {
			pkitest.WriteFile(t, filepath.Join(dir, "host.pem"), append(pkitest.ReadFile(t, j.Path("server.key")), pkitest.ReadFile(t, j.Path("server.crt"))...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := j.Join("lab-01", false, time.Now())
			damage(h.Identity)
			config := credentials.Config{IdentityDir: h.Identity, Host: "lab-01"}
			if _, err := credentials.Load(config); err == nil || !strings.Contains(err.Error(), h.Identity) {
				t.Errorf("got %v, want an error that names the file", err)
			}
			config.Files() // must not fail
			pending, err := credentials.OpenPending(h.Identity, "invitation")
			fixture.Must(t, err)
			chain, err := j.Issuer.Chain(h.Issued.Serial) // as the receiver answers the same key again
			fixture.Must(t, err)
			_, err = pending.Install("lab-01", chain, pkitest.LoadCertificate(t, j.Path("ca.crt")))
			fixture.Must(t, err)
			_, err = credentials.Load(config)
			fixture.Must(t, err)
		})
	}
}

// without removes the PEM blocks of a kind.
func without(t *testing.T, path, kind string) {
	t.Helper()
	var left []byte
	for block, rest := pem.Decode(pkitest.ReadFile(t, path)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			left = append(left, pem.EncodeToMemory(block)...)
		}
	}
	pkitest.WriteFile(t, path, left)
}
