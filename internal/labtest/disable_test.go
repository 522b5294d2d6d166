package labtest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"cis490/internal/labtest"
)

func TestDisabledHostIsShutOutInTheMiddleOfItsUpload(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	other := l.Host("lab-02")
	hosts := func(args ...string) string {
		t.Helper()
		return l.Receiver(append([]string{"--config", l.Path("receiver.toml"), "hosts"}, args...)...).MustExit(t, 0).Stdout
	}
	content := bytes.Repeat([]byte("slow "), 100_000)
	body, sender := io.Pipe()
	defer sender.Close()
	answer := make(chan string, 1)
	go func() {
		sum := sha256.Sum256(content)
		req, err := http.NewRequest(http.MethodPut, l.URL("/v1/episodes/lab-01/slow"), body)
		if err != nil {
			answer <- err.Error()
			return
		}
		req.ContentLength = int64(len(content))
		req.Header.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
		resp, err := h.Client(t).Do(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		answer <- resp.Status + " " + string(text)
	}()
	if _, err := sender.Write(content[:len(content)/2]); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "the upload is under way", func() bool {
		staged, err := filepath.Glob(l.Path("data", "staging", "lab-01", "*"))
		return err == nil && len(staged) == 1
	})
	mustContain(t, "the command", hosts("disable", "lab-01"), "lab-01: disabled\n")
	mustContain(t, "the answer", <-answer, "403 Forbidden", "urn:cis490:problem:forbidden", "host lab-01 is disabled")
	h.Episode("run-1")
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	other.Episode("run-1")
	other.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if rows := l.Rows(t); len(rows) != 1 {
		t.Errorf("the index has %+v", rows)
	}
	mustContain(t, "the command", hosts("enable", "lab-01"), "lab-01: enabled")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}
