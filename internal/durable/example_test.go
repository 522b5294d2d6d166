package durable_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"cis490/internal/durable"
)

// A file gets its name when all of it is on the disk, and not before.
func Example() {
	path, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	dir, err := durable.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()

	f, err := dir.Create("report.partial", 0o644)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("all of it\n")); err != nil {
		log.Fatal(err)
	}
	_, err = os.Stat(filepath.Join(path, "report"))
	fmt.Println("before:", os.IsNotExist(err))
	if err := f.Commit("report"); err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(path, "report"))
	fmt.Printf("after: %s%v\n", text, err)
	// Output:
	// before: true
	// after: all of it
	// <nil>
}
