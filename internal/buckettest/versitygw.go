package buckettest

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/fixture"
)

// The bucket and the keys of an engine for tests.
const (
	bucketName = "receivers"
	accessKey  = "TESTACCESSKEY"
	secretKey  = "test-secret-of-the-engine"
)

// Versitygw starts an S3 engine that keeps objects in a temporary directory, and returns an empty
// bucket of it. The engine ends with the test. The program is $VERSITYGW, or else versitygw; without
// it the test is skipped, or fails under CI.
func Versitygw(t testing.TB) bucket.Config {
	t.Helper()
	return VersitygwAt(t, t.TempDir())
}

// VersitygwAt is [Versitygw] for the buckets below a directory, which several engines may share.
func VersitygwAt(t testing.TB, dir string, options ...string) bucket.Config {
	t.Helper()
	fixture.Must(t, os.MkdirAll(filepath.Join(dir, bucketName), 0o700))
	c := bucket.DefaultConfig()
	c.Bucket = bucketName
	c.Endpoints = []string{startVersitygw(t, append(options, dir))}
	c.CredentialsFile = WriteCredentials(t, accessKey, secretKey)
	return c
}

// startVersitygw returns the URL of an engine that it started.
func startVersitygw(t testing.TB, options []string) string {
	t.Helper()
	program := os.Getenv("VERSITYGW")
	if program == "" {
		program = fixture.RequireTool(t, "versitygw")
	}
	address, err := fixture.FreeAddr()
	fixture.Must(t, err)
	var output bytes.Buffer
	cmd := exec.Command(program, append([]string{"--quiet", "--port", address, "--keep-alive", "posix"}, options...)...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
	cmd.Stdout, cmd.Stderr = &output, &output
	fixture.Must(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unless it has ended
		<-ended
		if t.Failed() {
			t.Logf("versitygw at %s: %s", address, strings.TrimSpace(output.String()))
		}
	})
	fixture.Must(t, awaitHTTP("http://"+address, ended))
	return "http://" + address
}

// awaitHTTP waits until a server answers. It returns an error if its process ends before.
func awaitHTTP(url string, ended <-chan struct{}) error {
	poll, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer poll.Stop()
	for {
		select {
		case <-ended:
			return fmt.Errorf("the server at %s ended", url)
		case <-late:
			return fmt.Errorf("the server at %s does not answer", url)
		case <-poll.C:
		}
		if resp, err := http.Get(url); err == nil {
			return resp.Body.Close()
		}
	}
}
