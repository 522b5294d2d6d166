package notify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/notify"
)

// TestDocumentedVerificationAcceptsOurRequestsOnly runs the Python of docs/hooks.md.
func TestDocumentedVerificationAcceptsOurRequestsOnly(t *testing.T) {
	python := fixture.RequireTool(t, "python3")
	_, code, found := strings.Cut(fixture.ReadFile(t, "../../docs/hooks.md"), "```python\n")
	code, _, closed := strings.Cut(code, "```\n")
	if !found || !closed {
		t.Fatal("docs/hooks.md has no Python")
	}
	code += `
import json, sys
for line in sys.stdin:
    c = json.loads(line)
    print(verify(c["secret"], c["headers"], c["body"].encode()))
`
	e := stored(1)
	body, err := e.Encode()
	fixture.Must(t, err)
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte(testSecret))
	now := time.Now()
	type call struct {
		Secret  string            `json:"secret"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
		want    string
	}
	headers := func(id string, at time.Time) map[string]string {
		return map[string]string{
			"webhook-id": id, "webhook-timestamp": fmt.Sprint(at.Unix()),
			"webhook-signature": notify.Sign([]byte(testSecret), e.ID, at, body),
		}
	}
	rotated := headers(e.ID, now)
	rotated["webhook-signature"] = "v1,AAAA " + rotated["webhook-signature"]
	var input bytes.Buffer
	calls := []call{
		{secret, headers(e.ID, now), string(body), "True"},
		{secret, rotated, string(body), "True"},
		{secret, headers(e.ID, now), string(body) + " ", "False"},
		{secret, headers("msg_other", now), string(body), "False"},
		{secret, headers(e.ID, now.Add(-time.Hour)), string(body), "False"},
		{"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)), headers(e.ID, now), string(body), "False"},
		{secret, map[string]string{}, string(body), "False"},
	}
	var want []string
	for _, c := range calls {
		fixture.Must(t, json.NewEncoder(&input).Encode(c))
		want = append(want, c.want)
	}
	cmd := exec.Command(python, "-c", code)
	cmd.Stdin = &input
	out, err := cmd.CombinedOutput()
	if got := strings.Fields(string(out)); err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %s, %v, want %q", out, err, want)
	}
}

// TestDocumentedEventIsValid: the example is one that the program could have made.
func TestDocumentedEventIsValid(t *testing.T) {
	_, text, _ := strings.Cut(fixture.ReadFile(t, "../../docs/hooks.md"), "```json\n")
	text, _, _ = strings.Cut(text, "\n```")
	e, err := notify.ParseEvent([]byte(text))
	fixture.Must(t, err)
	again, err := e.Encode()
	fixture.Must(t, err)
	if string(again) != text {
		t.Errorf("got  %s\nwant %s", again, text)
	}
}
