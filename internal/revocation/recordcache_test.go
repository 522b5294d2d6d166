package revocation

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// TestRecordsAreReadAgainOnlyAfterAChange, and never kept while a change could go unseen.
func TestRecordsAreReadAgainOnlyAfterAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock is years behind that of the kernel
		path := t.TempDir()
		var c RecordCache
		reads := 0
		var broken error
		read := func() {
			t.Helper()
			dir, err := pki.OpenDir(path)
			fixture.Must(t, err)
			defer dir.Close()
			certs, err := c.read(path, dir, func() ([]*x509.Certificate, error) {
				reads++
				return make([]*x509.Certificate, reads), broken
			})
			if !errors.Is(err, broken) || len(certs) != reads {
				t.Errorf("%d certificates, %v, after %d readings", len(certs), err, reads)
			}
		}
		want := func(n int, when string) {
			t.Helper()
			read()
			if reads != n {
				t.Errorf("%s: %d readings, want %d", when, reads, n)
			}
		}
		want(1, "the first time")
		want(2, "just after a change")
		time.Sleep(time.Until(changedAt(t, path)) + time.Hour) // from here on the clock is ahead
		want(3, "a while after it")
		want(3, "once more")
		fixture.WriteFile(t, filepath.Join(path, "x"), "")
		broken = errors.New("one cannot be read")
		want(4, "after a change")
		want(5, "while one cannot be read")
		broken = nil
		want(6, "when all can be read")
		want(6, "once more")
	})
}

func changedAt(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	fixture.Must(t, err)
	return info.ModTime()
}
