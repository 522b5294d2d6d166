// Package buckettest provides buckets for tests: [Memory] with faults, and [Versitygw], a real
// engine. [RunContract] tests any bucket.
//
// Invariant: a bucket for tests keeps the whole contract of [bucket.Bucket], and returns an error to
// a caller that does not. Only a test that asks for a [Fault] or [Breach] gets one.
package buckettest

import (
	"path/filepath"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/config"
	"cis490/internal/fixture"
)

var _ bucket.Bucket = (*Memory)(nil)

// WriteCredentials writes a file with keys, and returns its path.
func WriteCredentials(t testing.TB, access, secret string) config.Path {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	fixture.WriteFile(t, path, "[default]\naws_access_key_id = "+access+"\naws_secret_access_key = "+secret+"\n")
	return config.Path(path)
}
