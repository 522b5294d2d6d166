package gate_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/ca"
	"cis490/internal/gate"
	"cis490/internal/pkitest"
)

func tokenLine(host, token string) string {
	sum := sha256.Sum256([]byte(token))
	return host + " " + hex.EncodeToString(sum[:]) + "\n"
}

func TestTokenIsOfTheCertificatesHost(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	pkitest.WriteFile(t, tokens, []byte("# the lab\n\n"+tokenLine("lab-01", "one")+tokenLine("lab-02", "two")))
	l := pkitest.New(t, func(c *gate.Config) { c.TokensFile = tokens })
	first, third := l.Issue("lab-01", ca.IssueOptions{}), l.Issue("lab-03", ca.IssueOptions{})
	for _, c := range []struct {
		name   string
		caller *pkitest.Caller
		token  string
		want   int
	}{
		{"right", first, "one", http.StatusOK},
		{"missing", first, "", http.StatusUnauthorized},
		{"wrong", first, "oneone", http.StatusUnauthorized},
		{"of another host", first, "two", http.StatusUnauthorized},
		{"blank", first, " ", http.StatusUnauthorized},
		{"host without a line", third, "one", http.StatusUnauthorized},
		{"host without a line or token", third, "", http.StatusUnauthorized},
	} {
		c.caller.Token = c.token
		if r := c.caller.Call(); r.Err != nil || r.Status != c.want {
			t.Errorf("%s: got %d %q, %v; want %d", c.name, r.Status, r.Body, r.Err, c.want)
		}
	}
}

func TestOneAuthorizationFieldCounts(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	pkitest.WriteFile(t, tokens, []byte(tokenLine("lab-01", "one")))
	l := pkitest.New(t, func(c *gate.Config) { c.TokensFile = tokens })
	leaf := pkitest.LoadAuthority(t, l.Dir, "hosts-ca").Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil).Leaf
	for _, c := range []struct {
		fields []string
		want   error
	}{
		{[]string{"Bearer one"}, nil},
		{[]string{"bearer  one"}, nil},
		{[]string{"one"}, gate.ErrToken},
		{[]string{"Basic one"}, gate.ErrToken},
		{[]string{"Bearer one", "Bearer one"}, gate.ErrToken},
		{[]string{"Bearer"}, gate.ErrToken},
		{nil, gate.ErrToken},
	} {
		r := &http.Request{
			Header: http.Header{"Authorization": c.fields},
			TLS:    &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}},
		}
		if got, err := l.Gate.IdentifyCaller(r); !errors.Is(err, c.want) {
			t.Errorf("%q: got %+v, %v; want %v", c.fields, got, err, c.want)
		}
	}
}

func TestBadTokensFileNamesTheLine(t *testing.T) {
	good := tokenLine("lab-01", "one")
	sum := strings.Fields(good)[1]
	for name, text := range map[string]string{
		"one word":         "lab-02\n",
		"three words":      "lab-02 " + sum + " x\n",
		"bad name":         ".. " + sum + "\n",
		"short":            "lab-02 " + sum[1:] + "\n",
		"upper case":       "lab-02 " + strings.ToUpper(sum) + "\n",
		"host twice":       tokenLine("lab-01", "two"),
		"token twice":      tokenLine("lab-02", "one"),
		"token of nothing": tokenLine("lab-02", ""),
		"control":          "lab\x1b[2J " + sum + "\n",
	} {
		_, err := gate.ParseTokens("tokens", []byte(good+"# comment\n"+text))
		if err == nil || !strings.HasPrefix(err.Error(), "tokens:3: ") {
			t.Errorf("%s: got %v; want an error at tokens:3", name, err)
		}
	}
}

func FuzzTokens(f *testing.F) {
	f.Add("")
	f.Add("# x\r\n" + tokenLine("lab-01", "one") + "\n  " + tokenLine("lab-02", "two"))
	f.Add("lab-01 x")
	f.Add(tokenLine("lab-01", "one") + tokenLine("lab-01", "two"))
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := gate.ParseTokens("tokens", []byte(text))
		if err != nil {
			for _, c := range err.Error() {
				if c < ' ' || c > '~' {
					t.Fatalf("error is not printable ASCII: %q", err)
				}
			}
			return
		}
		var again strings.Builder
		for host, sum := range tokens {
			if !strings.Contains(text, sum.String()) {
				t.Errorf("%s has a sum that the file has not", host)
			}
			again.WriteString(string(pkitest.MustName(t, string(host))) + " " + sum.String() + "\n")
		}
		if same, err := gate.ParseTokens("tokens", []byte(again.String())); err != nil || len(same) != len(tokens) {
			t.Errorf("read again: got %d, %v; want %d", len(same), err, len(tokens))
		}
	})
}
