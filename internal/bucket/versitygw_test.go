package bucket_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
)

func TestVersitygwKeepsTheContract(t *testing.T) {
	if testing.Short() {
		t.Skip("sends thousands of requests")
	}
	c := buckettest.Versitygw(t)
	opened := 0
	buckettest.RunContract(t, func(t *testing.T) bucket.Bucket {
		opened++
		c.Prefix = fmt.Sprint("test-", opened)
		return open(t, c)
	})
}

func TestProbePassesOnVersitygw(t *testing.T) {
	dir := t.TempDir()
	c := buckettest.VersitygwAt(t, dir)
	c.Prefix = "lab"
	c.Endpoints = append(c.Endpoints, buckettest.VersitygwAt(t, dir).Endpoints...)
	s := open(t, c)
	for range 2 {
		report, err := bucket.Probe(t.Context(), s.Endpoints()...)
		fixture.Must(t, err)
		checkReport(t, report, err)
		if !slices.Equal(report.Endpoints, c.Endpoints) || !slices.Equal(report.Servers, []string{"VERSITYGW", "VERSITYGW"}) {
			t.Errorf("got %q of %q, want both endpoints", report.Servers, report.Endpoints)
		}
	}
	var names []string
	for info, err := range s.List(t.Context(), "", "") {
		fixture.Must(t, err)
		names = append(names, info.Name)
	}
	if len(names) > 0 {
		t.Errorf("got the objects %q, want none", names)
	}
}

// TestProbeRefusesEnginesThatShareNothing: behind one name, they would be two stores.
func TestProbeRefusesEnginesThatShareNothing(t *testing.T) {
	c := buckettest.Versitygw(t)
	c.Endpoints = append(c.Endpoints, buckettest.Versitygw(t).Endpoints...)
	report, err := bucket.Probe(t.Context(), open(t, c).Endpoints()...)
	if failed := checkReport(t, report, err); !slices.Contains(failed, "same-objects") || !slices.Contains(failed, "create-only") {
		t.Errorf("got %q failed (%v), want create-only and same-objects", failed, err)
	}
}

func TestMistakesAtVersitygwAreExplained(t *testing.T) {
	right := buckettest.Versitygw(t)
	for want, change := range map[string]func(*bucket.Config){
		"does not know the access key in ": func(c *bucket.Config) {
			c.CredentialsFile = buckettest.WriteCredentials(t, "ANOTHERKEY", "test-secret-of-nobody")
		},
		"correct the secret key in ": func(c *bucket.Config) {
			c.CredentialsFile = buckettest.WriteCredentials(t, "TESTACCESSKEY", "test-secret-of-nobody")
		},
		"has no bucket another: create it": func(c *bucket.Config) { c.Bucket = "another" },
		"correct region":                   func(c *bucket.Config) { c.Region = "eu-west-1" },
	} {
		c := right
		change(&c)
		report, err := bucket.Probe(t.Context(), open(t, c).Endpoints()...)
		if err == nil || len(report.Checks) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v after %d checks, want %q", err, len(report.Checks), want)
		}
		if err != nil && (strings.Contains(err.Error(), "ANOTHERKEY") || strings.Contains(err.Error(), "test-secret")) {
			t.Errorf("got the keys in an error: %v", err)
		}
	}
}

func TestFullVersitygwStoresNothing(t *testing.T) {
	dir := t.TempDir()
	fixture.MountTmpfsAt(t, dir, "size=8m")
	s := open(t, buckettest.VersitygwAt(t, dir))
	content := fixture.Noise(6<<20, 1)
	put := func(name string) error {
		return s.Put(t.Context(), name, bytes.NewReader(content), int64(len(content)), digestOf(string(content)))
	}
	fixture.Must(t, put("a"))
	if err := put("b"); !errors.Is(err, bucket.ErrFull) {
		t.Errorf("got %v, want %v", err, bucket.ErrFull)
	}
	if _, err := s.Stat(t.Context(), "b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second object: got %v, want %v", err, fs.ErrNotExist)
	}
}

// TestBucketsThatKeepWhatIsRemovedAreRefused: they would grow for ever.
func TestBucketsThatKeepWhatIsRemovedAreRefused(t *testing.T) {
	c := buckettest.VersitygwAt(t, t.TempDir(), "--versioning-dir", t.TempDir())
	fixture.Must(t, open(t, c).CheckSettings(t.Context()))
	admin, err := minio.New(strings.TrimPrefix(c.Endpoints[0], "http://"), &minio.Options{Creds: credentials.NewFileAWSCredentials(string(c.CredentialsFile), "default")})
	fixture.Must(t, err)
	fixture.Must(t, admin.MakeBucket(t.Context(), "locked", minio.MakeBucketOptions{ObjectLocking: true}))
	fixture.Must(t, admin.EnableVersioning(t.Context(), c.Bucket))
	check := func(want string) {
		t.Helper()
		report, err := bucket.Probe(t.Context(), open(t, c).Endpoints()...)
		if failed := checkReport(t, report, err); !slices.Equal(failed, []string{"settings"}) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", c.Bucket, err, want)
		}
	}
	check("bucket receivers has versioning (Enabled)")
	fixture.Must(t, admin.SuspendVersioning(t.Context(), c.Bucket))
	check("bucket receivers has versioning (Suspended)")
	c.Bucket = "locked"
	check("bucket locked has ")
}
