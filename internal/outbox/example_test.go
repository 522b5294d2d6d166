package outbox_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"os"

	"cis490/internal/durable"
	"cis490/internal/outbox"
)

// An episode is packed once. Every attempt to send it reads the sealed bytes.
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
	box := outbox.New(dir)
	defer box.Close()

	draft, err := box.CreateDraft("run-7")
	if err != nil {
		log.Fatal(err)
	}
	packed := []byte("a tar.zst stream")
	if _, err := draft.Write(packed); err != nil {
		log.Fatal(err)
	}
	if err := draft.Seal(outbox.Seal{Digest: sha256.Sum256(packed)}); err != nil {
		log.Fatal(err)
	}
	for name, err := range box.Names() {
		if err != nil {
			log.Fatal(err)
		}
		entry, err := box.OpenEntry(name)
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(entry.Reader())
		fmt.Printf("%s: %q, %v\n", name, text, err)
		entry.Close()
	}
	// Output: run-7: "a tar.zst stream", <nil>
}
