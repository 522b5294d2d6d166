package invite_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/invite"
)

const prefix = "cis490_join_"

var made = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func newToken() invite.Token {
	return invite.Token{
		Host: "lab-07", URLs: []string{"https://receiver.lab:8443", "https://10.0.0.1:8443", "https://[fd00::1]:8443"},
		CA: sha256.Sum256([]byte("ca")), ID: strings.Repeat("a", 16), Secret: strings.Repeat("b", 32),
		Created: made, Expires: made.Add(24 * time.Hour),
	}
}

// content returns the fields of a token, to change them.
func content(t *testing.T, token invite.Token) map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token.String(), prefix))
	fixture.Must(t, err)
	var fields map[string]any
	fixture.Must(t, json.Unmarshal(data[:len(data)-4], &fields))
	return fields
}

// encode returns a token with any content and the right checksum, as any sender can make one.
func encode(t *testing.T, fields any) string {
	t.Helper()
	data, err := json.Marshal(fields)
	fixture.Must(t, err)
	sum := sha256.Sum256(data)
	return prefix + base64.RawURLEncoding.EncodeToString(append(data, sum[:4]...))
}

func TestTokenIsParsedAsItWasMade(t *testing.T) {
	want := newToken()
	for _, text := range []string{want.String(), "  " + want.String() + "\r\n"} {
		if got, err := invite.ParseToken(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

// A token with as many and as long URLs as allowed is not too long for a host.
func TestTokenWithAllURLsThatMayBeIsParsed(t *testing.T) {
	token := newToken()
	token.Host, token.URLs = "lab-07", nil
	for n := range 16 {
		token.URLs = append(token.URLs, fmt.Sprintf("https://%s-%02d:65535", strings.Repeat("n", 111), n))
	}
	fixture.Must(t, invite.CheckURLs(token.URLs))
	if _, err := invite.ParseToken(token.String()); err != nil {
		t.Error(err)
	}
	if err := invite.CheckURLs(append(token.URLs, "https://x")); err == nil {
		t.Error("17 URLs are allowed")
	}
}

func TestTokenThatWasCutOrAlteredIsRefused(t *testing.T) {
	text := newToken().String()
	for n := range len(text) {
		if _, err := invite.ParseToken(text[:n]); err == nil {
			t.Errorf("the first %d of %d characters are a token", n, len(text))
		}
		altered := []byte(text)
		altered[n] ^= 1
		if got, err := invite.ParseToken(string(altered)); err == nil {
			t.Errorf("with character %d altered it is a token: %+v", n, got)
		}
	}
}

func TestForeignTokenIsRefusedWithAReason(t *testing.T) {
	tests := map[string]struct {
		key   string
		value any
		want  string
	}{
		"newer version":   {"v", 2, "upgrade the shipper"},
		"no version":      {"v", 0, "was altered"},
		"bad host":        {"h", "../x", "was altered"},
		"no host":         {"h", "", "was altered"},
		"short hash":      {"c", []byte("short"), "was altered"},
		"no hash":         {"c", nil, "was altered"},
		"bad id":          {"i", "../../etc/passwd", "was altered"},
		"short secret":    {"s", "aaaa", "was altered"},
		"no URL":          {"u", []string{}, "needs a URL"},
		"many URLs":       {"u", strings.Split(strings.Repeat("https://a ", 17), " ")[:17], "more than a token can have"},
		"plain http":      {"u", []string{"http://receiver.lab:8443"}, "https://NAME:PORT"},
		"credentials":     {"u", []string{"https://a:b@receiver.lab"}, "https://NAME:PORT"},
		"path":            {"u", []string{"https://receiver.lab/x"}, "https://NAME:PORT"},
		"query":           {"u", []string{"https://receiver.lab?x"}, "https://NAME:PORT"},
		"port 0":          {"u", []string{"https://receiver.lab:0"}, "port"},
		"port 65536":      {"u", []string{"https://receiver.lab:65536"}, "port"},
		"terminal escape": {"u", []string{"https://receiver\u009b31m:1"}, "https://NAME:PORT"},
		"bidi override":   {"u", []string{"https://\u202ereceiver:1"}, "https://NAME:PORT"},
		"text as time":    {"t", "now", "was altered"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fields := content(t, newToken())
			fields[test.key] = test.value
			_, err := invite.ParseToken(encode(t, fields))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
		})
	}
	newer := encode(t, map[string]any{"v": 2, "h": 7, "u": "another shape"})
	if _, err := invite.ParseToken(newer); err == nil || !strings.Contains(err.Error(), "upgrade the shipper") {
		t.Errorf("a newer token of another shape: got %v", err)
	}
	for _, text := range []string{"", "lab-07", "CIS490_JOIN_abc", "Bearer " + newToken().String(), newToken().String() + "\n" + newToken().String()} {
		if _, err := invite.ParseToken(text); err == nil {
			t.Errorf("%q is a token", text)
		}
	}
}

func TestTokenErrorsNeverShowTheSecret(t *testing.T) {
	token := newToken()
	text := token.String()
	for _, bad := range []string{text[:len(text)-1], text + "x", text[1:], "x" + text, strings.Repeat(text, 40)} {
		_, err := invite.ParseToken(bad)
		if err == nil || strings.Contains(err.Error(), token.Secret) || strings.Contains(err.Error(), text[20:40]) {
			t.Errorf("%d characters: got %v", len(bad), err)
		}
	}
}

// The clock of a machine without a battery says 1970.
func TestWrongClockIsNamedBeforeAnythingIsSent(t *testing.T) {
	for _, test := range []struct {
		now  time.Time
		want string // "" means no error
	}{
		{time.Unix(0, 0), "set the clock"},
		{made.Add(-31 * time.Minute), "set the clock"},
		{made.Add(-29 * time.Minute), ""},
		{made, ""},
		{made.Add(24*time.Hour - time.Second), ""},
		{made.Add(24 * time.Hour), "receiver invite lab-07"},
		{made.AddDate(10, 0, 0), "expired"},
	} {
		err := newToken().CheckClock(test.now)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("at %v: got %v, want %q", test.now, err, test.want)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken().String())
	f.Add(prefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := invite.ParseToken(text)
		if err != nil {
			if !isPrintable(err.Error()) {
				t.Errorf("not printable: %q", err)
			}
			return
		}
		if !isPrintable(string(token.Host) + strings.Join(token.URLs, "")) {
			t.Errorf("not printable: %+v", token)
		}
		if again, err := invite.ParseToken(token.String()); err != nil || !reflect.DeepEqual(again, token) {
			t.Errorf("%+v becomes %+v, %v", token, again, err)
		}
		_ = token.CheckClock(made)
	})
}

// FuzzTokenContent fuzzes what the checksum hides from FuzzParseToken.
func FuzzTokenContent(f *testing.F) {
	f.Add([]byte(`{"v":1,"h":"lab-07","u":["https://a:1"],"c":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","i":"aaaaaaaaaaaaaaaa","s":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","t":1,"e":2}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		sum := sha256.Sum256(content)
		token, err := invite.ParseToken(prefix + base64.RawURLEncoding.EncodeToString(append(content[:len(content):len(content)], sum[:4]...)))
		if err != nil {
			if !isPrintable(err.Error()) {
				t.Errorf("not printable: %q", err)
			}
			return
		}
		if !isPrintable(string(token.Host) + strings.Join(token.URLs, "")) {
			t.Errorf("not printable: %+v", token)
		}
		if again, err := invite.ParseToken(token.String()); err != nil || !reflect.DeepEqual(again, token) {
			t.Errorf("%+v becomes %+v, %v", token, again, err)
		}
		_ = token.CheckClock(made)
	})
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
