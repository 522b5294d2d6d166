package ca_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"cis490/internal/ca"
)

// A lab's certificates are created on one machine, and issued to hosts.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cas, out := filepath.Join(dir, "pki"), filepath.Join(dir, "lab-01")

	if err := ca.Init(cas, ca.InitOptions{Names: []string{"receiver.lab", "10.0.0.1"}}); err != nil {
		log.Fatal(err)
	}
	issued, err := ca.IssueHost(cas, "lab-01", out, ca.IssueOptions{})
	if err != nil {
		log.Fatal(err)
	}
	files, err := os.ReadDir(out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("issued to", issued.Host)
	for _, f := range files {
		fmt.Println(f.Name())
	}
	// Output:
	// issued to lab-01
	// ca.crt
	// lab-01.crt
	// lab-01.key
}
