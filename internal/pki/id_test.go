package pki_test

import (
	"strings"
	"testing"

	"cis490/internal/pki"
	"cis490/internal/pkitest"
)

func FuzzIdentity(f *testing.F) {
	f.Add("spiffe://cis490.lab/host/lab-01")
	f.Add("spiffe://cis490.lab/host/..")
	f.Add("spiffe://cis490.lab/host/a#")
	f.Add("spiffe://cis490.lab:1/host/a?b")
	f.Add("SPIFFE://cis490.lab/host/a%2fb")
	f.Add("spiffe://a/host/b/host/c")
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := pki.ParseID(uri)
		if err != nil {
			for _, c := range err.Error() {
				if c < ' ' || c > '~' {
					t.Fatalf("error is not printable ASCII: %q", err)
				}
			}
			return
		}
		pkitest.MustName(t, string(id.Host))
		if id.String() != uri || strings.Count(uri, "/") != 4 || strings.ContainsAny(uri, "%?#@ \\") {
			t.Errorf("%q was read as %+v", uri, id)
		}
	})
}
