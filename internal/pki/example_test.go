package pki_test

import (
	"fmt"

	"cis490/internal/pki"
)

// The identity of a host is the URI in its certificate.
func ExampleParseID() {
	id, err := pki.ParseID("spiffe://cis490.lab/host/lab-01")
	fmt.Println(id.TrustDomain, id.Host, err)
	// Output: cis490.lab lab-01 <nil>
}
