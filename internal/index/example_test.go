package index_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
)

// A row is in the file, durably, when Append returns.
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
	rows, err := index.Open(dir, "index.jsonl", func(index.TailNotice) {})
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()

	_, err = rows.Append(context.Background(), index.Row{
		ReceivedAt: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC),
		Key:        episode.Key{Host: "lab-01", Name: "run-7"},
		SHA256:     sha256.Sum256([]byte("a tar.zst stream")),
		Size:       16,
	})
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(path, "index.jsonl"))
	fmt.Printf("%s%v\n", text, err)
	// Output:
	// {"episode_id": "run-7", "host_id": "lab-01", "received_at_wall": "2026-11-01T08:00:00.000000+00:00", "schema_version": 1, "sha256": "c3e1b4cf21fa500be0c79e8307979321053e08ad7f951d7d1e3e647b980818e9", "size_bytes": 16}
	// <nil>
}
