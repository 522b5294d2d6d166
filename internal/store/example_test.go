package store_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/store"
)

// An upload is staged, committed under its name, and cleaned up once its row in the index is
// durable.
func Example() {
	path, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	data, err := durable.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer data.Close()
	archives, err := store.Open(data)
	if err != nil {
		log.Fatal(err)
	}
	defer archives.Close()

	upload, err := archives.CreateUpload(episode.Key{Host: "lab-01", Name: "run-7"})
	if err != nil {
		log.Fatal(err)
	}
	received := []byte("a tar.zst stream")
	if _, err := upload.Write(received); err != nil {
		log.Fatal(err)
	}
	digest, arrived := sha256.Sum256(received), time.Now()
	printFiles("staged", path)
	if err := upload.Commit(digest, arrived); err != nil {
		log.Fatal(err)
	}
	printFiles("committed", path)
	// Here the receiver appends the row to the index.
	if err := upload.MarkIndexed(arrived); err != nil {
		log.Fatal(err)
	}
	printFiles("indexed", path)
	// Output:
	// staged: staging/lab-01/run-7~NONCE
	// committed: episodes/lab-01/run-7.tar.zst staging/lab-01/run-7~NONCE
	// indexed: episodes/lab-01/run-7.tar.zst
}

// printFiles prints the files below a directory.
func printFiles(when, path string) {
	var files []string
	err := fs.WalkDir(os.DirFS(path), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if head, _, found := strings.Cut(name, "~"); found {
				name = head + "~NONCE"
			}
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(when+":", strings.Join(files, " "))
}
