package receiver_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/ca"
	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/receiver"
	"cis490/internal/sharedhosts"
)

// newBucketConfig returns the configuration of a receiver whose store is in a bucket, which is empty.
func newBucketConfig(t *testing.T) receiver.Config {
	t.Helper()
	c := receiver.DefaultConfig()
	c.MinFree, c.DataDir = 0, config.Path(t.TempDir())
	c.Store.Kind, c.Store.S3 = receiver.StoreOnS3, buckettest.Versitygw(t)
	pki := t.TempDir()
	fixture.Must(t, ca.Init(pki, ca.InitOptions{Names: []string{"127.0.0.1"}}))
	c.TLS = receiver.TLSConfig{
		CertFile:     config.Path(filepath.Join(pki, "server.crt")),
		KeyFile:      config.Path(filepath.Join(pki, "server.key")),
		ClientCAFile: config.Path(filepath.Join(pki, "hosts-ca.crt")),
	}
	return c
}

// startOnce starts a receiver and stops it.
func startOnce(t *testing.T, c receiver.Config, log *slog.Logger) {
	t.Helper()
	r, err := receiver.OpenGateAndNew(t.Context(), c, "test", "the test", log)
	fixture.Must(t, err)
	fixture.Must(t, r.Close())
}

// ended is an entry of the list of all receivers.
type ended struct {
	Host      string    `json:"host_id"`
	NotBefore time.Time `json:"not_before"`
	By        string    `json:"by"`
}

// readEnded returns the newest version of the list in a bucket, and the certificates that ended.
func readEnded(t *testing.T, c receiver.Config) (version int64, all map[string]ended) {
	t.Helper()
	in, err := bucket.Open(c.Store.S3)
	fixture.Must(t, err)
	version, newest, err := sharedhosts.NewList(in).Newest(t.Context())
	fixture.Must(t, err)
	var list struct {
		Replaced []ended `json:"replaced"`
	}
	if version > 0 {
		fixture.Must(t, json.Unmarshal(newest, &list))
	}
	all = make(map[string]ended)
	for _, e := range list.Replaced {
		all[e.Host] = e
	}
	return version, all
}

// What the records of a receiver have ended, it ends at all receivers when it first shares a bucket with
// them: those without an identity directory have no records. A second start adds nothing, and needs no copy
// of the list that can be read.
func TestAStartSharesTheCertificatesThatHadEnded(t *testing.T) {
	c := newBucketConfig(t)
	c.IdentityDir = config.Path(t.TempDir())
	_, err := ca.InstallIssuing(filepath.Dir(string(c.TLS.CertFile)), string(c.IdentityDir))
	fixture.Must(t, err)
	before := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	records := filepath.Join(string(c.IdentityDir), "hosts")
	fixture.Must(t, os.MkdirAll(records, 0o700))
	for host, record := range map[string]string{
		"lab-01": `"replaced_before":"2026-11-29T10:00:00Z","replaced_by":"0A"`,
		"lab-02": `"serial":"0B"`, // has replaced none
		// The clock was set back: the host has a renewed certificate that is older than the end.
		"lab-03": `"replaced_before":"2026-11-29T10:00:00Z","replaced_by":"0C","renewed":{"serial":"0D","not_before":"2026-11-29T09:00:00Z","key_sha256":""}`,
	} {
		fixture.WriteFile(t, filepath.Join(records, host+".json"), `{"schema_version":1,"host_id":"`+host+`",`+record+`}`)
	}
	want := map[string]ended{"lab-01": {"lab-01", before, "0A"}, "lab-03": {"lab-03", before.Add(-time.Hour - time.Second), "0C"}}
	for range 2 {
		startOnce(t, c, discard())
		version, got := readEnded(t, c)
		if version != 1 || len(got) != len(want) || got["lab-01"] != want["lab-01"] || got["lab-03"] != want["lab-03"] {
			t.Errorf("got version %d with %v, want version 1 with %v", version, got, want)
		}
		path := filepath.Join(string(c.DataDir), "disabled-hosts.json")
		if copied := fixture.ReadFile(t, path); !json.Valid([]byte(copied)) {
			t.Errorf("the copy of the list is %q", copied)
		}
		fixture.WriteFile(t, path, "torn")
	}
}
